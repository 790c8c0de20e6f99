"""What a described machine is: ranks, switches, directed links between them, and how messages are routed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..schedules.registry import Groups

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class Links(NamedTuple):
    """Directed links, one array element each.

    Attributes:
        source, target: vertices; 0 to size - 1 are ranks, the others are switches.
        bandwidth: bytes per second.
        latency: seconds.
        kind: index into `Topology.kinds`.
    """

    source: Ids
    target: Ids
    bandwidth: Reals
    latency: Reals
    kind: npt.NDArray[np.uint8]


class Paths(NamedTuple):
    """The links that messages take: message i takes links[start[i] : start[i + 1]], in this order."""

    start: Offsets
    links: Ids


class Ends(NamedTuple):
    """What a message's path comes to, one array element a message; all zeros where a rank sends to itself.

    Attributes:
        latency: seconds, of all links together.
        bandwidth: bytes per second, of the narrowest link.
        first, last: the links that leave the source and enter the target.
    """

    latency: Reals
    bandwidth: Reals
    first: Ids
    last: Ids


class Routing(Protocol):
    """Finds paths; one class for each family of topologies, so that 100,000 ranks need no table of pairs."""

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the path of each pair of ranks (vectorised); a rank to itself takes none."""
        ...


@runtime_checkable
class Short(Routing, Protocol):
    """Routing that knows what paths come to without making them, which is worth it for millions of messages."""

    def sums(self, links: Links, source: Ids, target: Ids) -> Ends:
        """Return what the path of each pair of ranks comes to (vectorised)."""
        ...


@dataclass(frozen=True, eq=False)
class Topology:
    """A machine on which schedules can be priced.

    Attributes:
        name: what reports call it, e.g. "fat-tree:1024".
        size: ranks, which are vertices 0 to size - 1.
        vertices: ranks and switches together.
        links: the directed links.
        kinds: names of the kinds of links, e.g. ("nvlink", "nic", "leaf-spine").
        routing: finds the paths.
        groups: nested tuples of near ranks, as hierarchical algorithms take them (see `pycomm.schedules.view.emit`).
        host: the host number of each rank.
        reduce_rate: bytes per second that each rank reduces; inf: reductions are free.
        period: renumbering all ranks r -> r + period (mod size) changes nothing; `size` if no smaller one is known.
            Claimed by whoever made the topology, checked by `check_period`.
        labels: names of vertices for drawings and sentences; empty: "rank 3", "switch 9".
    """

    name: str
    size: int
    vertices: int
    links: Links
    kinds: tuple[str, ...]
    routing: Routing
    groups: Groups
    host: Ids
    reduce_rate: Reals
    period: int
    labels: Sequence[str] = field(default=())

    def paths(self, source: npt.ArrayLike, target: npt.ArrayLike) -> Paths:
        """Return the path of each pair of ranks."""
        return self.routing.paths(np.asarray(source, np.int32), np.asarray(target, np.int32))

    def ends(self, source: npt.ArrayLike, target: npt.ArrayLike) -> Ends:
        """Return what the path of each pair of ranks comes to."""
        if isinstance(self.routing, Short):
            return self.routing.sums(self.links, np.asarray(source, np.int32), np.asarray(target, np.int32))
        start, links = self.paths(source, target)
        going = np.flatnonzero(start[1:] > start[:-1])
        ends = Ends(*(np.zeros(len(start) - 1, dtype) for dtype in (float, float, np.int32, np.int32)))
        if len(going):
            heads = start[going]
            ends.latency[going] = np.add.reduceat(self.links.latency[links], heads)
            ends.bandwidth[going] = np.minimum.reduceat(self.links.bandwidth[links], heads)
            ends.first[going], ends.last[going] = links[heads], links[start[going + 1] - 1]
        return ends

    def label(self, vertex: int) -> str:
        """Return the name of a vertex: "rank 3", "switch 9", or what the description calls it."""
        if len(self.labels):
            return self.labels[vertex]
        return f"rank {vertex}" if vertex < self.size else f"switch {vertex}"


def flat(
    size: int, *, bandwidth: float, latency: float, reduce_rate: float = float("inf"), name: str | None = None
) -> Topology:
    """Return ranks on one switch that is never the bottleneck: each has a full-duplex port, half the latency each way.

    Args:
        size: ranks.
        bandwidth: bytes per second of each port and direction.
        latency: seconds from rank to rank.
        reduce_rate: bytes per second that a rank reduces.
        name: for reports.
    """
    ranks = np.arange(size, dtype=np.int32)
    switch = np.full(size, size, np.int32)
    links = Links(
        np.concatenate([ranks, switch]),
        np.concatenate([switch, ranks]),
        np.full(2 * size, float(bandwidth)),
        np.full(2 * size, latency / 2),
        np.zeros(2 * size, np.uint8),
    )
    return Topology(
        name or f"flat:{size}", size, size + 1, links, ("port",), _Star(size), tuple(range(size)),
        ranks.copy(), np.full(size, float(reduce_rate)), 1,
    )  # fmt: skip


class _Star:
    """Up to the one switch and down: link r is rank r's way up, link size + r its way down."""

    def __init__(self, size: int) -> None:
        self.size = size

    def sums(self, links: Links, source: Ids, target: Ids) -> Ends:
        first, last, apart = source, target + np.int32(self.size), source != target
        latency = links.latency[first] + links.latency[last]
        bandwidth = np.minimum(links.bandwidth[first], links.bandwidth[last])
        return Ends(*(np.where(apart, part, 0) for part in (latency, bandwidth, first, last)))

    def paths(self, source: Ids, target: Ids) -> Paths:
        apart = source != target
        links = np.stack([source, target + np.int32(self.size)], axis=1)[apart].reshape(-1)
        start: Any = np.concatenate([[0], np.cumsum(2 * apart)])
        return Paths(start.astype(np.int64), links.astype(np.int32))
