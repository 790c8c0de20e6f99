"""init(): from the environment that a launcher made to a communicator of all ranks."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from . import knobs
from .communicator.comm import Comm
from .errors import InvalidArgument, LaunchError, PycommError
from .job import host, interfaces, keys
from .job.environment import join, recognise
from .job.rendezvous import Rendezvous
from .selection import table
from .selection.machine import Machine, by_host
from .selection.places import SYS, Place, place_of
from .world import World

_HOST_BYTES = 16
_PROCESSORS_BYTES = 128  # a bit for each processor of a host that a rank may use
# What ranks tell of themselves: their host, the processors, their place on it, the bytes of the address that follows.
_FACTS = struct.Struct(f"<{_HOST_BYTES}s{_PROCESSORS_BYTES}s{len(Place._fields)}iI")
_MOST_TABLE = 1 << 19  # bytes, packed: all ranks get it by way of the hub
_ADDRESS = struct.Struct(f"<{_HOST_BYTES}s64s")  # a host's identity, and an address of it
WORLD = 1  # id of the communicator of all ranks


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
        transports: names in order of preference; None: PYCOMM_TRANSPORTS, "shm,tcp" by default. If mpi is among them,
            this is `Comm.from_mpi` of MPI_COMM_WORLD.
        timeout: seconds that each later call may take; None: PYCOMM_TIMEOUT.
        rank, size: place in the job; None: what the launcher says.
        rendezvous: where ranks meet, tcp://HOST:PORT; None: PYCOMM_RENDEZVOUS, or what the launcher's facts give.
        secret: what the ranks know and nobody else; None: PYCOMM_SECRET or PYCOMM_SECRET_FILE.

    Raises:
        LaunchError: the environment is partial or contradictory.
        DeadlineExceeded: some ranks did not come, with their numbers.
    """
    names = transports or ",".join(knobs.TRANSPORTS.value())
    if mpi_job := _mpi_job(names):
        if (rank, size, rendezvous, secret) != (None, None, None, None):
            raise InvalidArgument(
                "over MPI, ranks meet by way of it: give neither rank nor size, rendezvous nor secret"
            )
        return Comm.from_mpi(mpi_job.world(names), transports=names, timeout=timeout)
    patience = knobs.TIMEOUT.value() if timeout is None else timeout
    job = join(rank, size, rendezvous, secret, min(patience, 60.0))
    met = Rendezvous(job, min(patience, 60.0))
    joined = assemble(
        job.rank, job.size, job.job_id, job.secret, job.endpoint, met.exchange, transports, at_close=met.close
    )
    world = joined.world
    comm = Comm(world, WORLD, range(job.size), joined.machine)
    comm.set_timeout(patience)
    learn_network(comm)

    def on_lost(lost: int, why: str) -> None:
        if lost < 0:
            with contextlib.suppress(InvalidArgument):  # it was freed
                comm.Abort(why)
        else:
            world.peer_lost(lost, why)

    met.watch(on_lost)
    return comm


class Meeting(NamedTuple):
    """What the ranks of a job have before they have a communicator.

    Attributes:
        rank, size: this process's place in the job.
        exchange: gives this rank's bytes to all and returns everybody's, by rank.
    """

    rank: int
    size: int
    exchange: Callable[[bytes], Sequence[bytes]]


def is_launched() -> bool:
    """Return whether a launcher has started this process."""
    return recognise().launcher != "none"


@contextlib.contextmanager
def meeting(patience: float) -> Iterator[Meeting]:
    """Let the ranks of this job meet for as long as the context lasts: by way of MPI if PYCOMM_TRANSPORTS has it.

    MPI must be open to all threads, as what is made here is for torch.

    Args:
        patience: seconds that ranks wait for each other; over MPI, without end.

    Raises:
        LaunchError: as `init` does; or MPI cannot be called by any thread.
    """
    names = ",".join(knobs.TRANSPORTS.value())
    if mpi_job := _mpi_job(names):
        world = mpi_job.world(names, any_thread=True)
        yield Meeting(world.rank, world.size, world.allgather)
        return
    job = join(timeout=patience)
    met = Rendezvous(job, patience)
    try:
        yield Meeting(job.rank, job.size, met.exchange)
    finally:
        met.close()


def over_mpi(exchange: Callable[[bytes], Sequence[bytes]], timeout: float) -> tuple[Comm, World] | None:
    """Return a communicator over MPI, and its world, if PYCOMM_TRANSPORTS asks for that; see `mpi_job.among`."""
    names = ",".join(knobs.TRANSPORTS.value())
    mpi_job = _mpi_job(names)
    return mpi_job.among(exchange, names, timeout) if mpi_job else None


def _mpi_job(names: str) -> ModuleType | None:
    """Return the module for jobs of MPI, if MPI is among the transports."""
    if "mpi" not in names:
        return None
    from .mpi import job as mpi_job  # here: it stands on this module

    return mpi_job if mpi_job.asks_for_mpi(names) else None


def learn_network(comm: Comm) -> None:
    """Let a communicator of all ranks choose by what is between their hosts, if there are several; see `discover`."""
    if len(comm.machine.hosts) > 1:
        from .discover import discover  # here: on one host there is nothing to find

        network = discover(comm, host_identity())
        if network is not None:
            comm.settle(replace(comm.machine, network=network))


class Joined(NamedTuple):
    """A world whose ranks know each other.

    Attributes:
        world: this process's membership.
        machine: what is known of the ranks' places.
    """

    world: World
    machine: Machine


def assemble(
    rank: int,
    size: int,
    job: int,
    secret: bytes | None,
    endpoint: str,
    exchange: Callable[[bytes], Sequence[bytes]],
    transports: str | None = None,
    *,
    at_close: Callable[[], None] | None = None,
) -> Joined:
    """Open a world and tell its ranks of each other.

    Args:
        rank, size: place in the job.
        job: 64-bit number of the job.
        secret: what its ranks know and nobody else.
        endpoint: where they meet, tcp://HOST:PORT, which shows the network that they share; or anything else.
        exchange: gives this rank's bytes to all and returns everybody's, by rank.
        transports: names in order of preference; None: PYCOMM_TRANSPORTS.
        at_close: is called before the world closes.
    """
    names = transports or ",".join(knobs.TRANSPORTS.value())
    listen, advertise = addresses(endpoint)
    host.allow_descriptors(host.PEER_DESCRIPTORS * size)
    world = World(
        rank, size, job=job, transports=names, secret=secret, listen=listen, advertise=advertise,
        encrypt=knobs.ENCRYPT.value(),
    )  # fmt: skip
    if at_close is not None:
        world.at_close(at_close)
    if knobs.DEBUG.value() in ("INFO", "TRACE"):
        world.at_close(functools.partial(_tell_rails, world))
    known = introduce(rank, exchange, os.sched_getaffinity(0), world.address())
    world.set_peers(known.addresses)
    machine, mates = machine_of(known.facts, rank, shared="shm" in names, table=known.table)
    world.set_local_ranks(mates)
    return Joined(world, machine)


def _check_facts(blobs: Sequence[bytes]) -> None:
    """Raise LaunchError unless all ranks have told what `pack_facts` tells."""
    for rank, blob in enumerate(blobs):
        address = _FACTS.unpack_from(blob)[-1] if len(blob) >= _FACTS.size else 0
        if len(blob) < _FACTS.size + address or (rank and len(blob) > _FACTS.size + address):
            raise LaunchError(f"rank {rank} has told of itself in other words: give all ranks the same pycomm")


class Known(NamedTuple):
    """What ranks have told each other.

    Attributes:
        facts: of each rank, for `machine_of`.
        addresses: of each rank.
        table: rank 0's tuning table, by which all choose.
    """

    facts: Sequence[bytes]
    addresses: Sequence[bytes]
    table: table.Table


def introduce(
    rank: int, exchange: Callable[[bytes], Sequence[bytes]], allowed: AbstractSet[int], address: bytes
) -> Known:
    """Tell all ranks of this one, and learn of them.

    Args:
        rank: this one.
        exchange: gives this rank's bytes to all and returns everybody's, by rank.
        allowed: the processors that it may use.
        address: how it is reached.
    """
    own = pack_facts(allowed, address)
    blobs = exchange(own if rank else own + _packed_table())
    _check_facts(blobs)
    ends = [_FACTS.size + _FACTS.unpack_from(blob)[-1] for blob in blobs]
    addresses = [blob[_FACTS.size : end] for blob, end in zip(blobs, ends, strict=True)]
    return Known(blobs, addresses, _unpacked_table(blobs[0][ends[0] :]))


def pack_facts(allowed: AbstractSet[int], address: bytes = b"") -> bytes:
    """Return what a rank of this host tells the others of itself.

    Args:
        allowed: the processors that it may use.
        address: how it is reached.
    """
    return _FACTS.pack(host_identity(), _bits(allowed), *place_of(allowed, SYS), len(address)) + address


def machine_of(blobs: Sequence[bytes], rank: int, *, shared: bool, table: table.Table) -> tuple[Machine, int]:
    """Return the machine of ranks of which `pack_facts` has told, and how many share the processors of one.

    Args:
        blobs: what each rank has told.
        rank: the one.
        shared, table: see Machine.
    """
    facts = [_FACTS.unpack_from(blob) for blob in blobs]
    hosts, places = [fact[0] for fact in facts], [Place(*fact[2:-1]) for fact in facts]
    processors = [int.from_bytes(fact[1], "little") for fact in facts]
    machine = by_host(hosts, processors, places, shared=shared, table=table)
    mates = next(host for host in machine.hosts if rank in host)
    return machine, sum(bool(processors[rank] & processors[mate]) for mate in mates)


def _tell_rails(world: World) -> None:
    """Say over which networks this rank was connected to the others, and what each has carried."""
    kinds: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for stream in world.rails():
        ends = (str(stream[end]).rpartition(":")[0] for end in ("from", "to"))
        kinds.setdefault((stream["peer"], *ends), []).append(stream)
    for (peer, own, other), streams in sorted(kinds.items()):
        sent, received, rate = (sum(stream[key] for stream in streams) for key in ("sent", "received", "rate"))
        up = sum(stream["up"] for stream in streams)
        print(
            f"pycomm: rank {world.rank}: rank {peer} over {own} > {other}: {sent / 1e6:.1f} MB sent, "
            f"{received / 1e6:.1f} MB received, {8 * rate / 1e9:.2f} Gbit/s of late, "
            f"{up} of {len(streams)} connections up",
            file=sys.stderr,
        )


def _bits(processors: Iterable[int]) -> bytes:
    bits = sum(1 << number % (8 * _PROCESSORS_BYTES) for number in processors)
    return bits.to_bytes(_PROCESSORS_BYTES, "little")


def _packed_table() -> bytes:
    """Return rank 0's tuning table, by which all ranks choose; or, for all to raise, why it cannot be used."""
    try:
        found = table.find(knobs.ALGO.value().table)
        packed = zlib.compress(f"{found.source}\n{table.dumps(found)}".encode()) if found != table.Table() else b""
        if len(packed) > _MOST_TABLE:
            raise InvalidArgument(f"the tuning table {found.source} is too long to be handed to all ranks")
    except PycommError as why:
        return b"!" + f"rank 0 found that {why}".encode()
    return packed


def _unpacked_table(packed: bytes) -> table.Table:
    if packed.startswith(b"!"):
        raise InvalidArgument(packed[1:].decode(errors="replace"))
    if not packed:
        return table.Table()
    try:
        source, _, text = zlib.decompress(packed).decode().partition("\n")
    except (zlib.error, UnicodeDecodeError):
        raise LaunchError(
            "rank 0 has told of its tuning table in other words: give all ranks the same pycomm"
        ) from None
    return table.loads(text, source)


def host_identity() -> bytes:
    """Return what the ranks of one host have in common: its identity since it booted, and the network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    namespace = Path("/proc/self/ns/net").stat().st_ino
    return keys.derive(b"host", f"{boot}/{namespace}", _HOST_BYTES)


def first_address(exchange: Callable[[bytes], Sequence[bytes]]) -> str:
    """Return an address of rank 0's host that faces others, or "" if all ranks are on one host. All ranks call it.

    Args:
        exchange: gives this rank's bytes to all and returns everybody's, by rank.
    """
    allowed = knobs.SOCKET_IFNAME.value()
    found = (
        interfaces.addresses(allowed)
        if allowed.names
        else [a for each in interfaces.addresses_of().values() for a in each]
    )
    outward = [a for a in found if not (ip := ipaddress.ip_address(a)).is_loopback and not ip.is_link_local]
    own = next(iter(outward), "")
    facts = [_ADDRESS.unpack(blob) for blob in exchange(_ADDRESS.pack(host_identity(), own.encode()))]
    alone = len({identity for identity, _ in facts}) == 1
    return "" if alone else str(facts[0][1].rstrip(b"\0").decode())


def addresses(endpoint: str) -> tuple[str | None, str | None]:
    """Return where tcp listens and what it tells the peers.

    Loopback only, unless the endpoint is elsewhere. Then first the address that faces it, and those of the other
    interfaces: peers find out which of them they reach.
    """
    allowed = knobs.SOCKET_IFNAME.value()
    if allowed.names:
        return _everywhere(interfaces.addresses(allowed))
    where = urlsplit(endpoint)
    if where.scheme != "tcp" or not where.hostname:
        return None, None
    try:
        family, _, _, _, address = socket.getaddrinfo(where.hostname, where.port, type=socket.SOCK_DGRAM)[0]
    except OSError as why:
        raise LaunchError(f"cannot resolve the host of PYCOMM_RENDEZVOUS={endpoint}: {why.strerror}") from why
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing; the kernel tells which address it would send from
        own = interfaces.numeric(probe.getsockname())
    if host.is_own_name(where.hostname) and ipaddress.ip_address(own).is_loopback:
        everywhere = interfaces.beside("0.0.0.0")  # peers reach it by an address that is not known here
        return _everywhere(everywhere) if everywhere else (own, own)
    others = interfaces.beside(own)
    return _everywhere([own, *others]) if others else (own, own)


def _everywhere(addresses: Sequence[str]) -> tuple[str, str]:
    return ("::" if any(":" in address for address in addresses) else "0.0.0.0"), ",".join(addresses)
