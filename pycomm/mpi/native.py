"""What MPI's own collectives are worth beside ours: measured when a communicator is made of one of MPI's."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..communicator.calls import How
from ..core import lib
from ..schedules.contract import contract
from ..selection.machine import OFFLOAD, Native

if TYPE_CHECKING:
    from ..communicator.comm import Comm

SIZES = (8, 512, 8192, 1 << 16, 1 << 19, 1 << 22, 1 << 24)  # bytes of the larger of a rank's two buffers
_ROUNDS, _WARM = 9, 8  # calls of each
_SETTLED, _MOST = 1 << 24, 64  # bytes, or calls, of ours after which it has found out by which path they go
_FEW = 3  # of both, where a call is long
_LONG = 1e-3  # seconds of such a call
_BUDGET = 3.0  # seconds for all, after which what is left is not measured: longer calls are taken to be alike
_MAX = lib.PCM_MAX


def measure(comm: Comm) -> Native:
    """Return how long MPI's own collectives take, relative to ours.

    Collective; three seconds or so. Whole calls of both take turns, each after a barrier. Of a call counts the rank
    where it takes longest, and of all calls the fastest: what else runs here adds to the others. All ranks get the
    same.

    Args:
        comm: of all ranks of a communicator of MPI, over which its transport mpi goes.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    begun = perf_counter()
    calls = _calls(comm)
    for nbytes in SIZES:
        for collective, call in calls.items():
            if collective == "barrier" and nbytes != SIZES[0]:
                continue
            ours, theirs, spent = _race(comm, collective, nbytes, call, begun)
            curves.setdefault(collective, []).append((nbytes, float(f"{theirs / ours:.3g}")))
            if spent > _BUDGET:
                return _found(curves)
    return _found(curves)


def _found(curves: dict[str, list[tuple[int, float]]]) -> Native:
    return Native(tuple((collective, tuple(curve)) for collective, curve in curves.items()))


def _calls(comm: Comm) -> dict[str, Callable[..., None]]:
    """Return what makes a call of each collective, of (a whole buffer, another, a block of it, how)."""
    return {
        "allreduce": lambda x, y, block, how: comm.Allreduce(x, y, **how),
        "broadcast": lambda x, y, block, how: comm.Bcast(x, **how),
        "allgather": lambda x, y, block, how: comm.Allgather(block, y, **how),
        "reduce_scatter": lambda x, y, block, how: comm.Reduce_scatter_block(x, block, **how),
        "alltoall": lambda x, y, block, how: comm.Alltoall(x, y, **how),
        "reduce": lambda x, y, block, how: comm.Reduce(x, y, **how),
        "barrier": lambda x, y, block, how: comm.Barrier(**how),
        "gather": lambda x, y, block, how: comm.Gather(block, y, **how),
        "scatter": lambda x, y, block, how: comm.Scatter(x, block, **how),
        "scan": lambda x, y, block, how: comm.Scan(x, y, **how),
        "exscan": lambda x, y, block, how: comm.Exscan(x, y, **how),
    }


def _race(
    comm: Comm, collective: str, nbytes: int, call: Callable[..., None], begun: float
) -> tuple[float, float, float]:
    """Return the seconds of our way, those of MPI's, and those since `begun`; the same on all ranks."""
    blocks = 1 if contract(collective).blocks == "one" else comm.size
    block = np.zeros(max(1, nbytes // blocks // 4), np.float32)
    x, y = np.zeros((2, block.size * blocks), np.float32)
    ours = comm.choice(collective, 0 if collective == "barrier" else x.nbytes)
    ways: tuple[How, How] = {"algorithm": ours.algorithm, "slices": ours.slices}, {"algorithm": OFFLOAD, "slices": 1}

    def times(rounds: int) -> npt.NDArray[np.float64]:
        """Return the seconds of each call of both on the rank where it took longest, and those since `begun`."""
        own = np.empty(2 * rounds + 1)
        for k in range(2 * rounds):
            comm.Barrier(algorithm="direct")
            before = perf_counter()
            call(x, y, block, ways[k % 2])
            own[k] = perf_counter() - before
        own[-1] = perf_counter() - begun
        slowest = np.empty_like(own)
        comm.Allreduce(own, slowest, _MAX, algorithm="doubling")
        return slowest

    for _ in range(min(_MOST, max(2, _SETTLED // max(1, nbytes)))):
        call(x, y, block, ways[0])
    few = times(_FEW)[:-1].min() > _LONG
    if not few:
        times(_WARM - _FEW)
    *taken, spent = times(_FEW if few else _ROUNDS)
    return min(taken[::2]), min(taken[1::2]), spent
