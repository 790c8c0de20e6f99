"""Maximum flows, and the minimum cuts that prove them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .graph import Graph, Mask

_NOTHING = 1e-12  # of the largest capacity: less than this is rounding


class Network:
    """Capacities between vertices, for flows between any two of them (Dinic's algorithm).

    One vertex more than the graph has, `extra`, is there for a source or sink that stands for many. Arcs are kept in
    pairs, one in each direction, which are each other's residual: arc a and arc a ^ 1.

    Dinic, "Algorithm for solution of a problem of maximum flow in networks with power estimation", 1970.
    """

    def __init__(self, graph: Graph) -> None:
        self.extra = graph.n
        self._arcs: list[list[int]] = [[] for _ in range(graph.n + 1)]
        self._head: list[int] = []
        self._capacity: list[float] = []
        number: dict[tuple[int, int], int] = {}
        for u, v, c in zip(graph.source.tolist(), graph.target.tolist(), graph.capacity.tolist(), strict=True):
            back = number.get((v, u))
            if back is None:
                number[u, v] = self._pair(u, v, c, 0.0)
            else:
                self._capacity[back ^ 1] = c
        self._nothing = _NOTHING * max(self._capacity, default=0.0)

    def _pair(self, u: int, v: int, there: float, back: float) -> int:
        arc = len(self._head)
        self._head += [v, u]
        self._capacity += [there, back]
        self._arcs[u].append(arc)
        self._arcs[v].append(arc + 1)
        return arc

    def flow(
        self, source: int, sink: int, more: Iterable[tuple[int, int, float]] = (), enough: float = float("inf")
    ) -> tuple[float, Mask | None]:
        """Return the greatest flow, and the smallest source side of a cut that allows no more.

        Args:
            source, sink: vertices.
            more: arcs for this flow alone: (source, target, capacity).
            enough: do not look for more than this; where this much is found, there is no cut (None).
        """
        arcs, before = len(self._head), self._capacity.copy()
        for u, v, c in more:
            self._pair(u, v, c, 0.0)
        try:
            return self._run(source, sink, enough)
        finally:
            for arc in range(len(self._head) - 1, arcs - 1, -1):
                self._arcs[self._head[arc ^ 1]].pop()
            del self._head[arcs:]
            self._capacity = before

    def _run(self, source: int, sink: int, enough: float) -> tuple[float, Mask | None]:
        total = 0.0
        while total < enough:
            level = self._levels(source, sink)
            if level[sink] < 0:
                return total, np.array(level[: self.extra]) >= 0
            total += self._blocking(source, sink, level)
        return total, None

    def _levels(self, source: int, sink: int) -> list[int]:
        """Number the vertices that still can be reached by their distance in arcs; -1: not before the sink."""
        head, capacity, nothing = self._head, self._capacity, self._nothing
        level = [-1] * len(self._arcs)
        level[source] = 0
        queue = [source]
        for u in queue:
            for arc in self._arcs[u]:
                v = head[arc]
                if level[v] < 0 and capacity[arc] > nothing:
                    level[v] = level[u] + 1
                    queue.append(v)
            if level[sink] >= 0:
                break
        return level

    def _blocking(self, source: int, sink: int, level: list[int]) -> float:
        """Send along ways that climb one level a step, until there is none."""
        head, capacity, nothing = self._head, self._capacity, self._nothing
        left = [iter(arcs) for arcs in self._arcs]
        arc_of = [-1] * len(self._arcs)  # the arc that each vertex is about to use
        total, path, u = 0.0, [source], source
        while path:
            if u == sink:
                arcs = [arc_of[v] for v in path[:-1]]
                amount = min([capacity[arc] for arc in arcs])
                total += amount
                full = len(arcs)
                for i in range(len(arcs) - 1, -1, -1):
                    arc = arcs[i]
                    capacity[arc] -= amount
                    capacity[arc ^ 1] += amount
                    if capacity[arc] <= nothing:
                        full = i
                del path[full + 1 :]
                u = path[-1]
            arc = arc_of[u]
            while arc < 0 or capacity[arc] <= nothing or level[head[arc]] != level[u] + 1:
                arc = next(left[u], -1)
                if arc < 0:
                    break
            arc_of[u] = arc
            if arc < 0:
                level[u] = -1
                path.pop()
                if path:
                    u = path[-1]
            else:
                u = head[arc]
                path.append(u)
        return total
