"""A topology as cuts see it: vertices that stand for ranks, and what can pass from one to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..topology import Topology

Ids = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_UNLIMITED = 1000.0  # times all other capacities


@dataclass(frozen=True, eq=False)
class Graph:
    """Vertices and directed arcs, at most one for each ordered pair, ascending by (source, target).

    Attributes:
        n: vertices.
        source, target: of each arc.
        capacity: bytes per second; of parallel links together.
        latency: seconds; the least of parallel links.
        weight: how many ranks a vertex stands for.
        lowest, highest: of those ranks (`no rank`: p and -1).
        vertex_of: the vertex that stands for each vertex of the topology.
    """

    n: int
    source: Ids
    target: Ids
    capacity: Reals
    latency: Reals
    weight: Ids
    lowest: Ids
    highest: Ids
    vertex_of: Ids

    @cached_property
    def symmetric(self) -> bool:
        """Whether each arc has one back, of the same capacity."""
        order = np.lexsort((self.source, self.target))
        same = np.array_equal(self.source[order], self.target) and np.array_equal(self.target[order], self.source)
        return same and bool(np.allclose(self.capacity[order], self.capacity, rtol=1e-12, atol=0))

    @property
    def ranked(self) -> Ids:
        """The vertices that stand for ranks."""
        return np.flatnonzero(self.weight)

    def leaving(self, side: Mask) -> float:
        """Return the capacity of the arcs that leave a set of vertices."""
        return float(self.capacity[side[self.source] & ~side[self.target]].sum())

    @cached_property
    def finite(self) -> Graph:
        """The graph with a capacity for unlimited arcs that is more than all others together."""
        unlimited = np.isinf(self.capacity)
        if not unlimited.any():
            return self
        enough = _UNLIMITED * float(self.capacity[~unlimited].sum() or 1.0)
        return replace(self, capacity=np.where(unlimited, enough, self.capacity))

    def owners(self) -> Ids:
        """Return for each vertex the vertex of ranks to which more than half of its capacity goes; -1: none."""
        owner = np.where(self.weight > 0, np.arange(self.n), -1)
        total = np.bincount(self.source, self.capacity, self.n)
        while True:
            free = (owner[self.source] < 0) & (owner[self.target] >= 0)
            key = self.source[free] * self.n + owner[self.target[free]]
            pairs, at = np.unique(key, return_inverse=True)
            share = np.bincount(at.reshape(-1), self.capacity[free], len(pairs))
            most = share > total[pairs // self.n] / 2
            if not most.any():
                return owner
            owner[pairs[most] // self.n] = pairs[most] % self.n

    def reversed(self) -> Graph:
        """Return the graph with all arcs turned around."""
        return _graph(
            self.n, self.target, self.source, self.capacity, self.latency,
            self.weight, self.lowest, self.highest, self.vertex_of,
        )  # fmt: skip

    def merged(self, classes: npt.ArrayLike) -> Graph:
        """Return the graph whose vertices are classes of this one's; arcs inside of a class vanish."""
        _, found = np.unique(np.asarray(classes), return_inverse=True)
        number = found.reshape(-1).astype(np.int64)
        n = int(number.max()) + 1
        lowest, highest = np.full(n, self.lowest.max()), np.full(n, -1)
        np.minimum.at(lowest, number, self.lowest)
        np.maximum.at(highest, number, self.highest)
        weight = np.bincount(number, self.weight, n).astype(np.int64)
        return _graph(
            n, number[self.source], number[self.target], self.capacity, self.latency,
            weight, lowest, highest, number[self.vertex_of],
        )  # fmt: skip

    def with_twins_merged(self, apart: Ids | None = None) -> Graph:
        """Return the graph with those vertices merged that no cut needs to tell apart; without `apart`, switches only.

        Classes of vertices whose members all have the same arcs to every other class (the coarsest equitable
        partition, found by refining colours) may be replaced by one vertex each: replacing the potentials of a
        fractional cut by their means over the classes does not raise its capacity, because max(0, x - y) is convex
        (Grohe, Kersting, Mladenov and Selman, "Dimension reduction via colour refinement", ESA 2014). So the spines of
        a fat tree, or of each of its planes, become one. With `apart`, only those vertices are told from others of
        equal weight: for cuts that have these on one side and treat all other ranks alike.
        """
        colour = self.weight.copy()
        told_apart = self.ranked if apart is None else apart
        colour[told_apart] = -1 - np.arange(len(told_apart))
        return self.merged(self._refined(colour))

    def _refined(self, colour: Ids) -> Ids:
        """Split classes of vertices until the members of each have equal arcs to every other class."""
        amount = self.capacity.view(np.uint64)
        count = -1
        while True:
            _, found = np.unique(colour, return_inverse=True)
            colour = found.reshape(-1).astype(np.int64)
            if colour.max() == count:
                return colour
            count = int(colour.max())
            seen = colour.astype(np.uint64)
            key = _mix(seen)
            np.add.at(key, self.source, _mix(_mix(amount + seen[self.target]) + np.uint64(1)))
            np.add.at(key, self.target, _mix(_mix(amount + seen[self.source]) + np.uint64(2)))
            colour = key.view(np.int64)

    def distances(self, starts: npt.ArrayLike, lengths: Reals | None = None) -> Reals:
        """Return the length of the shortest way from each start to each vertex: an array of starts x vertices.

        Args:
            starts: vertices.
            lengths: of the arcs; their latencies if not given.
        """
        first = np.asarray(starts, np.int64).reshape(-1)
        out = np.full((len(first), self.n), np.inf)
        out[np.arange(len(first)), first] = 0
        order = np.argsort(self.target, kind="stable")
        source, step = self.source[order], (self.latency if lengths is None else lengths)[order]
        reached, begin = np.unique(self.target[order], return_index=True)
        while len(begin):
            best = np.minimum.reduceat(out[:, source] + step, begin, axis=1)
            if not (best < out[:, reached]).any():
                break
            out[:, reached] = np.minimum(out[:, reached], best)
        return out


def graph_of(topology: Topology) -> Graph:
    """Return the graph of a topology; vertex numbers are the same."""
    links, n = topology.links, topology.vertices
    ids = np.arange(n, dtype=np.int64)
    is_rank = ids < topology.size
    return _graph(
        n, links.source.astype(np.int64), links.target.astype(np.int64), links.bandwidth, links.latency,
        is_rank.astype(np.int64), np.where(is_rank, ids, topology.size), np.where(is_rank, ids, -1), ids,
    )  # fmt: skip


def _graph(
    n: int, source: Ids, target: Ids, capacity: Reals, latency: Reals,
    weight: Ids, lowest: Ids, highest: Ids, vertex_of: Ids,
) -> Graph:  # fmt: skip
    """Merge parallel arcs, drop loops and arcs that carry nothing."""
    useful = (source != target) & (capacity > 0)
    key = source[useful] * n + target[useful]
    order = np.argsort(key, kind="stable")
    pairs, begin = np.unique(key[order], return_index=True)
    total = np.add.reduceat(capacity[useful][order], begin) if len(begin) else np.empty(0)
    least = np.minimum.reduceat(latency[useful][order], begin) if len(begin) else np.empty(0)
    return Graph(n, pairs // n, pairs % n, total, least, weight, lowest, highest, vertex_of)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    """Spread the bits of numbers (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
