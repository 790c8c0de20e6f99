"""Whole capacities between vertices, and the question that all of packing asks: do all trees reach every rank?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..bound.flow import max_flow

Matrix = npt.NDArray[np.float64]  # capacities of ordered pairs of vertices; whole numbers are exact up to 2^53
Counts = npt.NDArray[np.float64]  # of trees that are rooted at each rank
Reached = npt.NDArray[np.bool_]  # which ranks are in each tree, of shape (trees, ranks)

_ROUNDING = 1e-9  # of capacities that are not whole


class Network:
    """Directed arcs between vertices, the first of which are ranks, for many flows while capacities change.

    A source, one vertex more, has an arc to each rank, whose capacity says how many trees are rooted there. These trees
    can be packed if and only if as much as all of them can flow from the source to each rank (Edmonds, "Edge-disjoint
    branchings", 1973).

    Attributes:
        roots: trees that are rooted at each rank, of shape (ranks,); may be changed.
    """

    def __init__(self, capacity: Matrix, roots: Counts) -> None:
        n = len(capacity)
        u, v = np.nonzero(np.triu(capacity + capacity.T, 1))
        self.roots = roots
        self._arcs = 2 * len(u)
        self._source, self._sink = n, n + 1
        self._number = np.full((n, n), -1)
        self._number[u, v], self._number[v, u] = (first := 2 * np.arange(len(u))), first + 1
        self._capacity = np.stack([capacity[u, v], capacity[v, u]], axis=1).reshape(-1)
        every = np.arange(n)
        tails = np.concatenate([u, np.full(n, self._source), every])
        heads = np.concatenate([v, every, np.full(n, self._sink)])
        self._head = np.stack([heads, tails], axis=1).reshape(-1).astype(np.int32)
        self._from_source, self._to_sink = self._arcs, self._arcs + 2 * n

    def left(self, u: int, v: int) -> float:
        """Return the capacity from one vertex to another that is left."""
        arc = self._number[u, v]
        return float(self._capacity[arc]) if arc >= 0 else 0.0

    def take(self, u: int, v: int) -> None:
        """Take a unit off the capacity from one vertex to another."""
        self._capacity[self._number[u, v]] -= 1

    def flow(self, sinks: Iterable[int], enough: float, also: Iterable[int] = ()) -> float:
        """Return what can flow from the source to some vertices together; no more than `enough` is looked for.

        Args:
            sinks: vertices.
            enough: see above.
            also: vertices that the source reaches without limit.
        """
        endless = enough + 1
        capacity = np.zeros(len(self._head))
        capacity[: self._arcs] = self._capacity
        capacity[self._from_source : self._from_source + 2 * len(self.roots) : 2] = self.roots
        for v in also:
            capacity[self._from_source + 2 * v] = endless
        for v in sinks:
            capacity[self._to_sink + 2 * v] = endless
        return max_flow(self._sink + 1, self._head, capacity, self._source, self._sink, enough)[0]

    def spares(self, u: int, v: int, inside: Reached, tree: int) -> bool:
        """Say whether a tree may take a unit of an arc, so that all others can still be completed.

        Args:
            u, v: the ends of the arc; the tree has reached u and not v.
            inside: what each tree has reached, of shape (trees, ranks); this stands for `roots`.
            tree: the tree.
        """
        waiting = ~inside[:, v]  # trees that have reached v ask for nothing there
        waiting[tree] = False
        wanted = np.flatnonzero(waiting)
        grown, member = np.nonzero(inside[wanted])
        node = self._sink + 1 + np.arange(len(wanted))
        tails = np.concatenate([np.full(len(wanted), self._source), node[grown]])
        heads = np.concatenate([node, member])
        head = np.concatenate([self._head, np.stack([heads, tails], axis=1).reshape(-1).astype(np.int32)])
        capacity = np.zeros(len(head))
        capacity[: self._arcs] = self._capacity
        capacity[len(self._head) :: 2] = 1.0
        enough = len(wanted) + 1.0
        capacity[self._from_source + 2 * u] = enough
        vertices = self._sink + 1 + len(wanted)
        return max_flow(vertices, head, capacity, self._source, v, enough)[0] >= enough

    def reaches_all(self, trees: float) -> bool:
        """Say whether so many trees can flow to every rank."""
        return all(self.flow((rank,), trees) >= trees * (1 - _ROUNDING) for rank in range(len(self.roots)))


def all_reached(capacity: Matrix, roots: Counts) -> bool:
    """Say whether trees that are rooted so can be packed into capacities."""
    return Network(capacity, roots).reaches_all(float(roots.sum()))
