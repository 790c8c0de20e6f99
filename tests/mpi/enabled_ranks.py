"""What the ranks of a job of mpi4py do in test_enable.py: `enabled_ranks.py FOLDER`, which gets an "ok" of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import pycomm.mpi

WORLD = MPI.COMM_WORLD  # held before anything is enabled
WORLD_RANK = WORLD.rank
HALF = WORLD.Split(WORLD.rank % 2)


def results(comm: MPI.Intracomm) -> list[Any]:
    """Return what each collective gives, of buffers, of objects and of what pycomm does not serve."""
    p, r = comm.size, comm.rank
    mine, whole = np.arange(6.0 * p) * (r + 1), np.zeros(6 * p)
    block, found = mine[:6].copy(), []

    def keep(call: Callable[[], object], *buffers: Any) -> None:
        found.append((call(), *(np.copy(buffer) for buffer in buffers)))

    keep(lambda: comm.Allreduce(mine, whole), whole)
    keep(lambda: comm.Allreduce(MPI.IN_PLACE, whole, MPI.MAX), whole)
    keep(lambda: comm.Reduce(mine, whole, MPI.MIN, p - 1), whole)
    keep(lambda: comm.Bcast(whole, p - 1), whole)
    keep(lambda: comm.Gather(block, whole, 0), whole)
    keep(lambda: comm.Scatter(mine, block, 0), block)
    keep(lambda: comm.Allgather(block, whole), whole)
    keep(lambda: comm.Alltoall(mine, whole), whole)
    keep(lambda: comm.Reduce_scatter_block(mine, block), block)
    keep(lambda: comm.Scan(mine, whole), whole)
    counts = [1 + q for q in range(p)]
    keep(lambda: comm.Allgatherv(mine[: r + 1].copy(), [whole, counts]), whole)
    request = comm.Iallreduce(mine, whole)
    keep(request.Wait, whole)
    keep(lambda: comm.allreduce({"a": r}, lambda a, b: {"a": a["a"] + b["a"]}))
    keep(lambda: comm.bcast(list(range(9)) if r == 0 else None))
    pairs = MPI.DOUBLE.Create_vector(2, 1, 2).Commit()
    keep(lambda: comm.Bcast([whole, 1, pairs], 0), whole)
    pairs.Free()
    own = MPI.Op.Create(lambda a, b, _: np.copyto(np.frombuffer(b), np.frombuffer(a) * 2), commute=False)
    keep(lambda: comm.Allreduce(mine, whole, own), whole)
    own.Free()
    keep(comm.Barrier)
    return found


def alike(some: Any, others: Any) -> bool:
    if isinstance(some, (list, tuple)):
        return len(some) == len(others) and all(map(alike, some, others))
    return bool(np.array_equal(some, others)) if isinstance(some, np.ndarray) else some == others


def main() -> None:
    before = [results(comm) for comm in (WORLD, HALF)]
    serving = pycomm.mpi.enable()
    assert pycomm.mpi.enable() is serving
    later = WORLD.Dup()
    assert alike([results(WORLD), results(HALF)], before)
    assert alike(results(later), before[0])
    later.Free()
    counts = serving.counts()
    assert counts["allreduce"].served >= 3 * (2 + 1) - 3 * (HALF.size == 1), counts
    assert counts["allreduce"].passed >= 3, counts  # the op of one's own
    assert all(counts[name].served for name in ("broadcast", "alltoall", "scan", "gather")), counts
    assert "allreduce" in str(serving)
    left = WORLD.Iallreduce(np.full(9, WORLD.rank), total := np.empty(9, int))
    pycomm.mpi.disable()
    left.Wait()
    assert (total == sum(range(WORLD.size))).all()
    known = serving.counts()
    assert alike(results(WORLD), before[0]) and serving.counts() == known
    with pycomm.mpi.enable() as again:
        assert not again.counts()
        assert alike(results(WORLD), before[0])
        assert again.counts()["allreduce"].served
    pycomm.mpi.enable()
    assert alike(results(HALF), before[1])
    MPI.Finalize()
    try:
        pycomm.mpi.enable()
    except pycomm.LaunchError:
        Path(sys.argv[1], str(WORLD_RANK)).write_text("ok")


main()
