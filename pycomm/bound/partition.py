"""The partition that binds an allreduce most: 2(k - 1) n bytes must leave the k parts of any partition of the ranks.

The least ratio of what can leave the parts to k - 1 is found by Newton's method (Dinkelbach, "On nonlinear fractional
programming", 1967): for a value x, find the partition that minimises the sum over parts of B(part) - x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .flow import Network
from .graph import Graph, Mask, Reals
from .tree import Tree

_EQUAL = 1e-9
_GREEDY = 400  # vertices; in larger graphs, only the partition into single vertices of ranks is tried
_TRIES = 50


class Partition(NamedTuple):
    """Disjoint sets of ranks: how many, and what can leave them, in bytes per second, summed over them."""

    parts: int
    leaving: float

    @property
    def ratio(self) -> float:
        """What can leave the parts, over k - 1."""
        return self.leaving / (self.parts - 1)


def of_tree(tree: Tree, out: Reals, back: Reals) -> Partition | None:
    """Return the partition of a tree's ranks that binds most; None if the tree has no switch.

    The parts are what hangs at a connected set of switches, by one edge each. For a given x the best such set is
    found from the leaves upwards: each branch is either a part, or goes on inside.

    Args:
        tree: the tree.
        out: capacity towards the root (`tree.up`), or away from it for what enters the parts.
        back: the other of the two.
    """
    switch = tree.graph.weight == 0
    if not switch.any():
        return None
    filled, total = tree.weight > 0, tree.graph.weight.sum()
    best: Partition | None = None
    x = 2 * float(out.sum() + back.sum())
    for _ in range(_TRIES):
        leaving, parts = np.zeros(tree.graph.n), np.zeros(tree.graph.n, np.int64)
        for layer in tree.upwards():
            layer = layer[filled[layer]]
            inside = switch[layer] & (leaving[layer] - x * parts[layer] < out[layer] - x)
            np.add.at(leaving, tree.parent[layer], np.where(inside, leaving[layer], out[layer]))
            np.add.at(parts, tree.parent[layer], np.where(inside, parts[layer], 1))
        more = tree.weight < total
        leaving, parts = leaving + np.where(more, back, 0.0), parts + more
        whole = switch & (parts > 1)
        if not whole.any():
            return best
        at = int(np.argmin(np.where(whole, leaving - x * parts, np.inf)))
        found = Partition(int(parts[at]), float(leaving[at]))
        if best is not None and found.ratio >= best.ratio * (1 - _EQUAL):
            return best
        best, x = found, found.ratio
    return best


def of_graph(graph: Graph) -> Partition:
    """Return the partition of any graph's ranks that binds most, by a maximum flow for each rank and try.

    The parts come out of the greedy algorithm for the Dilworth truncation of B - x: the value of each rank in turn is
    as large as the sets that it completes allow, and sets that are tight and meet are joined (Cunningham, "Optimal
    attack and reinforcement of a network", J. ACM 1985; Frank and Tardos, "Generalized polymatroids and submodular
    flows", 1988).
    """
    owner = graph.owners()
    crossing = (owner[graph.source] >= 0) & (owner[graph.source] != owner[graph.target])
    best = Partition(len(graph.ranked), float(graph.capacity[crossing].sum()))
    if graph.n > _GREEDY:
        return best
    network = Network(graph)
    for _ in range(_TRIES):
        sides = _truncation(graph, network, best.ratio)
        if len(sides) < 2:
            return best
        found = Partition(len(sides), sum(graph.leaving(side) for side in sides))
        if found.ratio >= best.ratio * (1 - _EQUAL):
            return best
        best = found
    return best


def _truncation(graph: Graph, network: Network, x: float) -> list[Mask]:
    """Return the partition, as sets of vertices, that minimises the sum of B(set) - x over its sets."""
    ranked = graph.ranked.tolist()
    infinite = 4 * float(graph.capacity.sum()) + abs(x)
    value: dict[int, float] = {}
    sides: list[Mask] = []
    for at, vertex in enumerate(ranked):
        more = [(vertex, v, y) if y > 0 else (v, network.extra, -y) for v, y in value.items()]
        more += [(v, network.extra, infinite) for v in ranked[at + 1 :]]
        flow, side = network.flow(vertex, network.extra, more)
        assert side is not None
        value[vertex] = flow - sum(y for y in value.values() if y > 0) - x
        meeting = [other for other in sides if (other & side & (graph.weight > 0)).any()]
        sides = [other for other in sides if not any(other is met for met in meeting)]
        sides.append(np.logical_or.reduce([side, *meeting]))
    return sides
