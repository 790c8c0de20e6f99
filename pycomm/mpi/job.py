"""Jobs of MPI: from a communicator of mpi4py to one of pycomm, whose ranks meet by way of it."""

from __future__ import annotations

import contextlib
import re
import secrets
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import knobs
from ..communicator.comm import Comm
from ..core import check, ffi, lib, text
from ..discover import cache
from ..errors import InvalidArgument, LaunchError
from ..job import keys
from ..job.environment import recognise
from ..selection.machine import Native
from ..start import WORLD, Joined, assemble, first_address, host_identity, learn_network
from ..world import World
from .native import SIZES, measure

if TYPE_CHECKING:
    from mpi4py import MPI

# What is used among the ranks of an MPI communicator where nobody says: memory within a host, MPI's network between.
TRANSPORTS = "shm,mpi"
_OWN = re.compile(r"(?<![\w/.-])mpi(?![\w:/.-])")  # the transport, also where another wraps it: "chaos:...;inner=mpi"
_MOST_KNOWN = 1 << 14  # bytes of a remembered measurement
_LENGTH = struct.Struct("<Q")


def asks_for_mpi(transports: str) -> bool:
    """Return whether messages of MPI are among some transports."""
    return bool(_OWN.search(transports))


def world(transports: str, *, any_thread: bool = False) -> MPI.Intracomm:
    """Return mpi4py's COMM_WORLD for a job whose transports ask for MPI; loads MPI if nobody has.

    Args:
        transports: names in order of preference.
        any_thread: whether calls may come from any thread, as torch's do.

    Raises:
        LaunchError: there is no MPI, it does not know of the ranks that the launcher has started, or it cannot be
            called by any thread where that is needed.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as why:  # the second is what mpi4py raises where it finds no library
        raise LaunchError(
            f"the transports {transports} ask for MPI, and mpi4py cannot be imported ({str(why).splitlines()[0]}): pip "
            "install mpi4py, and set MPI4PY_LIBMPI to the libmpi.so that belongs to the mpiexec; or leave mpi out"
        ) from why
    launched = recognise().size
    if MPI.COMM_WORLD.size != launched:
        raise LaunchError(
            f"the transports {transports} ask for MPI, which knows of {MPI.COMM_WORLD.size} ranks where the launcher "
            f"has started {launched}: start the program with the mpiexec of this MPI ("
            f"{MPI.Get_library_version().splitlines()[0].strip()}), or leave mpi out"
        )
    if any_thread and MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise LaunchError(
            f"the transports {transports} ask for MPI, which torch would have to call from several threads, and MPI "
            "was initialized with less than MPI_THREAD_MULTIPLE: let mpi4py initialize it (unset "
            "MPI4PY_RC_THREAD_LEVEL), or leave mpi out"
        )
    return MPI.COMM_WORLD


def from_mpi(communicator: MPI.Intracomm, transports: str | None, timeout: float | None) -> tuple[Comm, World]:
    """Return what `Comm.from_mpi` does, and the world that it lives in."""
    module: Any = sys.modules[type(communicator).__module__]
    if not hasattr(module, "_handleof"):
        raise InvalidArgument(f"{communicator!r} is no communicator of mpi4py (4.0 or later)")
    if communicator == module.COMM_NULL:
        raise InvalidArgument("this is MPI_COMM_NULL, of which this process is no rank")
    names = transports or (TRANSPORTS if knobs.TRANSPORTS.source() == "default" else ",".join(knobs.TRANSPORTS.value()))
    patience = knobs.TIMEOUT.value() if timeout is None else timeout
    number = ffi.new("int *")
    check(lib.pcm_mpi_attach(ffi.cast("intptr_t", module._handleof(communicator)), number))
    binding = int(number[0])
    try:
        joined = _assemble(binding, communicator.rank, communicator.size, names)
    finally:  # the transport holds it as long as it needs it
        lib.pcm_mpi_detach(binding)
    comm = Comm(joined.world, WORLD, range(communicator.size), joined.machine)
    comm.mpi = communicator
    comm.set_timeout(patience)
    learn_network(comm)
    if comm.muster():
        comm.settle(replace(comm.machine, native=_worth(comm, names)))
    return comm, joined.world


def among(exchange: Callable[[bytes], Sequence[bytes]], transports: str, timeout: float) -> tuple[Comm, World]:
    """Make a communicator, and its world, of processes that can tell each other which ranks of MPI they are.

    Its calls may come from any thread. Its `mpi` is a communicator of its own, which the caller is to free.

    Args:
        exchange: gives bytes to all of the processes and returns everybody's, in the order of their new ranks.
        transports: names in order of preference, mpi among them.
        timeout: seconds that each later call may take.

    Raises:
        LaunchError: there is no MPI, it does not know of the ranks, or it may not be called by any thread.
    """
    everybody = world(transports, any_thread=True)
    ranks = [int.from_bytes(blob, "little") for blob in exchange(everybody.rank.to_bytes(4, "little"))]
    group = everybody.group.Incl(ranks)
    part = everybody.Create_group(group)
    group.Free()
    try:
        return from_mpi(part, transports, timeout)
    except BaseException:
        part.Free()
        raise


def _worth(comm: Comm, names: str) -> Native | None:
    """Return what MPI's own collectives are worth: as rank 0 remembers it, or measured."""
    wanted = knobs.NETWORK.value()
    if wanted == "off":
        return None
    library = ffi.new("char[]", 8192)
    hosts = "/".join(str(len(ranks)) for ranks in comm.machine.hosts)
    version = text(lib.pcm_mpi_version(library))
    facts = f"{host_identity().hex()} {hosts} {comm.machine.processors} {names} {SIZES} {version}"
    key = keys.derive(b"native", facts, 8).hex()
    known = cache.read(f"native-{key}.json") if comm.rank == 0 and wanted != "fresh" else None
    message = np.zeros(_MOST_KNOWN, np.uint8)
    if known is not None and len(known) <= message.size:
        message[: len(known)] = np.frombuffer(known, np.uint8)
    comm.Bcast(message, algorithm="binomial")
    if message[0]:
        with contextlib.suppress(InvalidArgument):
            return Native.loads(message.tobytes().rstrip(b"\0").decode())
    found = measure(comm)
    if comm.rank == 0:
        cache.write(f"native-{key}.json", found.dumps().encode())
    return found


def _assemble(binding: int, rank: int, size: int, names: str) -> Joined:
    def exchange(mine: bytes) -> Sequence[bytes]:
        return _exchange(binding, size, mine)

    secret = exchange(secrets.token_bytes(32))[0]
    job = int.from_bytes(keys.derive(b"mpi job", secret.hex(), 8), "little") or 1
    first = first_address(exchange) if "tcp" in names.split(",") else ""
    endpoint = f"tcp://[{first}]:1" if ":" in first else f"tcp://{first}:1" if first else ""
    joined = assemble(rank, size, job, secret, endpoint, exchange, _OWN.sub(f"mpi:{binding}", names))
    joined.world.ends_unused = True
    machine = replace(joined.machine, shared=joined.machine.shared or asks_for_mpi(names), mpi=asks_for_mpi(names))
    return Joined(joined.world, machine)


def _exchange(binding: int, size: int, mine: bytes) -> list[bytes]:
    """Give bytes, whose length may differ from rank to rank, to all."""

    def alike(blob: bytes) -> list[bytes]:
        everybody = ffi.new("char[]", size * len(blob))
        check(lib.pcm_mpi_exchange(binding, blob, len(blob), everybody))
        return [bytes(ffi.buffer(everybody + r * len(blob), len(blob))) for r in range(size)]

    lengths = [_LENGTH.unpack(blob)[0] for blob in alike(_LENGTH.pack(len(mine)))]
    return [blob[:n] for blob, n in zip(alike(mine.ljust(max(lengths), b"\0")), lengths, strict=True)]
