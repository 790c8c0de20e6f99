"""A machine wired by hand, or by a file: named ranks and switches, and the cables between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InvalidArgument
from .build import nest
from .check import smallest_period
from .model import Ids, Links, Routing, Topology
from .routing import Graph, Tree


class Board:
    """What is there so far; ranks are numbered as they are put down."""

    def __init__(self) -> None:
        self._ranks: dict[str, int] = {}  # the host of each
        self._switches: dict[str, None] = {}
        # (from, to, kind) -> (bytes per second, seconds): parallel cables are one link
        self._links: dict[tuple[str, str, str], tuple[float, float]] = {}

    @property
    def names(self) -> list[str]:
        """What all vertices are called, ranks first."""
        return [*self._ranks, *self._switches]

    def rank(self, name: str, host: int) -> None:
        """Put down a rank."""
        self._new(name)
        self._ranks[name] = host

    def switch(self, name: str) -> None:
        """Put down a switch, or whatever else passes on messages."""
        self._new(name)
        self._switches[name] = None

    def _new(self, name: str) -> None:
        if name in self._ranks or name in self._switches:
            raise InvalidArgument(f"there are two things called {name!r}")

    def link(self, source: str, target: str, kind: str, bandwidth: float, latency: float) -> None:
        """Add one direction of a cable between two things that have been put down."""
        before = self._links.get((source, target, kind), (0.0, latency))
        self._links[source, target, kind] = (before[0] + bandwidth, before[1])

    def cable(self, one: str, other: str, kind: str, bandwidth: float, latency: float) -> None:
        """Add both directions of a cable."""
        self.link(one, other, kind, bandwidth, latency)
        self.link(other, one, kind, bandwidth, latency)

    def topology(self, name: str, near: Sequence[Sequence[int]] = ()) -> Topology:
        """Return the machine; reductions are free on it.

        Args:
            name: for reports.
            near: what is near beyond hosts, the coarsest first: for each rank a number, equal for near ones.

        Raises:
            InvalidArgument: there are no ranks, or some cannot be reached.
        """
        size, names = len(self._ranks), self.names
        if not size:
            raise InvalidArgument("there are no ranks")
        number = {vertex: index for index, vertex in enumerate(names)}
        kinds = tuple(dict.fromkeys(kind for _, _, kind in self._links))
        if len(kinds) > 256:
            raise InvalidArgument(f"{len(kinds)} kinds of links are too many: there may be 256")
        links = Links(
            np.array([number[source] for source, _, _ in self._links], np.int32),
            np.array([number[target] for _, target, _ in self._links], np.int32),
            np.array([bandwidth for bandwidth, _ in self._links.values()], float),
            np.array([latency for _, latency in self._links.values()], float),
            np.array([kinds.index(kind) for _, _, kind in self._links], np.uint8),
        )
        host = np.array(list(self._ranks.values()), np.int32)
        routing: Routing = _tree(size, len(names), links) or Graph(size, len(names), links)
        groups = nest([*(np.asarray(partition, np.int32) for partition in near), host])
        free = np.full(size, np.inf)
        return smallest_period(Topology(name, size, len(names), links, kinds, routing, groups, host, free, size, names))


def _tree(size: int, vertices: int, links: Links) -> Tree | None:
    """Return the routing of a tree with the ranks as leaves, None if this is no such tree."""
    ends = list(zip(links.source.tolist(), links.target.tolist(), strict=True))
    number = {pair: link for link, pair in enumerate(ends)}
    if len(ends) != 2 * (vertices - 1) or len(number) != len(ends) or vertices == size:
        return None
    near: list[list[int]] = [[] for _ in range(vertices)]
    for source, target in ends:
        if (target, source) not in number:
            return None
        near[source].append(target)
    if any(len(near[rank]) != 1 for rank in range(size)):
        return None
    parent: Ids = np.full(vertices, -1, np.int32)
    reached = [size]  # the first switch is as good a root as any
    for vertex in reached:
        below = [other for other in near[vertex] if other != parent[vertex]]
        parent[below] = vertex
        reached += below
        if len(reached) > vertices:
            return None
    if len(reached) < vertices:
        return None
    up, down = np.zeros((2, vertices), np.int32)
    for vertex in reached[1:]:
        up[vertex], down[vertex] = number[vertex, int(parent[vertex])], number[int(parent[vertex]), vertex]
    return Tree(size, parent, up, down)
