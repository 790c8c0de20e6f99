"""Ring: every rank sends to the next one only. Least bytes, fewest links, most rounds."""

from __future__ import annotations

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

CITE = "Patarasuk & Yuan, J. Parallel Distrib. Comput. 69 (2009)"


@algorithm("allgather", name="ring", cite=CITE)
def allgather(v: View, way: int = 1) -> None:
    """Pass every block round the ring: p-1 rounds, (p-1)/p n bytes a rank."""
    for k in range(v.size - 1):
        with v.round():
            v.send(v.rank - k * way, to=v.rank + way)
            v.recv(v.rank - (k + 1) * way, frm=v.rank - way)


@algorithm("reduce_scatter", name="ring", cite=CITE)
def reduce_scatter(v: View) -> None:
    """Pass every block round the ring, each rank adding its part: p-1 rounds, (p-1)/p n bytes a rank."""
    v.backwards(lambda: allgather(v, way=-1))


@algorithm("allreduce", name="ring", chunks="size", cite=CITE)
def allreduce(v: View) -> None:
    """Reduce-scatter round the ring, then all-gather round it: 2(p-1) rounds, 2(p-1)/p n bytes a rank."""
    reduce_scatter(v)
    allgather(v)


@algorithm("broadcast", name="ring", cite="van de Geijn, J. Parallel Distrib. Comput. 22 (1994)")
def broadcast(v: View) -> None:
    """Pass the buffer along the ring from the root: slices follow each other, so that large ones cost about n bytes."""
    place = (v.rank - v.root) % v.size
    if place:
        with v.round():
            v.recv(0, frm=v.rank - 1)
    if place < v.size - 1:
        with v.round():
            v.send(0, to=v.rank + 1)


@algorithm("reduce", name="ring", cite="van de Geijn, J. Parallel Distrib. Comput. 22 (1994)")
def reduce(v: View) -> None:
    """Pass the buffer along the ring to the root, each rank adding its part: the reversal of the broadcast."""
    v.backwards(lambda: broadcast(v))
