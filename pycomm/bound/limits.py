"""What binds a collective on a machine: ways, cuts, partitions, all links together, the adding up of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..topology import Topology
from ..topology.units import say_rate
from . import partition, search, words
from .demand import Demand
from .graph import Graph, Ids, Mask, Reals, graph_of
from .tree import Tree, tree_of

_PAIRS = 2_000_000  # entries of a table of distances, from the ranks of one period to all vertices, that is made
_EQUAL = 1e-9


@dataclass(frozen=True)
class Limit:
    """One thing that no schedule can do faster.

    Attributes:
        per_byte: seconds for each byte of n, without any latency.
        latency: seconds to add.
        words: what it is, as the subject of a sentence; asked only of the one that binds.
    """

    per_byte: float
    latency: float
    words: Callable[[], str]

    def seconds(self, nbytes: float) -> float:
        """Return the time that no schedule can beat."""
        return (nbytes * self.per_byte if nbytes else 0.0) + self.latency


@lru_cache(maxsize=64)
def limits(topology: Topology, demand: Demand) -> tuple[Limit, ...]:
    """Return everything that was found to bind, for some n; nothing if one rank is alone."""
    return tuple(_limits(topology, demand)) if demand.size > 1 else ()


def _limits(topology: Topology, demand: Demand) -> Iterator[Limit]:
    graph = graph_of(topology)
    table = graph.distances(np.arange(topology.period)) if topology.period * graph.n <= _PAIRS else None
    yield _way(topology, graph, demand, table)
    if demand.collective == "barrier":
        return
    rate = float(topology.reduce_rate.sum())
    if demand.additions and rate < float("inf"):
        yield Limit(demand.additions / rate, 0.0, lambda: f"the additions of all ranks together, {say_rate(rate)}")
    for level in levels(topology):
        near = _near(graph, level)
        tree = tree_of(near.finite)
        if tree is not None:
            yield from _of_tree(topology, graph, demand, tree)
            if len(near.ranked) == demand.size:
                return  # nothing is left to be found
        else:
            yield from _of_graph(topology, graph, demand, near.finite, _apart(graph, table, level))
    if demand.collective == "alltoall" and table is not None:
        yield from _all_links(topology, graph, demand, _apart(graph, table, np.arange(demand.size)))


def levels(topology: Topology) -> list[Ids]:
    """Return partitions of the ranks into near ones, from each alone to the widest groups: a number for each rank."""
    found = [np.arange(topology.size)]
    labels = [topology.host.astype(np.int64)]
    groups = [group for group in topology.groups if isinstance(group, tuple)]
    while groups:
        label = topology.size + np.arange(topology.size)
        for number, group in enumerate(groups):
            label[_members(group)] = number
        labels.append(label)
        groups = [inner for group in groups for inner in group if isinstance(inner, tuple)]
    for label in labels:
        level = np.unique(label, return_inverse=True)[1].reshape(-1)
        if level.max() > 0 and not any(np.array_equal(level, other) for other in found):
            found.append(level)
    return found


def _members(group: tuple[Any, ...]) -> list[int]:
    return [rank for inner in group for rank in (_members(inner) if isinstance(inner, tuple) else [inner])]


def _near(graph: Graph, level: Ids) -> Graph:
    """Return the graph in which near ranks are one vertex; switches that no cut needs to tell apart are merged."""
    p = len(level)
    if level.max() == p - 1:
        return graph if tree_of(graph) is not None else graph.with_twins_merged()
    return graph.merged(np.concatenate([level, p + np.arange(graph.n - p)])).with_twins_merged()


# ---- latency ----


def _way(topology: Topology, graph: Graph, demand: Demand, table: Reals | None) -> Limit:
    """Return the longest way from a rank to one that needs something of it; of a large machine, a long one."""
    p, root = demand.size, demand.root
    if demand.collective in ("reduce", "gather"):
        to_root = graph.reversed().distances(root)[0, :p]
        source, target, seconds = int(np.argmax(to_root)), root, to_root.max()
    elif demand.collective in ("broadcast", "scatter") or table is None:
        starts, rows = [root], [graph.distances(root)[0, :p]]
        if demand.collective not in ("broadcast", "scatter", "scan", "exscan"):
            starts.append(int(np.argmax(rows[0])))
            rows.append(graph.distances(starts[1])[0, :p])
        best = int(np.argmax([row.max() for row in rows]))
        source, target, seconds = starts[best], int(np.argmax(rows[best])), rows[best].max()
    else:
        ways = table[:, :p]
        if demand.collective in ("scan", "exscan"):
            ways = np.triu(ways)
        source, target = (int(rank) for rank in np.unravel_index(np.argmax(ways), ways.shape))
        seconds = ways[source, target]
    ends = partial("the latencies on the way from {} to {}".format, topology.label(source), topology.label(target))
    return Limit(0.0, float(seconds), ends)


def _apart(graph: Graph, table: Reals | None, level: Ids) -> float:
    """Return what the latency between ranks that are not near each other is at least."""
    p = len(level)
    if table is not None:
        return float(table[:, :p][level[: len(table), None] != level[None, :]].min())
    from_rank, to_rank = graph.source < p, graph.target < p
    least = [
        float(graph.latency[kind].min(initial=np.inf))
        for kind in (from_rank & to_rank, from_rank & ~to_rank, ~from_rank & to_rank)
    ]
    return min(least[0], least[1] + least[2])


# ---- cuts ----


def _cut(topology: Topology, graph: Graph, demand: Demand, side: Mask, latency: float) -> Iterator[Limit]:
    """Yield what one set of vertices limits."""
    volume, capacity = demand.volume_of(graph, side), graph.leaving(side)
    if volume > 0:
        per_byte = volume / capacity if capacity > 0 else float("inf")
        yield Limit(per_byte, latency, partial(_words_of_cut, topology, graph, demand, side))


def _words_of_cut(topology: Topology, graph: Graph, demand: Demand, side: Mask) -> str:
    return words.cut(topology, side, _is_like_others(topology, graph, demand, side))


def _is_like_others(topology: Topology, graph: Graph, demand: Demand, side: Mask) -> bool:
    """Say whether a cut is around one rank, host or group, and binds as much around each of the others."""
    inside = side[: demand.size]
    near, inwards = (~inside, True) if 2 * inside.sum() > demand.size else (inside, False)
    for level in levels(topology):
        if np.array_equal(level == level[np.argmax(near)], near):
            of_each = search.alone(_near(graph, level), demand)
            seconds = of_each.into if inwards else of_each.out
            seconds = seconds[seconds > 0]
            return len(seconds) > 1 and bool(np.ptp(seconds) <= _EQUAL * seconds.max())
    return False


def _of_tree(topology: Topology, graph: Graph, demand: Demand, tree: Tree) -> Iterator[Limit]:
    """Yield the single edges that bind most, each for some n; and the best partition."""
    p, weight = demand.size, tree.weight
    lowest, highest = tree.extremes()
    has_root = np.zeros(tree.graph.n, np.int64)
    has_root[tree.graph.vertex_of[demand.root]] = 1
    rooted = tree.sums(has_root) > 0
    latencies = tree.latencies()
    for volume, capacity, latency, outside in (
        (demand.volume(weight, rooted, weight != p - lowest), tree.up, latencies[0], False),
        (demand.volume(p - weight, ~rooted, weight != highest + 1), tree.down, latencies[1], True),
    ):
        cut = np.flatnonzero(volume > 0)
        for vertex in cut[envelope(volume[cut] / capacity[cut], latency[cut])]:
            side = tree.subtree(int(vertex))[tree.graph.vertex_of]
            yield from _cut(topology, graph, demand, ~side if outside else side, float(latency[vertex]))
    if demand.collective == "allreduce":
        apart = float(np.min(latencies[0], where=(weight > 0) & (weight < p), initial=np.inf))
        for out, back in ((tree.up, tree.down), (tree.down, tree.up)):
            yield from _parts(topology, graph, partition.of_tree(tree, out, back), apart)


def envelope(slopes: Reals, offsets: Reals) -> list[int]:
    """Return the lines slope * n + offset that are the highest for some n of 0 or more, from the steepest on.

    Of lines that differ by rounding alone, the first is returned.
    """
    hull: list[int] = []
    order = np.lexsort((np.arange(len(slopes)), -_rounded(offsets), -_rounded(slopes)))
    rising = np.maximum.accumulate(np.append(-np.inf, offsets[order][:-1])) * (1 + _EQUAL)
    for i in order[offsets[order] > np.maximum(rising, -1.0)].tolist():
        while len(hull) > 1 and _meet(slopes, offsets, i, hull[-1]) >= _meet(slopes, offsets, hull[-1], hull[-2]):
            hull.pop()
        hull.append(i)
    return hull


def _meet(slopes: Reals, offsets: Reals, flatter: int, steeper: int) -> float:
    """Return the n at which two lines meet."""
    return float((offsets[flatter] - offsets[steeper]) / (slopes[steeper] - slopes[flatter]))


def _rounded(values: Reals) -> Reals:
    """Return values to nine digits."""
    unit = 10.0 ** (np.floor(np.log10(np.abs(values), where=values != 0, out=np.zeros(len(values)))) - 9)
    rounded: Reals = np.round(values / unit) * unit
    return rounded


def _of_graph(topology: Topology, graph: Graph, demand: Demand, near: Graph, latency: float) -> Iterator[Limit]:
    """Yield the cuts and the partition that bind most among those that do not part near ranks."""
    for side in search.sides(near, demand, topology.period):
        yield from _cut(topology, graph, demand, side, latency)
    if demand.collective == "allreduce":
        for direction in (near,) if near.symmetric else (near, near.reversed()):
            yield from _parts(topology, graph, partition.of_graph(direction), latency)


def _parts(topology: Topology, graph: Graph, found: partition.Partition | None, latency: float) -> Iterator[Limit]:
    """Yield what a partition limits: 2(k - 1) n bytes must leave its k parts, which no unlimited link may help."""
    unlimited = graph.finite is not graph and found is not None and found.leaving >= graph.finite.capacity.max()
    if found is not None and not unlimited:
        per_byte = 2 / found.ratio if found.leaving > 0 else float("inf")
        yield Limit(per_byte, latency, partial(words.parts, topology, found.parts, found.leaving))


def _all_links(topology: Topology, graph: Graph, demand: Demand, latency: float) -> Iterator[Limit]:
    """Yield what all links together, and those of one kind, limit: each byte takes as many as its shortest way has.

    This is linear programming duality for the flows of an all-to-all, with lengths 0 and 1 (Leighton and Rao,
    "Multicommodity max-flow min-cut theorems", J. ACM 1999).
    """
    links, p = topology.links, demand.size
    all_kinds = range(len(topology.kinds))
    for kinds in dict.fromkeys([tuple(all_kinds), *((kind,) for kind in all_kinds)]):
        counted = np.isin(links.kind, kinds)
        mean = float(_hops(graph, topology, counted)[:, :p].sum()) / topology.period / (p - 1)
        capacity = float(links.bandwidth[counted].sum())
        if mean > 0 and capacity > 0:
            per_byte = mean * (p - 1) / capacity
            names = [topology.kinds[kind] for kind in kinds]
            yield Limit(per_byte, latency, partial(words.all_links, names, mean, capacity))


def _hops(graph: Graph, topology: Topology, counted: Mask) -> Reals:
    """Return how many of the links that are counted the shortest ways from the ranks of one period have."""
    links = topology.links
    key = links.source.astype(np.int64) * graph.n + links.target
    lengths = np.ones(len(graph.source))
    free = np.searchsorted(graph.source * graph.n + graph.target, key[~counted & (links.bandwidth > 0)])
    lengths[free] = 0
    return graph.distances(np.arange(topology.period), lengths)
