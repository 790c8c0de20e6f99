"""tcp between two network namespaces that two links join: both are used, and either may slow, fail and come back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SECONDS = 60  # for everything that a test waits for

# After each allreduce rank 0 says what it is connected by; a line from the test makes the next one the last.
RANK = """
import json, sys, threading
import numpy as np
from pycomm import init

comm = init(timeout=20)
stop = threading.Event()
if comm.rank == 0:
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
wanted = np.zeros(1, np.int32)
data = np.empty(1 << 20, np.int32)
rounds = 0
while not wanted[0]:
    data[:] = np.arange(1 << 20) + comm.rank
    comm.Allreduce(data, data)
    assert (data == 2 * np.arange(1 << 20) + 1).all()
    rounds += 1
    if comm.rank == 0:
        print(json.dumps([[r["from"], r["to"], r["sent"], r["up"]] for r in comm._world.rails()]), flush=True)
        wanted[0] = stop.is_set()
    comm.Bcast(wanted)
print(json.dumps(["rounds", rounds]), flush=True)
"""


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        pytest.skip(f"`{' '.join(command)}` says: {done.stderr.strip() or done.returncode}")


def _in(name: str, *command: str) -> None:
    _call("ip", "netns", "exec", name, *command)


class Links:
    """Two namespaces, joined by links 0 (200 Mbit/s) and 1 (100 Mbit/s), at 10.77.LINK.1 and 10.77.LINK.2."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        for link, rate in enumerate(("200mbit", "100mbit")):
            device = f"link{link}"
            peer = ("peer", "name", device, "netns", names[1])
            _call("ip", "link", "add", "name", device, "netns", names[0], "type", "veth", *peer)
            for side, name in enumerate(names):
                _call("ip", "-n", name, "address", "add", f"10.77.{link}.{side + 1}/24", "dev", device)
                _call("ip", "-n", name, "link", "set", device, "up")
                _in(name, "tc", "qdisc", "add", "dev", device, "root", "tbf", *self._shape(rate))
        for name in names:
            _call("ip", "-n", name, "link", "set", "lo", "up")
            # As on many hosts with containers: the same address on both.
            _call("ip", "-n", name, "link", "add", "bridge0", "type", "veth", "peer", "name", "container0")
            _call("ip", "-n", name, "link", "set", "container0", "up")
            _call("ip", "-n", name, "address", "add", "172.17.0.1/16", "dev", "bridge0")
            _call("ip", "-n", name, "link", "set", "bridge0", "up")
        until = time.monotonic() + SECONDS
        while not all(self._ready(name, f"link{link}") for name in names for link in range(2)):
            assert time.monotonic() < until, "the links do not come up"
            time.sleep(0.05)

    @staticmethod
    def _ready(name: str, device: str) -> bool:
        command = ["ip", "-n", name, "-json", "link", "show", "dev", device]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return bool(json.loads(found.stdout)[0]["operstate"] == "UP")

    @staticmethod
    def _shape(rate: str) -> tuple[str, ...]:
        return ("rate", rate, "burst", "128k", "latency", "20ms")

    def slow(self, link: int, rate: str) -> None:
        """Let a link carry less than before."""
        for name in self.names:
            _in(name, "tc", "qdisc", "change", "dev", f"link{link}", "root", "tbf", *self._shape(rate))

    def cut(self, link: int) -> None:
        """Let all packets on a link vanish without a sign: they go to nobody's address."""
        for side, name in enumerate(self.names):
            there = f"10.77.{link}.{2 - side}"
            _call("ip", "-n", name, "neigh", "replace", there, "lladdr", "02:00:00:00:00:99", "dev", f"link{link}")

    def mend(self, link: int) -> None:
        """Take back `cut`."""
        for side, name in enumerate(self.names):
            _call("ip", "-n", name, "neigh", "delete", f"10.77.{link}.{2 - side}", "dev", f"link{link}")


@pytest.fixture
def links() -> Iterator[Links]:
    """See Links."""
    if os.geteuid():
        pytest.skip("only root may make network namespaces")
    missing = [tool for tool in ("ip", "tc") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)}")
    names = [f"pycomm-{os.getpid()}-rails-{side}" for side in range(2)]
    with contextlib.ExitStack() as stack:
        for name in names:
            _call("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], timeout=20, check=True)
        yield Links(names)


class Job:
    """Two ranks, one in each namespace, that reduce until they are told to stop, and check what they get."""

    def __init__(self, links: Links, stack: contextlib.ExitStack) -> None:
        environment = {
            **os.environ, "PYCOMM_RENDEZVOUS": "tcp://10.77.0.1:5555", "PYCOMM_SIZE": "2", "PYCOMM_SECRET": "s" * 32,
            "PYCOMM_TRANSPORTS": "tcp",
        }  # fmt: skip
        self.ranks = [
            stack.enter_context(subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-c", RANK],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**environment, "PYCOMM_RANK": str(rank)}, text=True,
            ))
            for rank, name in enumerate(links.names)
        ]  # fmt: skip
        for rank in self.ranks:
            stack.callback(rank.kill)

    def until(self, met: Callable[[dict[str, tuple[int, int]]], bool]) -> None:
        """Wait for a round after which the rails, by rank 0's address, are as wanted: (bytes sent, connections up)."""
        for line in self.ranks[0].stdout or ():
            rails: dict[str, tuple[int, int]] = {}
            rows: list[Any] = json.loads(line)
            for own, _, sent, up in rows:
                host = own.partition(":")[0]
                before = rails.get(host, (0, 0))
                rails[host] = (before[0] + sent * up, before[1] + up)
            if met(rails):
                return
        pytest.fail(f"rank 0 has ended: {[rank.poll() for rank in self.ranks]}")

    def end(self) -> None:
        """Have the ranks stop, which must have gone well."""
        stdin = self.ranks[0].stdin
        assert stdin
        stdin.write("stop\n")
        stdin.flush()
        for rank in self.ranks:
            rank.communicate(timeout=SECONDS)
            assert rank.returncode == 0


FIRST, SECOND, BRIDGE = "10.77.0.1", "10.77.1.1", "172.17.0.1"


@pytest.mark.timeout(SECONDS)
def test_two_links(links: Links) -> None:
    """Both carry their part; one that slows, fails or comes back is taken for what it is, and nothing is lost."""
    with contextlib.ExitStack() as stack:
        job = Job(links, stack)
        job.until(lambda rails: all(rails.get(own, (0, 0))[0] > 1 << 20 for own in (FIRST, SECOND)))
        links.slow(0, "20mbit")
        job.until(lambda rails: rails[SECOND][0] > rails[FIRST][0])
        links.slow(0, "200mbit")
        links.cut(1)
        job.until(lambda rails: not rails[SECOND][1])
        links.mend(1)
        job.until(lambda rails: rails[SECOND][1] == 2 and rails[SECOND][0] > 1 << 20)
        job.until(lambda rails: BRIDGE not in rails)
        job.end()
