"""Pairwise: in round k every rank sends to the k-th after it and hears from the k-th before it; nobody is crowded."""

from __future__ import annotations

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

CITE = "Thakur, Rabenseifner & Gropp, IJHPCA 19 (2005)"


@algorithm("alltoall", name="pairwise", cite=CITE, uneven=True)
def alltoall(v: View) -> None:
    """Exchange one chunk with each rank in turn: p-1 rounds, (p-1)/p n bytes a rank."""
    for k in range(1, v.size):
        with v.round():
            v.send((v.rank, v.rank + k), to=v.rank + k)
            v.recv((v.rank - k, v.rank), frm=v.rank - k)


@algorithm("allgather", name="pairwise", cite=CITE)
def allgather(v: View) -> None:
    """Send the own block to each rank in turn: p-1 rounds, (p-1)/p n bytes a rank."""
    for k in range(1, v.size):
        with v.round():
            v.send(v.rank, to=v.rank + k)
            v.recv(v.rank - k, frm=v.rank - k)


@algorithm("reduce_scatter", name="pairwise", cite=CITE)
def reduce_scatter(v: View) -> None:
    """Send each rank its block in turn, and add up the own one: the reversal of the all-gather."""
    v.backwards(lambda: allgather(v))


@algorithm("allreduce", name="pairwise", chunks="size", cite=CITE)
def allreduce(v: View) -> None:
    """Reduce-scatter, then all-gather: 2(p-1) rounds, 2(p-1)/p n bytes a rank, each pair of ranks directly."""
    reduce_scatter(v)
    allgather(v)
