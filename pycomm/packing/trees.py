"""Packs spanning trees into capacities between ranks: a unit of an arc for each tree that has it, flat trees if possible."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from .network import Counts, Matrix, Network

Parents = npt.NDArray[np.int64]  # (trees, ranks): the parent of each rank in each tree, -1 for the root


def pack(capacity: Matrix, roots: Counts, latency: Matrix) -> Parents:
    """Return trees that span all ranks, those of rank 0 first, then those of rank 1, ...

    Each tree grows from its root by arcs that leave enough for the trees that come after it, which a maximum flow decides
    (Lovasz, "On two minimax theorems in graph", 1976; Tarjan, "A good algorithm for edge-disjoint branching", 1974). Of
    these it takes the one that reaches a rank soonest, then the one of which most is left.

    Args:
        capacity: whole numbers, of shape (ranks, ranks).
        roots: how many trees are rooted at each rank; all of them together can flow to every rank (see `Network`).
        latency: seconds of each arc; of shape (ranks, ranks).
    """
    waiting = roots.copy()
    network = Network(capacity, waiting)
    neighbours = [np.flatnonzero(row).tolist() for row in capacity]
    of_root: list[list[list[int]]] = [[] for _ in roots]
    while waiting.any():  # by turns, so that no rank has the best of all arcs
        for root in np.flatnonzero(waiting).tolist():
            waiting[root] -= 1
            of_root[root].append(_grow(network, root, neighbours, latency))
    return np.array([parents for trees in of_root for parents in trees], np.int64).reshape(-1, len(roots))


def _grow(network: Network, root: int, neighbours: list[list[int]], latency: Matrix) -> list[int]:
    """Return the parents in a tree, whose arcs are taken off the network."""
    others = float(network.roots.sum())
    parents, inside = [-1] * len(neighbours), [False] * len(neighbours)
    ways: list[tuple[float, float, int, int]] = []

    def enter(rank: int, time: float) -> None:
        inside[rank] = True
        for v in neighbours[rank]:
            if not inside[v]:
                heappush(ways, (time + float(latency[rank, v]), -network.left(rank, v), rank, v))

    enter(root, 0.0)
    while ways:
        time, _, u, v = heappop(ways)
        # A way that is refused once is refused until the tree is complete: the set that binds stays as full as it is.
        if not inside[v] and network.left(u, v) >= 1 and network.flow((v,), others + 1, also=(u,)) > others:
            network.take(u, v)
            parents[v] = u
            enter(v, time)
    assert all(inside), "arcs that leave enough for all other trees exist until a tree spans all ranks"
    return parents
