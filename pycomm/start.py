"""init(): from the environment that a launcher made to a communicator of all ranks."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from . import interfaces, keys, knobs
from .comm import Comm
from .environment import Job, join
from .errors import InvalidArgument
from .rendezvous import Rendezvous
from .select import Machine
from .world import World

_HOST_BYTES = 16
_FACTS = struct.Struct(f"<{_HOST_BYTES}sI")  # what ranks tell of themselves: their host, and its processors
_WORLD = 1  # id of the communicator of all ranks


def init(
    *,
    transports: str | None = None,
    timeout: float | None = None,
    rank: int | None = None,
    size: int | None = None,
    rendezvous: str | None = None,
    secret: bytes | None = None,
) -> Comm:
    """Join the job and return the communicator of all its ranks. A program without a launcher is a job of one rank.

    Args:
        transports: names in order of preference; None: PYCOMM_TRANSPORTS, "shm,tcp" by default.
        timeout: seconds that each later call may take; None: PYCOMM_TIMEOUT.
        rank, size: place in the job; None: what the launcher says.
        rendezvous: where ranks meet, tcp://HOST:PORT; None: PYCOMM_RENDEZVOUS, or what the launcher's facts give.
        secret: what the ranks know and nobody else; None: PYCOMM_SECRET or PYCOMM_SECRET_FILE.

    Raises:
        LaunchError: the environment is partial or contradictory.
        DeadlineExceeded: some ranks did not come, with their numbers.
    """
    patience = knobs.TIMEOUT.value() if timeout is None else timeout
    job = join(rank, size, rendezvous, secret, min(patience, 60.0))
    meeting = Rendezvous(job, min(patience, 60.0))
    names = transports or ",".join(knobs.TRANSPORTS.value())
    listen, advertise = _addresses(job)
    world = World(
        job.rank, job.size, job=job.job_id, transports=names, secret=job.secret, listen=listen, advertise=advertise
    )
    world.at_close(meeting.close)
    blobs = meeting.exchange(_FACTS.pack(_host(), len(os.sched_getaffinity(0))) + world.address())
    world.set_peers([blob[_FACTS.size :] for blob in blobs])
    facts = [_FACTS.unpack_from(blob) for blob in blobs]
    hosts = _by_host([host for host, _ in facts])
    world.set_local_ranks(next(len(host) for host in hosts if job.rank in host))
    crowded = any(len(host) > min(facts[r][1] for r in host) for host in hosts)
    far = len(hosts) > 1 or "shm" not in names
    comm = Comm(world, _WORLD, range(job.size), hosts, Machine(crowded, far))
    comm.set_timeout(patience)

    def on_lost(lost: int, why: str) -> None:
        if lost < 0:
            with contextlib.suppress(InvalidArgument):  # it was freed
                comm.Abort(why)
        else:
            world.peer_lost(lost, why)

    meeting.watch(on_lost)
    return comm


def _host() -> bytes:
    """Return what the ranks of one host have in common: its identity since it booted, and the network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    namespace = Path("/proc/self/ns/net").stat().st_ino
    return keys.derive(b"host", f"{boot}/{namespace}", _HOST_BYTES)


def _by_host(hosts: Sequence[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for rank, host in enumerate(hosts):
        groups.setdefault(host, []).append(rank)
    return list(groups.values())


def _addresses(job: Job) -> tuple[str | None, str | None]:
    """Return where tcp listens and what it tells the peers: loopback only, unless the job's endpoint is elsewhere."""
    allowed = knobs.SOCKET_IFNAME.value()
    if allowed.names:
        found = interfaces.addresses(allowed)
        return ("::" if any(":" in a for a in found) else "0.0.0.0"), ",".join(found)
    where = urlsplit(job.endpoint)
    if where.scheme != "tcp" or not where.hostname:
        return None, None
    family, _, _, _, address = socket.getaddrinfo(where.hostname, where.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing; the kernel tells which address it would send from
        own = str(probe.getsockname()[0])
    return own, own
