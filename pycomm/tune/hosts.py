"""Two hosts on one: network namespaces joined by a link, so that ranks of both use shared memory inside and sockets
between, as they would on a cluster."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidArgument, SystemRefused

_NEWNET = 0x40000000  # CLONE_NEWNET
_PORT = 5077


class Hosts:
    """Two namespaces and what a rank must do to live in one of them.

    Attributes:
        rendezvous: where ranks of both can meet, if rank 0 is on the first.
    """

    def __init__(self, names: tuple[str, str], network: str) -> None:
        self._names = names
        self.rendezvous = f"tcp://{network}.1:{_PORT}"

    def enter(self, rank: int, size: int) -> None:
        """Move this process to the host of a rank: the first half of them lives on the first one.

        Each host gets half of the processors.
        """
        side = int(2 * rank >= size)
        with Path(f"/run/netns/{self._names[side]}").open("rb") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), _NEWNET):
                raise SystemRefused(
                    f"cannot enter network namespace {self._names[side]}: {os.strerror(ctypes.get_errno())}"
                )
        processors = sorted(os.sched_getaffinity(0))
        half = max(1, len(processors) // 2)
        os.sched_setaffinity(0, processors[half:] or processors if side else processors[:half])


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts, and remove them at the end.

    Raises:
        InvalidArgument: this needs root and `ip`.
    """
    if os.geteuid() or not shutil.which("ip"):
        raise InvalidArgument("the mixed transport is measured between network namespaces, which takes root, and `ip`")
    names = (f"pycomm-{os.getpid()}-0", f"pycomm-{os.getpid()}-1")
    network = f"10.77.{os.getpid() % 256}"
    with contextlib.ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)  # takes its end of the link along
        _ip("-n", names[0], "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", names[1])
        for side, name in enumerate(names):
            _ip("-n", name, "address", "add", f"{network}.{side + 1}/24", "dev", "link0")
            for device in ("lo", "link0"):  # rank 0 meets its own hub through lo
                _ip("-n", name, "link", "set", device, "up")
        yield Hosts(names, network)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise SystemRefused(f"`ip {' '.join(words)}` says: {done.stderr.strip() or done.returncode}")
