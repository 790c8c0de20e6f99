"""Examines a job, on all of its ranks: they meet, tell what they see, and measure pairs, of which some may fail.

What is told goes by way of the hub, so that ranks which do not reach each other still tell of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..communicator.comm import Comm
from ..core import VERSION
from ..errors import DeadlineExceeded, LaunchError, PycommError
from ..job.environment import join
from ..job.rendezvous import Rendezvous
from ..start import Joined, assemble
from .facts import Facts, Own, Pair, hosts_of, pack, unpack_own, unpack_pairs
from .pairs import connect, measure, rounds

Exchange = Callable[[bytes], Sequence[bytes]]

_FIRST_CHANNEL = 1 << 16  # communicators of pairs are numbered from here on
_CONNECTING = 10.0  # seconds that two ranks have for reaching each other,
_MEASURING = 20.0  # and for anything after that: at 1 Mbit/s the least that is sent takes 1 s


def examine(own: Own, patience: float) -> tuple[int, Facts]:
    """Return this process's rank, and what is known of its job; all ranks must call this, and get the same.

    Args:
        own: what this rank sees.
        patience: seconds to wait for the others.

    Raises:
        PycommError: this rank cannot join, another has left, or their versions of pycomm differ.
    """
    job = join(timeout=patience)
    met = Rendezvous(job, patience)
    try:
        _check_versions(met.exchange(VERSION.encode()))
        owns = tuple(map(unpack_own, met.exchange(pack(own))))
        names = ",".join(usable(own.transports))
        joined = assemble(job.rank, job.size, job.job_id, job.secret, job.endpoint, met.exchange, names)
        try:
            found = _measured(joined, hosts_of([one.identity for one in owns]), met.exchange)
            blobs = met.exchange(pack(found))
        finally:
            joined.world.close()
    finally:
        met.close()
    pairs = sorted((pair for blob in blobs for pair in unpack_pairs(blob)), key=lambda pair: (pair.a, pair.b))
    return job.rank, Facts(owns, tuple(pairs))


def _check_versions(told: Sequence[bytes]) -> None:
    for rank, version in enumerate(told):
        if version != told[0]:
            raise LaunchError(
                f"rank 0 has pycomm {told[0].decode()} and rank {rank} has {version.decode()}: install one on all hosts"
            )


def usable(transports: Sequence[str]) -> list[str]:
    """Return the transports to measure with: those that are asked for, but for MPI, in whose place sockets stand."""
    return list(dict.fromkeys("tcp" if name.partition(":")[0] == "mpi" else name for name in transports))


def _measured(joined: Joined, hosts: Sequence[Sequence[int]], exchange: Exchange) -> list[Pair]:
    """Measure, and return those pairs of which this rank is the first."""
    rank = joined.world.rank
    found: list[Pair] = []
    channel = _FIRST_CHANNEL
    for pairs in rounds(hosts):
        for a, b in pairs:
            channel += 1
            if rank in (a, b):
                one = _one(joined, channel, a, b)
                found += [one] if rank == a else []
        exchange(b"")  # the next round begins when this one is over
    return found


def _one(joined: Joined, channel: int, a: int, b: int) -> Pair:
    world = joined.world
    peer = b if world.rank == a else a
    transport = world.transport(peer)
    if not transport:
        return Pair(a, b, "", failed="none of their transports reaches from one to the other")
    pair = Comm(world, channel, (a, b), joined.machine.among({a: 0, b: 1}))
    pair.set_timeout(_CONNECTING)
    try:
        connect(pair)
        pair.set_timeout(_MEASURING)
        line = measure(pair)
        ends = {
            (_address(stream["from"]), _address(stream["to"]))
            for stream in world.rails()
            if stream["channel"] == channel and stream["up"]
        }
        return Pair(a, b, transport, line.latency, line.there, line.back, line.ahead, tuple(sorted(ends)))
    except DeadlineExceeded:
        return Pair(a, b, transport, failed="no message came through in time")
    except PycommError as why:  # which begins with the other's number, in this pair
        return Pair(a, b, transport, failed=str(why).partition(": ")[2] or str(why))
    finally:
        pair.Free()


def _address(end: str) -> str:
    """Return the address of 10.0.0.1:80 or [::1]:80."""
    return end.rpartition(":")[0].strip("[]")
