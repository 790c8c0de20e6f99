"""Spanning trees that use all links of a described machine at once, for collectives that reach its bound on any graph.

docs/packing.md tells what they are for. The method is ForestColl's (Zhao et al., arXiv 2402.06787): find the best rate by
maximum flows, take out the switches, pack trees that are rooted at ranks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from ..bound.graph import graph_of
from ..bound.tree import tree_of
from ..errors import InvalidArgument
from ..topology import Topology, load
from . import rates
from .network import Matrix, all_reached
from .switches import Way, parts, without_switches
from .trees import Parents, pack

__all__ = ["Packer", "Packing", "named", "offered", "packer"]

MOST_RANKS = 128  # which take a minute
MOST_CHOSEN = 64
_HOP = 1e-9  # seconds that count for a hop beyond its latency, which may be zero
_MOST_KEPT = 64
_SLOWEST = 100  # times, from which on no other rate is tried
_CLOSE = 1.01  # how exactly a rate is found where they cannot

_kept: dict[str, Topology] = {}  # machines that cannot be loaded by their names, the latest ones


class Packing:
    """Trees that a machine carries at once.

    Attributes:
        parents: the parent of each rank in each tree, -1 for the root; int64 of shape (trees, ranks).
        efficiency: the rate that these trees reach, over the best one of any number of trees.
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

    Trees lead from their roots to all ranks; those that are `inwards` are for reductions, which take them from the leaves
    to the root, against the direction of the links that they were packed on.

    Args:
        name: what errors and algorithms call the machine.
        topology: the machine.

    Raises:
        InvalidArgument: it has more than MOST_RANKS ranks, or links do not join them all.
    """

    def __init__(self, name: str, topology: Topology) -> None:
        self.name, self.size = name, topology.size
        if self.size > MOST_RANKS:
            raise InvalidArgument(
                f"{name} has {self.size} ranks, and trees are packed for {MOST_RANKS} at most: pack those of a group, as in "
                "hierarchical(packed(torus:4x4),ring)"
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
        self._packed: dict[tuple[object, ...], Packing] = {}
        self._counts: dict[bool, int] = {}

    def at_all(self, *, inwards: bool = False) -> Packing:
        """Return as many trees at each rank, in the order of their roots."""
        return self._pack(("all", inwards), inwards, lambda links: rates.equal(links, self.size))

    def at_any(self, *, inwards: bool = False) -> Packing:
        """Return trees with roots where they are best, the same roots inwards; equally many if links are not full duplex."""
        if self._symmetric:
            return self._pack(("any", False), False, lambda links: rates.free(links, self.size))
        roots = (self.at_all().parents < 0).sum(axis=0).astype(np.float64)
        return self._pack(("any", inwards), inwards, lambda links: rates.fixed(links, roots))

    def at_one(self, root: int, *, inwards: bool = False) -> Packing:
        """Return trees that are all rooted at one rank, as many for each root."""
        return self._at_one(root, self.trees_of_one(inwards=inwards), inwards)

    def trees_of_one(self, *, inwards: bool = False) -> int:
        """Return how many trees `at_one` gives.

        They are the fewest that come near to the best rate of every root; or a multiple, if that makes the trees of rank 0 less
        deep. (One tree at the best rate of a switch is a chain; of p - 1 trees, each has a relay.)
        """
        key = inwards and not self._symmetric
        if key not in self._counts:
            fewest = rates.trees_of_any_root(self._links(inwards), self.size)
            counts = [fewest]
            while 2 * counts[-1] <= rates.MOST_OF_ROOT:
                counts.append(2 * counts[-1])
            self._counts[key] = min(counts, key=lambda count: self._at_one(0, count, inwards).depth.max())
        return self._counts[key]

    def _at_one(self, root: int, trees: int, inwards: bool) -> Packing:
        roots = np.zeros(self.size)
        roots[root] = trees
        return self._pack(("one", root, trees, inwards), inwards, lambda links: rates.fixed(links, roots))

    def _links(self, inwards: bool) -> Matrix:
        return self._bandwidth.T.copy() if inwards else self._bandwidth

    def _pack(self, key: tuple[object, ...], inwards: bool, choose: Callable[[Matrix], rates.Rate]) -> Packing:
        if self._symmetric:
            key = (*key[:-1], False)  # the same trees serve inwards
        if key not in self._packed:
            links = self._links(inwards)
            rate, between = self._fitted(choose(links), links, inwards)
            self._packed[key] = Packing(pack(between, rate.roots, self._latencies(between, inwards)), rate.efficiency)
        return self._packed[key]

    def _fitted(self, rate: rates.Rate, links: Matrix, inwards: bool) -> tuple[rates.Rate, Matrix]:
        """Return the rate that trees have on the ways that messages take, and the arcs on which they are packed.

        What goes ways that messages do not take loads other links than those that have room for it. So it is tried both
        to allow this, and to find a rate at which all go the ways that they take.
        """
        routes = self._routes(inwards)
        found: list[tuple[rates.Rate, Matrix]] = []
        between = without_switches(rate.capacity(links), rate.roots, routes, strictly=False)
        if all_reached(between, rate.roots):
            found.append((rate.slower(max(1.0, self._overload(between, rate.scale, inwards))), between))
        good, bad = np.inf, 1 / _CLOSE
        while good > bad * _CLOSE and (not found or found[0][0].efficiency * _CLOSE < rate.efficiency / bad):
            factor = min((good * bad) ** 0.5, bad * 2) if bad >= 1 else 1.0
            slower = rate.slower(factor)
            between = without_switches(slower.capacity(links), rate.roots, routes, strictly=True)
            if all_reached(between, rate.roots):
                good = factor
                found.append((slower, between))
            elif factor > _SLOWEST:
                break
            else:
                bad = factor
        if not found:
            raise InvalidArgument(f"{self.name}: no trees are found on the ways that messages take")
        return max(found, key=lambda one: one[0].efficiency)

    def _overload(self, between: Matrix, scale: float, inwards: bool) -> float:
        """Return what goes over the busiest link, over what has room on it, if all arcs between ranks are used in full."""
        source, target = np.nonzero(between.T if inwards else between)
        start, links = self._topology.paths(source, target)
        amount = (between.T if inwards else between)[source, target]
        bandwidth = self._topology.links.bandwidth
        load = np.bincount(links, np.repeat(amount, np.diff(start)), len(bandwidth))
        return float((load / bandwidth).max() / scale)

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


def offered(topology: Topology) -> str:
    """Return the name of algorithms that may be the best ones on a machine, as `named` does; "" where others are.

    On a tree they are no better than others are; on more than MOST_CHOSEN ranks nobody waits for them unasked.
    """
    graph = graph_of(topology)
    many = topology.size > MOST_CHOSEN
    return "" if many or topology.size < 3 or tree_of(graph.with_twins_merged()) is not None else named(topology)


def named(topology: Topology) -> str:
    """Return the name by which algorithms for a machine are found: "packed(torus:4x4)".

    What cannot be loaded by the machine's name is kept for this process under its name and a digest of its links.
    """
    name = re.sub(r"[ ()]", "", topology.name)
    try:
        known = _digest(load(name)) == _digest(topology)
    except InvalidArgument:
        known = False
    if not known:
        name = f"{name}#{_digest(topology)}"
        _kept[name] = topology
        while len(_kept) > _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
    return f"packed({name})"


@lru_cache(maxsize=_MOST_KEPT)
def packer(machine: str) -> Packer:
    """Return what packs trees on a machine.

    Args:
        machine: as `pycomm.topology.load` takes it, without spaces; or what `named` has given.

    Raises:
        InvalidArgument: there is no such machine, or its ranks are too many.
    """
    if machine in _kept:
        return Packer(machine, _kept[machine])
    topology = load(machine)
    of_file = PurePath(machine.partition(",")[0]).suffix in (".toml", ".xml")
    return Packer(f"{machine}#{_digest(topology)}" if of_file else machine, topology)


def _digest(topology: Topology) -> str:
    """Return what tells apart machines on which other trees may be packed: eight hexadecimal digits."""
    links = topology.links
    parts = (np.array([topology.size, topology.vertices]), links.source, links.target, links.bandwidth, links.latency)
    return blake2b(b"".join(part.tobytes() for part in parts), digest_size=4).hexdigest()
