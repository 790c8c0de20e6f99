"""The search for the cut that binds: by maximum flows where a flow decides, among candidates for all-to-all.

Every set of vertices gives a bound that holds; a search that does not look everywhere gives one that may be less tight.
What is found are masks over the topology's vertices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .demand import Demand
from .flow import Network
from .graph import Graph, Ids, Mask, Reals

_WHOLE = 400  # vertices: up to here a graph is searched as it is; a larger one for each pair of ends, twins merged
_LARGEST = 2000  # vertices of a graph in which flows are looked for at all
_SINKS = 64  # of a larger graph, how many ranks are tried at most, one of each kind first
_WORK = 200_000  # of that, how many vertices may be seen altogether
_FEW = 8  # vertices of ranks up to which all halves are tried for all-to-all
_CANDIDATES = 128  # halves that are tried at most; fewer in a graph that is larger than _WHOLE
_SPECTRAL = 600  # vertices up to which eigenvectors are asked for halves
_VECTORS = 4
_EQUAL = 1e-9


def sides(graph: Graph, demand: Demand, period: int) -> Iterator[Mask]:
    """Yield sets of vertices that may bind, the one that binds most among them if it was looked for everywhere.

    Args:
        graph: where; its vertices may stand for several ranks, of which cuts then take all or none.
        demand: what must leave.
        period: ranks r and r + period are alike (see `Topology.period`).
    """
    yield from _single(graph, demand)
    first, root = int(graph.lowest.min()), demand.root
    match demand.collective:
        case "allgather":
            yield from _Flows(graph).gossip(period)
        case "reduce_scatter":
            yield from (~side for side in _Flows(graph.reversed()).gossip(period))
        case "broadcast":
            flows = _Flows(graph)
            yield from flows.between((root, rank) for rank in flows.sinks(demand.size))
        case "reduce":
            flows = _Flows(graph)
            yield from flows.between((rank, root) for rank in flows.sinks(demand.size))
        case "scatter":
            yield from _Flows(graph).spread(root)
        case "gather":
            yield from (~side for side in _Flows(graph.reversed()).spread(root))
        case "allreduce":
            flows = _Flows(graph)
            yield from flows.between((first, rank) for rank in flows.sinks(demand.size))
            if not graph.symmetric:
                yield from flows.between((rank, first) for rank in flows.sinks(demand.size))
        case "scan" | "exscan":
            flows = _Flows(graph)
            yield from flows.between((rank - 1, rank) for rank in flows.sinks(demand.size) if rank > 0)
        case "alltoall":
            for ranks in _halves(graph):
                yield from _completed(graph, ranks)


class Alone(NamedTuple):
    """What each vertex of ranks can send and receive by itself, with the switches that mostly belong to it.

    Attributes:
        owner: for each vertex, the vertex of ranks to which it belongs, or -1.
        out, into: for each vertex of ranks, seconds for each byte of n to leave it, and to enter it; 0 for none.
    """

    owner: Ids
    out: Reals
    into: Reals


def alone(graph: Graph, demand: Demand) -> Alone:
    """Return what the vertices of ranks limit, each by itself."""
    owner, ranked, p = graph.owners(), graph.ranked, demand.size
    crossing = owner[graph.source] != owner[graph.target]
    weight = graph.weight[ranked]
    rooted = ranked == graph.vertex_of[demand.root]
    suffix, prefix = weight == p - graph.lowest[ranked], weight == graph.highest[ranked] + 1

    def seconds(end: Ids, volume: Reals) -> Reals:
        owned = crossing & (owner[end] >= 0)
        capacity = np.bincount(owner[end[owned]], graph.capacity[owned], graph.n)[ranked]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(volume > 0, volume / capacity, 0.0)

    return Alone(
        owner,
        seconds(graph.source, demand.volume(weight, rooted, ~suffix)),
        seconds(graph.target, demand.volume(p - weight, ~rooted, ~prefix)),
    )


def _single(graph: Graph, demand: Demand) -> Iterator[Mask]:
    """Yield the vertex of ranks that binds most by itself, outwards and inwards."""
    owner, *directions = alone(graph, demand)
    for seconds, inwards in zip(directions, (False, True), strict=True):
        side = (owner == graph.ranked[first_largest(seconds)])[graph.vertex_of]
        yield ~side if inwards else side


def first_largest(values: Reals) -> int:
    """Return the index of the largest value, the first of those that differ by rounding alone."""
    return int(np.argmax(values >= values.max() * (1 - _EQUAL)))


class _Place(NamedTuple):
    """A graph in which flows are looked for."""

    graph: Graph
    network: Network


class _Flows:
    """Cuts that flows prove to be the least. Large graphs are searched with twins merged, if that makes them small."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._whole = _Place(graph, Network(graph)) if graph.n <= _WHOLE else None

    def sinks(self, period: int) -> list[int]:
        """Return ranks, one for each vertex that has one below `period`; of a large graph, some of each kind."""
        graph = self._graph
        found = graph.ranked[graph.lowest[graph.ranked] < period]
        if self._whole is None:
            kinds = graph.with_twins_merged(np.empty(0, np.int64)).vertex_of[graph.lowest[found]]
            _, of_each = np.unique(kinds, return_index=True)
            rest = np.setdiff1d(np.arange(len(found)), of_each)
            tried = min(_SINKS, max(4, _WORK // graph.n))
            spread = rest[:: max(1, len(rest) // tried)]
            found = found[np.concatenate([of_each, spread])[:tried]]
        return [int(rank) for rank in graph.lowest[found]]

    def _place(self, *ranks: int) -> _Place | None:
        """Return a graph in which the vertices of these ranks are told apart from all others; None if it is large."""
        if self._whole is not None:
            return self._whole
        graph = self._graph.with_twins_merged(self._graph.vertex_of[list(ranks)])
        return _Place(graph, Network(graph)) if graph.n <= _LARGEST else None

    def between(self, ends: Iterable[tuple[int, int]]) -> Iterator[Mask]:
        """Yield cuts between pairs of ranks, each less than the one before."""
        least = float("inf")
        for source, sink in ends:
            place = self._place(source, sink)
            if place is None:
                return
            u, v = (int(place.graph.vertex_of[rank]) for rank in (source, sink))
            if u == v:
                continue
            value, side = place.network.flow(u, v, enough=least)
            if side is not None and value < least:
                least = value
                yield side[place.graph.vertex_of]

    def gossip(self, period: int) -> Iterator[Mask]:
        """Yield sets S that lack a rank, with ever more ranks for what can leave them.

        All ranks can send x bytes a second each to one sink if and only if no set without the sink is in the way;
        the set that is gives the next x (Zhao et al., "ForestColl", arXiv 2402.06787, section 5.2; Dinkelbach, "On
        nonlinear fractional programming", 1967).
        """
        x = float("inf")
        for sink in self.sinks(period):
            place = self._place(sink)
            if place is None:
                return
            graph, network = place
            weight = graph.weight.tolist()
            end = int(graph.vertex_of[sink])
            sources = [v for v in graph.ranked.tolist() if v != end]
            wanted = sum(weight[v] for v in sources)
            if x == float("inf"):
                others = np.arange(graph.n) != end
                yield others[graph.vertex_of]
                x = graph.leaving(others) / wanted
            while x > 0:
                more = [(network.extra, v, weight[v] * x) for v in sources]
                _, side = network.flow(network.extra, end, more, enough=wanted * x * (1 - _EQUAL))
                if side is None:
                    break
                yield side[graph.vertex_of]
                x = graph.leaving(side) / float(graph.weight[side].sum())

    def spread(self, root: int) -> Iterator[Mask]:
        """Yield sets S that have the root, with ever more ranks outside for what can leave them."""
        place = self._place(root)
        if place is None:
            return
        graph, network = place
        start = int(graph.vertex_of[root])
        sinks = [v for v in graph.ranked.tolist() if v != start]
        weight = graph.weight.tolist()
        wanted = sum(weight[v] for v in sinks)
        x = float(graph.capacity.sum())
        while x > 0 and wanted:
            more = [(v, network.extra, weight[v] * x) for v in sinks]
            _, side = network.flow(start, network.extra, more, enough=wanted * x * (1 - _EQUAL))
            if side is None:
                return
            yield side[graph.vertex_of]
            x = graph.leaving(side) / float(graph.weight[~side].sum())


def _completed(graph: Graph, ranks: Mask) -> Iterator[Mask]:
    """Yield a set of ranks with the switches that let least out of it; and its complement, likewise.

    Args:
        graph: the graph.
        ranks: a mask over its vertices; switches do not count.
    """
    side = np.where(graph.weight > 0, np.where(ranks, -1, -2), np.arange(graph.n))
    halves = graph.merged(side).with_twins_merged()
    inside, outside = (
        int(halves.vertex_of[graph.lowest[(graph.weight > 0) & (ranks == chosen)].min()]) for chosen in (True, False)
    )
    if halves.n > _WHOLE:
        owner = halves.owners()
        yield (owner == inside)[halves.vertex_of]
        yield (owner == outside)[halves.vertex_of]
        return
    network = Network(halves)
    for source, sink in ((inside, outside), (outside, inside)):
        _, found = network.flow(source, sink)
        assert found is not None
        yield found[halves.vertex_of]


def _halves(graph: Graph) -> list[Mask]:
    """Return sets of ranks, as masks over a graph's vertices, across which an all-to-all may be slow.

    Of few vertices, all sets. Otherwise the lower halves of each coordinate, however ranks are numbered along a grid,
    and what the slowest vibrations of the graph tell apart (Fiedler, "Algebraic connectivity of graphs", 1973).
    """
    order = graph.ranked[np.argsort(graph.lowest[graph.ranked])]
    at, k = np.arange(len(order)), len(order)
    chosen: list[Ids] = []
    if k <= _FEW:
        chosen = [order[(number >> at) & 1 > 0] for number in range(1, 1 << (k - 1))]
    else:
        divisors = [d for d in range(1, k + 1) if k % d == 0]
        if graph.n <= _SPECTRAL:
            chosen += _vibrations(graph)
        for period in reversed(divisors):
            for stride in divisors:
                extent = period // stride
                if period % stride == 0 and extent > 1:
                    chosen.append(order[at // stride % extent < extent // 2])
    chosen = chosen[: _CANDIDATES * _WHOLE // max(_WHOLE, graph.n)]
    masks = np.zeros((len(chosen), graph.n), np.bool_)
    for mask, ranks in zip(masks, chosen, strict=True):
        mask[ranks] = True
    return list(masks)


def _vibrations(graph: Graph) -> Iterator[Ids]:
    """Yield for each slow eigenvector of the graph's Laplacian the ranks below the threshold that parts it worst."""
    between = np.zeros((graph.n, graph.n))
    between[graph.source, graph.target] = graph.capacity
    between += between.T
    _, vectors = np.linalg.eigh(np.diag(between.sum(axis=0)) - between)
    for vector in vectors.T[1 : 1 + _VECTORS]:
        order = np.argsort(vector)
        place = np.empty(graph.n, np.int64)
        place[order] = np.arange(graph.n)
        start, end = place[graph.source], place[graph.target]
        rising = start < end
        gained = np.bincount(start[rising], graph.capacity[rising], graph.n)
        lost = np.bincount(end[rising], graph.capacity[rising], graph.n)
        leaving = np.cumsum(gained - lost)[:-1]
        ranks = np.cumsum(graph.weight[order])[:-1]
        cut = int(np.argmax(ranks * (graph.weight.sum() - ranks) / np.maximum(leaving, leaving.max() * 1e-9)))
        below = order[: cut + 1]
        yield below[graph.weight[below] > 0]
