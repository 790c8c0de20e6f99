"""Packs spanning trees into capacities between ranks, a unit of an arc for each tree that has it; flat ones if any."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from .network import Counts, Matrix, Network

Parents = npt.NDArray[np.int64]  # (trees, ranks): the parent of each rank in each tree, -1 for the root


def pack(capacity: Matrix, roots: Counts, latency: Matrix) -> Parents:
    """Return trees that span all ranks, those of rank 0 first, then those of rank 1, ...

    All trees grow at once, by arcs that leave enough for what all of them still have to reach, which a maximum flow
    decides (Lovasz, "On two minimax theorems in graph", 1976; Tarjan, "A good algorithm for edge-disjoint branching",
    1974; Berczi and Frank, "Packing arborescences", 2010). The arc is taken that reaches a rank soonest; of equal ones
    that of which most is left. So no tree is deep because others came before it.

    Args:
        capacity: whole numbers, of shape (ranks, ranks).
        roots: how many trees are rooted at each rank; all of them together can flow to every rank (see `Network`).
        latency: seconds of each arc; of shape (ranks, ranks).
    """
    ranks = len(roots)
    root = np.repeat(np.arange(ranks), roots.astype(np.int64)).tolist()
    parents = np.full((len(root), ranks), -1)
    network = Network(capacity, np.zeros(ranks))
    inside = np.zeros(parents.shape, np.bool_)  # what each tree has reached
    neighbours = [np.flatnonzero(row).tolist() for row in capacity]
    ways: list[tuple[float, float, int, int, int]] = []

    def enter(tree: int, rank: int, time: float) -> None:
        inside[tree, rank] = True
        for v in neighbours[rank]:
            if not inside[tree, v]:
                heappush(ways, (time + float(latency[rank, v]), -network.left(rank, v), tree, rank, v))

    for tree, rank in enumerate(root):
        enter(tree, rank, 0.0)
    while ways:
        time, left, tree, u, v = heappop(ways)
        if inside[tree, v] or network.left(u, v) < 1:
            continue
        if -left > network.left(u, v):  # its turn comes after those of which more is left
            heappush(ways, (time, -network.left(u, v), tree, u, v))
            continue
        # A way that is refused is refused for ever: the set that binds stays as full as it is.
        if network.spares(u, v, inside, tree):
            network.take(u, v)
            parents[tree, v] = u
            enter(tree, v, time)
    assert inside.all(), "arcs that leave enough for all other trees exist until all trees span all ranks"
    return parents
