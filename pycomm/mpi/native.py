"""What MPI's own collectives are worth beside ours: measured when a communicator is made of one of MPI's."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ..communicator.calls import How
from ..core import lib
from ..schedules.contract import contract
from ..selection.machine import OFFLOAD, Native

if TYPE_CHECKING:
    from ..communicator.comm import Comm

SIZES = (64, 16_384, 1 << 20)  # bytes of the larger of a rank's two buffers
_ROUNDS, _WARM = 7, 10  # calls of each; the first make room in the lanes, of which each call takes another
_BUDGET = 1.0  # seconds for all, after which what is left is not measured
_LONG = 2e-3  # seconds of a call, after which longer calls are not tried: they are taken to be alike
_MAX = lib.PCM_MAX


def measure(comm: Comm) -> Native:
    """Return how long MPI's own collectives take, relative to ours.

    Collective; a second at most. Calls of both take turns, and what counts is the fastest of each on the rank where
    that is slowest, so that all ranks get the same.

    Args:
        comm: of all ranks of a communicator of MPI, over which its transport mpi goes.
    """
    found, begun = [], perf_counter()
    for collective, call in _calls(comm).items():
        curve: list[tuple[int, float]] = []
        for nbytes in SIZES:
            own = np.array([*_race(comm, collective, nbytes, call), perf_counter() - begun])
            slowest = np.empty_like(own)
            comm.Allreduce(own, slowest, _MAX, algorithm="doubling")
            curve.append((nbytes, float(f"{slowest[1] / slowest[0]:.3g}")))
            if slowest[:2].max() > _LONG or slowest[2] > _BUDGET or collective == "barrier":
                break
        found.append((collective, tuple(curve)))
        if slowest[2] > _BUDGET:
            break
    return Native(tuple(found))


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
    }


def _race(comm: Comm, collective: str, nbytes: int, call: Callable[..., None]) -> tuple[float, float]:
    """Return this rank's least seconds of our way and of MPI's: what else runs here adds to the others."""
    blocks = 1 if contract(collective).blocks == "one" else comm.size
    block = np.zeros(max(1, nbytes // blocks // 4), np.float32)
    x, y = np.zeros((2, block.size * blocks), np.float32)
    ours = comm.choice(collective, 0 if collective == "barrier" else x.nbytes)
    ways: tuple[How, How] = {"algorithm": ours.algorithm, "slices": ours.slices}, {"algorithm": OFFLOAD, "slices": 1}
    times: list[list[float]] = [[], []]
    for _ in range(_WARM + _ROUNDS):
        for way, own in zip(ways, times, strict=True):
            before = perf_counter()
            call(x, y, block, way)
            own.append(perf_counter() - before)
    return min(times[0][_WARM:]), min(times[1][_WARM:])
