"""The cuts of a tree: those of single edges are enough, so that 100,000 ranks take a moment.

Let S be any set of vertices, and B(S) what can leave it. B adds up over parts of S that do not touch, and what must
leave S is at most the sum of what must leave the parts; so one part binds as much as S, and S may be taken to be
connected. In a tree, each part of the rest then hangs at S by one edge, and the same argument (for all-to-all and
scatter; for the others, leaving S what hangs at it, but one part) leaves a single edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .graph import Graph, Ids, Mask, Reals


@dataclass(frozen=True, eq=False)
class Tree:
    """A graph without cycles, hung up at a vertex without ranks if there is one.

    Attributes:
        graph: the graph.
        order: its vertices in layers from the root; layer k is order[layers[k] : layers[k + 1]].
        layers: see above.
        parent: of each vertex; the root's is itself.
        up, down: capacity to the parent, and from it.
        up_latency, down_latency: seconds.
    """

    graph: Graph
    order: Ids
    layers: list[int]
    parent: Ids
    up: Reals
    down: Reals
    up_latency: Reals
    down_latency: Reals

    def upwards(self) -> list[Ids]:
        """The layers from the lowest to the one below the root."""
        spans = zip(self.layers[:-1], self.layers[1:], strict=True)
        return [self.order[a:b] for a, b in spans][:0:-1]

    def sums(self, values: Ids) -> Ids:
        """Return for each vertex the sum of `values` below it and at it."""
        out = values.copy()
        for layer in self.upwards():
            np.add.at(out, self.parent[layer], out[layer])
        return out

    @cached_property
    def weight(self) -> Ids:
        """How many ranks are below each vertex or at it."""
        return self.sums(self.graph.weight)

    def subtree(self, vertex: int) -> Mask:
        """Return the vertices below one, and itself."""
        inside = np.zeros(self.graph.n, np.bool_)
        inside[vertex] = True
        for layer in self.upwards()[::-1]:
            inside[layer] |= inside[self.parent[layer]]
        return inside

    def extremes(self) -> tuple[Ids, Ids]:
        """Return the lowest and the highest rank below each vertex or at it."""
        lowest, highest = self.graph.lowest.copy(), self.graph.highest.copy()
        for layer in self.upwards():
            np.minimum.at(lowest, self.parent[layer], lowest[layer])
            np.maximum.at(highest, self.parent[layer], highest[layer])
        return lowest, highest

    def latencies(self) -> tuple[Reals, Reals]:
        """Return for each vertex the least latency from a rank in its subtree to one outside, and into it."""
        to_top = self._nearest(self.up_latency)
        from_top = self._nearest(self.down_latency)
        beyond = self._beyond(from_top + self.down_latency, self.up_latency)
        before = self._beyond(to_top + self.up_latency, self.down_latency)
        return to_top + self.up_latency + beyond, from_top + self.down_latency + before

    def _nearest(self, edge: Reals) -> Reals:
        """Return the latency between each vertex and the nearest rank below it or at it."""
        near = np.where(self.graph.weight > 0, 0.0, np.inf)
        for layer in self.upwards():
            np.minimum.at(near, self.parent[layer], near[layer] + edge[layer])
        return near

    def _beyond(self, through: Reals, edge: Reals) -> Reals:
        """Return the latency between each vertex's parent and the nearest rank that is not below the vertex.

        Args:
            through: between the parent and the nearest rank below the vertex.
            edge: between the parent and the vertex, for going on upwards.
        """
        below = self.order[1:]
        parent = self.parent[below]
        first, second = np.full(self.graph.n, np.inf), np.full(self.graph.n, np.inf)
        np.minimum.at(first, parent, through[below])
        is_first = through[below] == first[parent]
        np.minimum.at(second, parent[~is_first], through[below[~is_first]])
        shared = np.bincount(parent[is_first], minlength=self.graph.n) > 1
        second = np.where(shared, first, second)
        beyond = np.full(self.graph.n, np.inf)
        for layer in self.upwards()[::-1]:
            above = self.parent[layer]
            sibling = np.where(through[layer] == first[above], second[above], first[above])
            here = np.where(self.graph.weight[above] > 0, 0.0, np.inf)
            beyond[layer] = np.minimum(np.minimum(sibling, here), edge[above] + beyond[above])
        return beyond


def tree_of(graph: Graph) -> Tree | None:
    """Return a graph as a tree, or None if it has a cycle, is not connected, or has an arc in one direction only."""
    n = graph.n
    if len(graph.source) != 2 * (n - 1) or not np.array_equal(
        np.sort(graph.source * n + graph.target), np.sort(graph.target * n + graph.source)
    ):
        return None
    begin = np.searchsorted(graph.source, np.arange(n + 1))
    parent = np.full(n, -1)
    root = int(np.argmin(graph.weight))
    parent[root] = root
    layer, layers, order = np.array([root]), [0, 1], [np.array([root])]
    while len(layer):
        arcs = _spans(begin[layer], begin[layer + 1])
        child, above = graph.target[arcs], graph.source[arcs]
        new = child != parent[above]
        layer = child[new]
        if len(np.unique(layer)) < len(layer) or (parent[layer] >= 0).any():
            return None
        parent[layer] = above[new]
        if len(layer):
            order.append(layer)
            layers.append(layers[-1] + len(layer))
    if layers[-1] < n:
        return None
    up, down = np.zeros((2, n)), np.zeros((2, n))
    rising = parent[graph.source] == graph.target
    for out, arc, at in ((up, rising, graph.source), (down, ~rising, graph.target)):
        out[0, at[arc]] = graph.capacity[arc]
        out[1, at[arc]] = graph.latency[arc]
    return Tree(graph, np.concatenate(order), layers, parent, up[0], down[0], up[1], down[1])


def _spans(begin: Ids, end: Ids) -> Ids:
    """Return the numbers begin[0] to end[0] - 1, begin[1] to end[1] - 1, and so on, as one array."""
    length = end - begin
    skipped = np.cumsum(length) - length
    return np.repeat(begin - skipped, length) + np.arange(int(length.sum()))
