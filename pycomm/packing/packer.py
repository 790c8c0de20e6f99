"""Packs trees on one machine: as many at each rank, all at one rank, or where they are best."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from ..bound.graph import graph_of
from ..errors import InvalidArgument
from ..topology import Topology
from . import rates
from .network import Counts, Matrix, all_reached
from .switches import Way, parts, without_switches
from .trees import Parents, pack

_MOST_RANKS = 128  # which may take a minute
_HOP = 1e-9  # seconds that count for a hop beyond its latency, which may be zero
_SLOWEST = 100.0  # times, from which on no other rate is tried
_CLOSE = 1.02  # how exactly a rate is found where messages do not take all ways


class Packing:
    """Trees that a machine carries at once.

    Attributes:
        parents: the parent of each rank in each tree, -1 for the root; int64 of shape (trees, ranks).
        efficiency: what the busiest link takes, over what it would for any number of trees on any ways.
    """

    def __init__(self, parents: Parents, efficiency: float) -> None:
        self.parents, self.efficiency = parents, efficiency

    @cached_property
    def depth(self) -> Parents:
        """How many hops each rank is below the root of each tree; of the shape of `parents`."""
        depth = np.where(self.parents < 0, 0, -1)
        for hops in range(1, self.parents.shape[1]):
            below = np.take_along_axis(depth, self.parents, axis=1) == hops - 1
            depth[below & (self.parents >= 0)] = hops
        return depth


class Packer:
    """Packs trees on one machine when somebody asks for them, and keeps them.

    Trees lead from their roots to all ranks; those that are `inwards` are for reductions, which go up from the leaves.

    Args:
        name: what errors and algorithms call the machine.
        topology: the machine.

    Raises:
        InvalidArgument: it has more than 128 ranks, or links do not join them all.
    """

    def __init__(self, name: str, topology: Topology) -> None:
        self.name, self.size = name, topology.size
        if self.size > _MOST_RANKS:
            raise InvalidArgument(
                f"{name} has {self.size} ranks, and trees are packed for {_MOST_RANKS} at most: pack those of a group, "
                "as in hierarchical(packed(torus:4x4),ring)"
            )
        self._topology = topology
        graph = graph_of(topology).finite.with_twins_merged()
        self._symmetric = graph.symmetric
        order = np.argsort(np.where(graph.weight > 0, graph.lowest, self.size), kind="stable")
        bandwidth = np.zeros((graph.n, graph.n))
        bandwidth[graph.source, graph.target] = graph.capacity
        self._bandwidth: Matrix = bandwidth[np.ix_(order, order)]
        self._vertex = np.argsort(order)[graph.vertex_of]  # what stands for each vertex of the topology
        if not np.isfinite(graph.distances(order[: self.size])[:, order[: self.size]]).all():
            raise InvalidArgument(f"{name}: its links do not join all ranks with each other")
        self._packed: dict[tuple[object, bool], Packing] = {}
        self._counts: dict[bool, int] = {}

    def at_all(self, *, inwards: bool = False) -> Packing:
        """Return as many trees at each rank, in the order of their roots."""
        return self._pack("all", lambda links: rates.equal(links, self.size), inwards)

    def at_any(self, *, inwards: bool = False) -> Packing:
        """Return trees with roots where they are best if links are full duplex; the same roots in both directions."""
        return self._pack("any", lambda links: rates.fixed(links, self._roots), inwards)

    @cached_property
    def _roots(self) -> Counts:
        rate = rates.free(self._bandwidth, self.size) if self._symmetric else rates.equal(self._bandwidth, self.size)
        return rate.roots

    def at_one(self, root: int, *, inwards: bool = False) -> Packing:
        """Return trees that are all rooted at one rank, as many for each root."""
        return self._at_one(root, self.trees_of_one(inwards=inwards), inwards)

    def trees_of_one(self, *, inwards: bool = False) -> int:
        """Return how many trees `at_one` gives.

        They are the fewest that come near to the best rate of every root; or a multiple, if that makes the trees of
        rank 0 less deep. (One tree at the best rate of a switch is a chain; of p - 1 trees, each has a relay.)
        """
        key = inwards and not self._symmetric
        if key not in self._counts:
            fewest = rates.trees_of_any_root(self._links(inwards), self.size) if self.size > 1 else 1
            counts = [fewest]
            while 2 * counts[-1] <= rates.MOST_OF_ROOT:
                counts.append(2 * counts[-1])
            self._counts[key] = min(counts, key=lambda count: self._at_one(0, count, inwards).depth.max())
        return self._counts[key]

    def _at_one(self, root: int, trees: int, inwards: bool) -> Packing:
        roots = np.zeros(self.size)
        roots[root] = trees
        return self._pack(("one", root, trees), lambda links: rates.fixed(links, roots), inwards)

    def _links(self, inwards: bool) -> Matrix:
        return self._bandwidth.T.copy() if inwards else self._bandwidth

    def _pack(self, what: object, choose: Callable[[Matrix], rates.Rate], inwards: bool) -> Packing:
        if self.size == 1:
            return Packing(np.full((1, 1), -1), 1.0)
        if self._symmetric and len(self._bandwidth) == self.size:
            inwards = False  # the same trees serve in both directions
        if (what, inwards) not in self._packed:
            links = self._links(inwards)
            self._packed[what, inwards] = self._best(choose(links), links, inwards)
        return self._packed[what, inwards]

    def _best(self, rate: rates.Rate, links: Matrix, inwards: bool) -> Packing:
        """Return the trees that are fastest on the ways that messages take.

        What goes ways that messages do not take loads other links than those that have room for it. It is tried both to
        allow this, and to find a rate at which all go the ways that they take.
        """
        routes = self._routes(inwards)

        def at(factor: float, *, strictly: bool) -> tuple[rates.Rate, Matrix] | None:
            slower = rate.slower(factor)
            between = without_switches(slower.capacity(links), rate.roots, routes, strictly=strictly)
            return (slower, between) if all_reached(between, rate.roots) else None

        loose = at(1.0, strictly=False)
        found = [self._packing(*loose, inwards)] if loose else []
        if found and found[0].efficiency * _CLOSE >= rate.efficiency:
            return found[0]
        slowest = rate.efficiency / found[0].efficiency if found else _SLOWEST
        factor, refused = 1.0, 1.0
        while not (strict := at(factor, strictly=True)) and factor < slowest:
            factor, refused = min(2 * factor, slowest), factor
        while strict and factor > refused * _CLOSE:
            middle = (factor * refused) ** 0.5
            better = at(middle, strictly=True)
            factor, refused, strict = (middle, refused, better) if better else (factor, middle, strict)
        found += [self._packing(*strict, inwards)] if strict else []
        if not found:
            raise InvalidArgument(f"{self.name}: no trees are found on the ways that messages take")
        return max(found, key=lambda one: one.efficiency)

    def _packing(self, rate: rates.Rate, between: Matrix, inwards: bool) -> Packing:
        """Pack trees into arcs, and see what goes over the busiest link."""
        parents = pack(between, rate.roots, self._latencies(between, inwards))
        taken = parents >= 0
        ends = parents[taken], np.broadcast_to(np.arange(self.size), parents.shape)[taken]
        bandwidth = self._topology.links.bandwidth
        _, links = self._topology.paths(*(ends[::-1] if inwards else ends))
        busiest = float((np.bincount(links, minlength=len(bandwidth)) / bandwidth).max())
        return Packing(parents, rate.efficiency * rate.scale / busiest)

    def _routes(self, inwards: bool) -> set[Way]:
        """Return the ways that messages take, as vertices of the graph that is packed, and all parts of them."""
        target, source = np.divmod(np.arange(self.size**2), self.size)
        start, links = self._topology.paths(source, target)
        heads = self._vertex[self._topology.links.target[links]].tolist()
        ways = (
            (self._vertex[rank].item(), *heads[first:end])
            for rank, first, end in zip(source.tolist(), start[:-1].tolist(), start[1:].tolist(), strict=True)
        )
        return parts(way[::-1] if inwards else way for way in ways)

    def _latencies(self, between: Matrix, inwards: bool) -> Matrix:
        """Return the seconds of each arc between ranks; arcs that do not exist have any."""
        source, target = np.nonzero(between)
        ends = (target, source) if inwards else (source, target)
        latency = np.zeros(between.shape)
        latency[source, target] = self._topology.ends(*ends).latency + _HOP
        return latency
