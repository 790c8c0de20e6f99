"""Bruck: ceil(log2 p) rounds for any number of ranks, and no byte more than a ring."""

from __future__ import annotations

import numpy as np

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

from ._shapes import farthest_first, log2_ceil

CITE = "Bruck et al., IEEE Trans. Parallel Distrib. Syst. 8 (1997); farthest first: Jeaugey, arXiv 2506.20252"


@algorithm("allgather", name="bruck", cite=CITE)
def allgather(v: View) -> None:
    """Double the blocks in hand each round, few of them far and many near: ceil(log2 p) rounds, (p-1)/p n bytes."""
    for distance, offsets in farthest_first(v.size):
        held = np.array(offsets)
        with v.round():
            v.send(v.rank - held, to=v.rank + distance)
            v.recv(v.rank - distance - held, frm=v.rank - distance)


@algorithm("reduce_scatter", name="bruck", cite=CITE)
def reduce_scatter(v: View) -> None:
    """Halve the blocks in hand each round, many of them near and few far: the reversal of the all-gather."""
    v.backwards(lambda: allgather(v))


@algorithm("allreduce", name="bruck", chunks="size", cite=CITE)
def allreduce(v: View) -> None:
    """Reduce-scatter, then all-gather: 2 ceil(log2 p) rounds, 2(p-1)/p n bytes, any p."""
    reduce_scatter(v)
    allgather(v)


@algorithm("alltoall", name="bruck", cite="Bruck et al., IEEE Trans. Parallel Distrib. Syst. 8 (1997)")
def alltoall(v: View) -> None:
    """Send what has bit k in its distance 2^k ranks up, for every k: ceil(log2 p) messages of about n/2 bytes each."""
    distance = np.arange(v.size)
    for k in range(log2_ceil(v.size)):
        left = distance[distance >> k & 1 == 1]
        gone = left % (1 << k)  # how far a chunk has come, of the distance that it has to go

        def at(rank: int, left: np.ndarray = left, gone: np.ndarray = gone) -> np.ndarray:
            return np.stack([rank - gone, rank - gone + left], axis=1)

        with v.round():
            v.send(at(v.rank), to=v.rank + (1 << k))
            v.recv(at(v.rank - (1 << k)), frm=v.rank - (1 << k))
