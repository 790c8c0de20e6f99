"""What the ranks of a job of MPI do in the tests of its transport: `mpi_ranks.py NAME FOLDER`, which gets an "ok"."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mpi4py import MPI

import pycomm
from pycomm import Comm
from pycomm.core import lib
from pycomm.mpi import job as mpi_job

WORLD = MPI.COMM_WORLD
SAYS = Path(sys.argv[2], str(WORLD.rank))
OPS = ("SUM", "PROD", "MIN", "MAX", "LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def check_alike(comm: Comm, mpi: MPI.Intracomm, count: int, **how: str) -> None:
    """Compare collectives with MPI's own."""
    p, n = comm.size, count
    mine = np.arange(n * p, dtype=np.float64) % 97 * (comm.rank + 1)
    ours, theirs = np.empty_like(mine), np.empty_like(mine)
    comm.Allreduce(mine, ours, **how)
    mpi.Allreduce(mine, theirs)
    assert np.array_equal(ours, theirs)
    ours = mine.copy()
    comm.Allreduce(pycomm.IN_PLACE, ours, **how)
    assert np.array_equal(ours, theirs)
    block = np.empty(n)
    comm.Reduce_scatter_block(mine, block, **how)
    assert np.array_equal(block, theirs[comm.rank * n :][:n])
    for root in range(p):
        ours = np.zeros_like(mine)
        comm.Reduce(mine, ours if comm.rank == root else None, root=root, **how)
        assert np.array_equal(ours, theirs if comm.rank == root else np.zeros_like(mine))
        ours = mine.copy()
        comm.Bcast(ours, root=root, **how)
        assert np.array_equal(ours, np.arange(n * p) % 97 * (root + 1))
    comm.Alltoall(mine, ours, **how)
    mpi.Alltoall(mine, theirs)
    assert np.array_equal(ours, theirs)
    ours[comm.rank * n :][:n] = block
    comm.Allgather(pycomm.IN_PLACE, ours, **how)
    mpi.Allgather(block, theirs)
    assert np.array_equal(ours, theirs)
    for root in range(p):
        ours = np.zeros_like(mine)
        comm.Gather(block, ours if comm.rank == root else None, root=root, **how)
        assert np.array_equal(ours, theirs if comm.rank == root else np.zeros_like(mine))
        part = np.empty(n)
        comm.Scatter(theirs if comm.rank == root else None, part, root=root, **how)
        assert np.array_equal(part, theirs[comm.rank * n :][:n])
    comm.Scan(mine, ours, **how)
    mpi.Scan(mine, theirs)
    assert np.array_equal(ours, theirs)
    ours = theirs.copy()
    comm.Exscan(mine, ours, **how)
    assert np.array_equal(ours, theirs - mine if comm.rank else theirs)
    comm.Barrier(**how)


def collectives() -> None:
    """All collectives over MPI's messages, and over memory; messages with tags; what is chosen, in words."""
    handles()
    for transports in ("mpi", "shm,mpi", "tcp"):
        comm = Comm.from_mpi(WORLD, transports=transports)
        assert comm.mpi is WORLD and (comm.rank, comm.size) == (WORLD.rank, WORLD.size)
        assert comm.transport(comm.size - 1 - comm.rank) == transports.partition(",")[0]
        for count in (1, 1000, 100_000):
            check_alike(comm, WORLD, count)
        right, left = (comm.rank + 1) % comm.size, comm.rank - 1
        for count in (0, 10, 300_000):
            got = np.empty(count)
            coming = comm.Irecv(got, left % comm.size, 7)
            comm.Send(np.full(count, float(comm.rank)), right, 7)
            coming.Wait()
            assert (got == left % comm.size).all()
        if transports == "mpi":
            text = str(comm.explain("allreduce", 1 << 20))
            assert ("\n  mpi" in text) == (comm.machine.native is not None)
            total = np.empty(3)
            comm.Iallreduce(np.ones(3), total).Wait()
            assert (total == comm.size).all()
        comm.Barrier()
        comm.Free()


def native() -> None:
    """MPI's own collectives: each collective, and each type with each reduction that MPI has."""
    comm = Comm.from_mpi(WORLD, transports="mpi")
    for count in (1, 10_000):
        check_alike(comm, WORLD, count, algorithm="mpi")
    assert {record["algorithm"] for record in comm.trace()[-4:]} == {"mpi"}
    twin, backwards, group = comm.Dup(), comm.Split(0, -comm.rank), comm.Create_group(comm.group)
    for made in (twin, backwards, group):
        assert made is not None
        check_alike(made, WORLD.Split(0, made.rank), 100, algorithm="mpi")
    sums = np.empty((2, 3))  # calls of two communicators, in an order that differs from rank to rank
    order = [(comm, sums[0]), (twin, sums[1])][:: -1 if comm.rank else 1]
    for request in [one.Iallreduce(np.ones(3), total, algorithm="mpi") for one, total in order]:
        request.Wait()
    assert (sums == comm.size).all()
    twin.Free()
    offered = 0
    for dtype, op in itertools.product((*INTEGERS, "bool", "float32", "float64", "complex64", "complex128"), OPS):
        mine = (np.arange(6) % 3 + comm.rank).astype(dtype)
        ours, theirs = np.empty_like(mine), np.empty_like(mine)
        try:
            comm.Allreduce(mine, ours, getattr(pycomm, op), algorithm="mpi")
        except pycomm.InvalidArgument:
            continue
        WORLD.Allreduce(mine, theirs, getattr(MPI, op))
        assert np.array_equal(ours, theirs), (dtype, op)
        offered += 1
    assert offered == 8 * 10 + 3 + 2 * 4 + 2 * 2
    started = [comm.Iallreduce(np.full(5, k), np.empty(5, np.int64), algorithm="mpi") for k in range(9)]
    for request in reversed(started):
        request.Wait()
    half = np.ones(4, np.float16)
    comm.Allreduce(half, half.copy())  # which MPI does not have, so that it is not left to it, whatever is chosen
    try:
        if comm.rank:
            comm.Allreduce(np.ones(2), np.empty(2), algorithm="mpi")
        else:
            comm.Barrier(algorithm="direct")
    except pycomm.Mismatch as error:
        assert "barrier" in str(error) and "allreduce" in str(error)
    else:
        raise AssertionError("nobody has noticed that ranks disagree")
    sys.stdout.flush()
    SAYS.write_text("ok")
    WORLD.Barrier()  # Intel MPI ends the others when one ends so
    os._exit(0)  # MPI cannot end a collective that some ranks never join, nor be finalized before


def groups() -> None:
    """Any intracommunicator, several at once; the ends of either side's communicators."""
    backwards = WORLD.Split(0, -WORLD.rank)
    halves = WORLD.Split(WORLD.rank % 2, 0)
    comms = [(Comm.from_mpi(one, transports=names), one) for one in (backwards, halves) for names in ("mpi", "shm,mpi")]
    for comm, mpi in comms:
        assert comm.rank == mpi.rank
        check_alike(comm, mpi, 500)
        part = comm.Split(0, -comm.rank)
        assert part is not None and part.mpi is None
        total = np.empty(2)
        part.Allreduce(np.ones(2), total)
        assert (total == comm.size).all()
        if part.size > 1:
            check_alike(part, mpi.Split(0, part.rank), 10, algorithm="mpi")
        odd = comm.Split(comm.rank % 2)
        assert odd is not None
        if odd.size > 1:
            check_alike(odd, mpi.Split(comm.rank % 2, 0), 10, algorithm="mpi")
        if mpi is halves:
            comm.Free()  # what was split from it goes on
            part.Allreduce(np.ones(2), total)
            part.Free()
    backwards.Free()
    WORLD.Barrier()
    for comm, _ in comms[:1]:
        try:
            comm.Allreduce(np.ones(9), np.empty(9))
        except pycomm.PeerLost as error:
            assert "MPI communicator was freed" in str(error)
        else:
            raise AssertionError("a freed communicator of MPI still works")
    check_alike(Comm.from_mpi(WORLD, transports="mpi"), WORLD, 10)
    parts = WORLD.Split(WORLD.rank, 0)
    between = parts.Create_intercomm(0, WORLD, WORLD.rank ^ 1)
    for wrong in (MPI.COMM_NULL, between, 3):
        try:
            Comm.from_mpi(wrong)
        except pycomm.InvalidArgument:
            continue
        raise AssertionError(f"{wrong} was taken")
    between.Free()
    MPI.Finalize()  # with a communicator of ours that is alive
    try:
        Comm.from_mpi(WORLD)
    except pycomm.SystemRefused:
        pass
    else:
        raise AssertionError("MPI works after its end")


def serialized() -> None:
    """Where MPI does not allow calls of any thread, pycomm has no thread of its own."""
    assert MPI.Query_thread() < MPI.THREAD_MULTIPLE
    comm = Comm.from_mpi(WORLD, transports="mpi")
    before = len(os.listdir("/proc/self/task"))
    total = np.empty(200_000)
    request = comm.Iallreduce(np.ones(200_000), total)
    assert len(os.listdir("/proc/self/task")) == before and threading.active_count() == 1
    request.Wait()
    assert (total == comm.size).all()
    check_alike(comm, WORLD, 5000)
    try:  # what torch asks for, whose threads call collectives
        mpi_job.world("mpi", any_thread=True)
    except pycomm.LaunchError as error:
        assert "unset MPI4PY_RC_THREAD_LEVEL" in str(error)
    else:
        raise AssertionError("MPI that few threads may call was taken for torch")


def handles() -> None:
    """A communicator's handle in C, by its number in Fortran; and that of all ranks."""
    copy = WORLD.Dup()
    low = (1 << 32) - 1 if MPI._sizeof(MPI.Comm) == 4 else -1
    assert lib.pcm_mpi_from_fortran(copy.py2f()) & low == MPI._handleof(copy) & low
    assert lib.pcm_mpi_comm_world() & low == MPI._handleof(WORLD) & low
    copy.Free()


def init() -> None:
    """`pycomm.init()` where PYCOMM_TRANSPORTS asks for MPI."""
    comm = pycomm.init()
    assert comm.mpi == WORLD and comm.transport((comm.rank + 1) % comm.size) == "mpi"
    check_alike(comm, WORLD, 2000)


TESTS: dict[str, Callable[[], None]] = {test.__name__: test for test in (collectives, native, groups, serialized, init)}

TESTS[sys.argv[1]]()
SAYS.write_text("ok")
