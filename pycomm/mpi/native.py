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
_TURN = 3  # calls of one side in a row, as programs make them; the first of them is not timed
_TURNS, _WARM = 5, 4  # of each side
_SETTLED, _MOST = 1 << 24, 64  # bytes, or calls, of ours after which it has found out by which path they go
_FEW = 3  # turns of each, where a call is long
_LONG = 1e-3  # seconds of such a call
_COPIES, _MEMORY = 8, 1 << 28  # of the buffers, among which calls rotate; bytes that these take on a host, but for one
_BUDGET = 3.0  # seconds for all, after which what is left is not measured: longer calls are taken to be alike
_MAX = lib.PCM_MAX


def measure(comm: Comm) -> Native:
    """Return how long MPI's own collectives take, relative to ours.

    Collective; three seconds or so. Both take turns of some whole calls, each after a barrier, on inputs that were just
    written, as programs' are, and outputs that have not been used for a while. Of a call counts the rank where it takes
    longest, and of a side the median of its calls. All ranks get the same.

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
    n = max(1, nbytes // blocks // 4)
    most = _MEMORY // (12 * n * blocks * max(map(len, comm.machine.hosts)))
    buffers = [
        (np.zeros(n * blocks, np.float32), np.zeros(n * blocks, np.float32), np.zeros(n, np.float32))
        for _ in range(max(1, min(_COPIES, most)))
    ]
    chosen = comm.choice(collective, 0 if collective == "barrier" else buffers[0][0].nbytes)
    ways: tuple[How, How] = (
        {"algorithm": chosen.algorithm, "slices": chosen.slices},
        {"algorithm": OFFLOAD, "slices": 1},
    )

    def times(turns: int) -> npt.NDArray[np.float64]:
        """Return the seconds of each call on the rank where it took longest, by side, and those since `begun`."""
        own = np.empty((2, turns * _TURN + 1))
        for k in range(2 * turns * _TURN):
            (turn, side), at = divmod(k // _TURN, 2), k % _TURN
            x, y, block = buffers[k % len(buffers)]
            x.fill(k)
            block.fill(k)
            comm.Barrier(algorithm="direct")
            before = perf_counter()
            call(x, y, block, ways[side])
            own[side, turn * _TURN + at] = perf_counter() - before
        own[:, -1] = perf_counter() - begun
        slowest = np.empty_like(own)
        comm.Allreduce(own, slowest, _MAX, algorithm="doubling")
        return slowest

    for k in range(min(_MOST, max(2, _SETTLED // max(1, nbytes)))):
        call(*buffers[k % len(buffers)], ways[0])
    few = times(_FEW)[:, :-1].min() > _LONG
    if not few:
        times(_WARM - _FEW)
    taken = times(_FEW if few else _TURNS)
    ours, theirs = np.median(taken[:, :-1].reshape(2, -1, _TURN)[:, :, 1:], axis=(1, 2))
    return float(ours), float(theirs), float(taken[0, -1])
