"""What all ranks of a communicator know of the machine that they run on, and of each other's places on it."""

from __future__ import annotations

import functools
import json
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InvalidArgument
from ..schedules.registry import Groups
from .network import Network
from .places import ANYWHERE, Place
from .table import Table

OFFLOAD = "mpi"  # the name, among algorithms, of what MPI runs itself


@dataclass(frozen=True)
class Native:
    """What MPI's own collectives are worth, on the ranks of one of its communicators.

    Attributes:
        curves: for each collective, pairs of a size (bytes of the larger of a rank's two buffers), ascending, and the
            time that MPI's takes over the time that ours, as it is chosen, takes.
    """

    curves: tuple[tuple[str, tuple[tuple[int, float], ...]], ...] = ()

    def ratio(self, collective: str, nbytes: int) -> float | None:
        """Return the ratio at a size, between those that were measured; None: MPI has no such collective."""
        curve = dict(self.curves).get(collective)
        if not curve:
            return None
        sizes, ratios = zip(*curve, strict=True)
        return float(np.interp(math.log2(max(1, nbytes)), np.log2(np.maximum(1, sizes)), ratios))

    def dumps(self) -> str:
        """Return it as JSON."""
        return json.dumps(dict(self.curves))

    @classmethod
    def loads(cls, text: str) -> Native:
        """Return what `dumps` has written.

        Raises:
            InvalidArgument: it is something else.
        """
        try:
            return cls(tuple((str(name), tuple((int(size), float(ratio)) for size, ratio in curve))
                             for name, curve in json.loads(text).items()))  # fmt: skip
        except (AttributeError, TypeError, ValueError) as why:
            raise InvalidArgument(f"this is no measurement of MPI's collectives: {why}") from None


@dataclass(frozen=True, eq=False)
class Machine:
    """Where ranks run; the same on all of them.

    Attributes:
        hosts: the ranks of each host.
        processors: of each host, as many as its ranks may use together.
        shared: whether the ranks of a host reach each other through its memory; if not, through sockets.
        table: what was learnt on such a machine.
        name: of a described machine; "" for one that ranks run on.
        network: what is between the hosts; None: nobody measured it, or there is one host only.
        places: of each rank, on its host; empty: nobody knows.
        packed: of a described machine whose links make no tree, the name of algorithms that are packed for it.
        mpi: whether ranks that share no memory of ours, if there are any, reach each other through MPI.
        native: what MPI's own collectives are worth; None: there are none, or nobody measured them.
    """

    hosts: tuple[tuple[int, ...], ...]
    processors: tuple[int, ...]
    shared: bool = True
    table: Table = field(default_factory=Table)
    name: str = ""
    network: Network | None = None
    places: tuple[Place, ...] = ()
    packed: str = ""
    mpi: bool = False
    native: Native | None = None

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return sum(map(len, self.hosts))

    @property
    def crowded(self) -> bool:
        """Whether some host has more ranks than processors."""
        return any(len(ranks) > count for ranks, count in zip(self.hosts, self.processors, strict=True))

    @property
    def far(self) -> bool:
        """Whether some ranks reach each other through sockets only."""
        return len(self.hosts) > 1 or not self.shared

    def host_of(self, rank: int) -> int:
        """Return the number of a rank's host."""
        return next(number for number, ranks in enumerate(self.hosts) if rank in ranks)

    @functools.cached_property
    def groups(self) -> Groups:
        """Ranks that are near each other, nested: those of a host; where there are several sites, those of a site.

        Within a host they are as in `near`.
        """
        sites = self.network.sites if self.network else ()
        return tuple(tuple(self.near[host] for host in site) for site in sites) if len(sites) > 1 else self.near

    @functools.cached_property
    def near(self) -> tuple[Groups, ...]:
        """The ranks of each host, nested: those of a socket, a memory node, a last-level cache.

        That is where all are bound, to several of these, and some have one in common.
        """
        return tuple(_nested(ranks, self.places) for ranks in self.hosts)

    @functools.cached_property
    def levels(self) -> int:
        """How many levels there are at which some ranks are nearer to each other than to others, and the last one."""
        return _height(self.groups) - (len(self.hosts) == 1)

    @property
    def grouped(self) -> bool:
        """Whether some ranks are nearer to each other than to others."""
        alone = all(len(ranks) == 1 for ranks in self.hosts)
        return self.levels > 1 and not alone

    @functools.cached_property
    def transport(self) -> str:
        """How ranks reach each other: "shm", "tcp", or "mixed"."""
        if not self.far:
            return "shm"
        return "mixed" if self.shared and any(len(ranks) > 1 for ranks in self.hosts) else "tcp"

    def __str__(self) -> str:
        """Return how ranks reach each other, for people."""
        ways = {"shm": "over shared memory", "tcp": "over sockets"}
        among = f"on {len(self.hosts)} hosts, over shared memory within and sockets between"
        text = ways.get(self.transport, among)
        return f"on {self.name}" if self.name else text.replace("sockets", "MPI") if self.mpi else text

    def among(self, places: Mapping[int, int]) -> Machine:
        """Return the machine of those ranks alone that have a place, by their places."""
        kept = [(tuple(sorted(places[r] for r in ranks if r in places)), count, number)
                for number, (ranks, count) in enumerate(zip(self.hosts, self.processors, strict=True))]  # fmt: skip
        hosts, processors, numbers = zip(*sorted(one for one in kept if one[0]), strict=True)
        network = self.network.among(numbers) if self.network and len(hosts) > 1 else None
        bound = tuple(self.places[rank] for rank in sorted(places, key=places.__getitem__)) if self.places else ()
        native = self.native if len(places) == self.size else None  # which was measured among all ranks
        return replace(self, hosts=hosts, processors=processors, network=network, places=bound, native=native)


def one_host(size: int, processors: int | None = None, *, shared: bool = True, table: Table | None = None) -> Machine:
    """Return a host with all ranks.

    Args:
        size: ranks.
        processors: that they may use; None: those that this process may use.
        shared, table: see Machine.
    """
    count = len(os.sched_getaffinity(0)) if processors is None else processors
    return Machine((tuple(range(size)),), (count,), shared, table or Table())


def by_host(
    names: Sequence[bytes], processors: Sequence[int], places: Sequence[Place], *, shared: bool, table: Table
) -> Machine:
    """Return the machine of ranks that tell the name of their host, and which of its processors they may use.

    Args:
        names: one a rank.
        processors: bit k of a rank's number says that it may use processor k; ranks may be bound to different ones.
        places: of each rank, on its host.
        shared, table: see Machine.
    """
    ranks: dict[bytes, list[int]] = {}
    for rank, name in enumerate(names):
        ranks.setdefault(name, []).append(rank)
    hosts = tuple(map(tuple, ranks.values()))
    counts = (functools.reduce(operator.or_, (processors[r] for r in ranks)).bit_count() for ranks in hosts)
    return Machine(hosts, tuple(counts), shared, table, places=tuple(places))


def _nested(ranks: tuple[int, ...], places: Sequence[Place]) -> Groups:
    """Return the ranks of a host in groups, at each level that parts them and at which some stay together."""
    for level in range(len(Place._fields) if places else 0):
        parts: dict[int, list[int]] = {}
        for rank in ranks:
            parts.setdefault(places[rank][level], []).append(rank)
        if ANYWHERE not in parts and 1 < len(parts) < len(ranks):
            return tuple(_nested(tuple(part), places) for part in parts.values())
    return ranks


def _height(groups: Groups) -> int:
    return 1 + max(_height(group) if isinstance(group, tuple) else 0 for group in groups)
