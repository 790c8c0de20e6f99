"""Measures what a rank sees of itself and of its host: limits, processors, memory, network interfaces."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from .. import knobs
from ..job import host, interfaces
from ..selection.places import SYS, number, text
from ..start import host_identity
from .facts import Card, Own

_PROC = Path("/proc")
_LOOPBACK, _TUNNEL = 0x8, 0x10  # linux/if.h: IFF_LOOPBACK, IFF_POINTOPOINT
_PTRACE = 1 << 19  # linux/capability.h: CAP_SYS_PTRACE


def look(size: int) -> Own:
    """Return what this process sees, of a job of so many ranks."""
    host.allow_descriptors(host.PEER_DESCRIPTORS * size)  # as init does
    receive, send = (text(_PROC / f"sys/net/ipv4/tcp_{way}mem").split() for way in ("r", "w"))
    return Own(
        host=socket.gethostname(),
        identity=host_identity().hex(),
        transports=knobs.TRANSPORTS.value(),
        processors=tuple(sorted(os.sched_getaffinity(0))),
        online=os.cpu_count() or 1,
        descriptors=_limit(resource.RLIMIT_NOFILE),
        open=len(list(Path("/proc/self/fd").iterdir())),
        file_size=_limit(resource.RLIMIT_FSIZE),
        memlock=_limit(resource.RLIMIT_MEMLOCK),
        memory=_memory(),
        shm=_free(Path("/dev/shm")),
        reads_peers=_reads_peers(),
        tcp_receive=int(receive[2]) if len(receive) == 3 else 0,
        tcp_send=int(send[2]) if len(send) == 3 else 0,
        cards=tuple(_cards(knobs.SOCKET_IFNAME.value())),
    )


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _memory() -> int:
    words = (line.split() for line in text(_PROC / "meminfo").splitlines())
    free = next((int(line[1]) << 10 for line in words if line[0] == "MemAvailable:"), 0)
    group = next((line[3:] for line in text(_PROC / "self/cgroup").splitlines() if line.startswith("0::")), "")
    place = SYS / "fs/cgroup" / group.lstrip("/")  # where the control group's own namespace starts, if it has one
    most, used = number(place / "memory.max"), number(place / "memory.current")
    return free if most is None or used is None else min(free, max(0, most - used))


def _free(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _reads_peers() -> bool:
    """Return whether process_vm_readv is allowed among the processes of one user, as far as Yama decides that."""
    words = (line.split() for line in text(_PROC / "self/status").splitlines())
    capabilities = next((int(line[1], 16) for line in words if line[0] == "CapEff:"), 0)
    return not number(_PROC / "sys/kernel/yama/ptrace_scope") or bool(capabilities & _PTRACE)


def _cards(allowed: knobs.InterfaceFilter) -> Iterator[Card]:
    for name, addresses in interfaces.addresses_of().items():
        place = SYS / "class/net" / name
        speed = number(place / "speed")
        rate = speed * 1e6 / 8 if speed and speed > 0 else None
        yield Card(name, tuple(addresses), number(place / "mtu") or 0, rate, _unusable(name, addresses, place, allowed))


def _unusable(name: str, addresses: list[str], place: Path, allowed: knobs.InterfaceFilter) -> str:
    flags = int(text(place / "flags") or "0", 16)
    if flags & _LOOPBACK:
        return "is this host's own"
    if not allowed.allows(name):
        return f"is left out by {knobs.SOCKET_IFNAME.setting().name}={knobs.SOCKET_IFNAME.text()}"
    if not flags & 1:  # IFF_UP
        return "is down"
    if number(place / "carrier") == 0:
        return "has no carrier: is its cable in?"
    if flags & _TUNNEL:
        return "is a tunnel" if not allowed.names else ""
    return "" if addresses else "has no address"
