"""The part of a machine that one of many equal groups of ranks has, while all of them communicate at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from ..schedules.registry import Groups
from ..topology import Ends, Links, Paths, Topology
from ..topology.build import nest
from ..topology.check import smallest_period
from ..topology.routing import Hosts, Tree
from .cluster import Ranks, Reals

_PAIRS = 1 << 17  # of ranks whose ways are looked at
_ALL_PAIRS = 256  # ranks of a group, up to which all ways of its messages are made beforehand


@dataclass(frozen=True, eq=False)
class Share:
    """What one group has.

    Attributes:
        topology: of its ranks alone, numbered from 0; each link has an equal part of its bandwidth for each group that
            crosses it.
        ranks: of the machine.
        crossed: how many groups cross each link of `topology`.
    """

    topology: Topology
    ranks: Ranks
    crossed: npt.NDArray[np.int64]

    @cached_property
    def mark(self) -> bytes:
        """What tells it from other parts of the same machine, or of one that has other links."""
        arrays = (self.ranks, self.crossed, *self.topology.links, self.topology.reduce_rate)
        return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).digest()


def share(topology: Topology, groups: Ranks) -> Share:
    """Return what the worst off of some groups has: its narrowest link is the narrowest; of several, the first.

    Args:
        topology: the machine.
        groups: the ranks of each, shape (groups, ranks of each); each has two ranks or more.
    """
    key, crossed = _crossings(topology, groups)
    owner, link = key // len(crossed), key % len(crossed)
    per_byte = crossed / topology.links.bandwidth
    heads = np.flatnonzero(np.diff(owner, prepend=-1))
    widest = np.maximum.reduceat(per_byte[link], heads)
    together = np.add.reduceat(per_byte[link], heads)
    worst = int(np.lexsort((-np.round(together, 15), -widest))[0])
    ranks = groups[owner[heads[worst]]]
    bandwidth = topology.links.bandwidth / np.maximum(crossed, 1)
    whole = replace(topology, links=topology.links._replace(bandwidth=bandwidth))
    part, kept = _restricted(whole, ranks)
    return Share(smallest_period(part), ranks, np.maximum(crossed, 1)[kept])


def _crossings(topology: Topology, groups: Ranks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the links that each group uses, as group * links + link in order; and how many groups use each link.

    Messages to the next rank of the group cross all of a tree's links that any could. For other machines, messages to
    ranks 2, 4, 8, ... farther are looked at too, as far as there is room.
    """
    count, size = groups.shape
    nlinks = len(topology.links.source)
    found = []
    for step in [1 << k for k in range((size - 1).bit_length())][: max(1, _PAIRS // groups.size)]:
        paths = topology.paths(groups.reshape(-1), np.roll(groups, -step, axis=1).reshape(-1))
        owner = np.repeat(np.repeat(np.arange(count, dtype=np.int64), size), np.diff(paths.start))
        found.append(np.unique(owner * nlinks + paths.links))
    key = np.unique(np.concatenate(found)) if len(found) > 1 else found[0]
    return key, np.bincount(key % nlinks, minlength=nlinks)


def _restricted(whole: Topology, ranks: Ranks) -> tuple[Topology, npt.NDArray[np.int64]]:
    """Return the machine of some ranks alone, with the links that their messages may take; and which links these are.

    All other ranks are left out, or become switches where messages pass them.
    """
    links = whole.links
    kept = np.flatnonzero(_usable(whole, ranks))
    place = np.full(whole.vertices, -1, np.int32)
    place[ranks] = np.arange(len(ranks), dtype=np.int32)
    ends = np.unique(np.concatenate([links.source[kept], links.target[kept]]))
    others = ends[place[ends] < 0]
    place[others] = np.arange(len(ranks), len(ranks) + len(others), dtype=np.int32)
    number = np.full(len(links.source), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    own = Links(
        place[links.source[kept]], place[links.target[kept]], links.bandwidth[kept], links.latency[kept],
        links.kind[kept],
    )  # fmt: skip
    near = [partition[ranks] for partition in _partitions(whole.groups, whole.size)]
    near.append(np.arange(len(ranks), dtype=np.int32))
    host = np.unique(whole.host[ranks], return_inverse=True)[1].astype(np.int32)
    part = Topology(
        whole.name, len(ranks), len(ranks) + len(others), own, whole.kinds, _Some(whole, ranks, number),
        nest(near), host,
        whole.reduce_rate[ranks], len(ranks), [whole.label(int(v)) for v in [*ranks, *others]],
    )  # fmt: skip
    return part, kept


class _Some:
    """Routing among some ranks of a machine, which takes the ways that it takes there.

    Args:
        whole: the machine.
        ranks: which.
        number: of each link of the machine, its number among those that are kept.
    """

    def __init__(self, whole: Topology, ranks: Ranks, number: Ranks) -> None:
        self._whole, self._ranks, self._number = whole, ranks, number

    def paths(self, source: Ranks, target: Ranks) -> Paths:
        """Return the paths of pairs of ranks."""
        start, links = self._whole.paths(self._ranks[source], self._ranks[target])
        return Paths(start, self._number[links])

    def sums(self, links: Links, source: Ranks, target: Ranks) -> Ends:
        """Return what they come to."""
        ends = self._whole.ends(self._ranks[source], self._ranks[target])
        first, last = (np.where(source == target, 0, self._number[end]) for end in (ends.first, ends.last))
        return ends._replace(first=first, last=last)


def _usable(whole: Topology, ranks: Ranks) -> npt.NDArray[np.bool_]:
    """Return which links messages among some ranks may take."""
    links, size = whole.links, len(ranks)
    if size <= _ALL_PAIRS:
        used = np.zeros(len(links.source), np.bool_)
        used[whole.paths(np.repeat(ranks, size), np.tile(ranks, size)).links] = True
        return used
    used = np.ones(len(links.source), np.bool_)
    if not isinstance(whole.routing, Tree | Hosts) or _relays(whole):
        return used
    stays = np.ones(whole.vertices, np.bool_)  # no message passes another rank, nor a switch with one neighbour
    stays[: whole.size] = False
    stays[ranks] = True
    while True:
        used = stays[links.source] & stays[links.target]
        near = np.bincount(links.source[used], minlength=whole.vertices)
        ends = stays & (near < 2)
        ends[: whole.size] = False
        if not ends.any():
            return used
        stays &= ~ends


def _relays(topology: Topology) -> bool:
    return isinstance(topology.routing, Hosts) and topology.routing.relay


@lru_cache(maxsize=4)
def _partitions(groups: Groups, size: int) -> list[Ranks]:
    """Return a number for each rank, equal for those of a group of near ranks, the widest groups first."""
    found: list[Ranks] = []
    level: list[Groups] = [group for group in groups if isinstance(group, tuple)]
    while level:
        numbers = np.zeros(size, np.int32)
        for number, group in enumerate(level):
            numbers[_members(group)] = number
        found.append(numbers)
        level = [inner for group in level for inner in group if isinstance(inner, tuple)]
    return found


def _members(group: Groups) -> list[int]:
    return [rank for inner in group for rank in (_members(inner) if isinstance(inner, tuple) else [inner])]


def widths(share: Share) -> Reals:
    """Return how fast each rank of a group can send, in bytes a second: over all links that leave it."""
    links, size = share.topology.links, share.topology.size
    own = links.source < size
    found: Reals = np.bincount(links.source[own], links.bandwidth[own], minlength=size).astype(np.float64)
    return found
