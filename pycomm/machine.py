"""What all ranks of a communicator know of the machine that they run on, and of each other's places on it."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .table import Table


@dataclass(frozen=True, eq=False)
class Machine:
    """Where ranks run; the same on all of them.

    Attributes:
        hosts: the ranks of each host.
        processors: of each host, as many as its ranks may use together.
        shared: whether the ranks of a host reach each other through its memory; if not, through sockets.
        table: what was learnt on such a machine.
        name: of a described machine; "" for one that ranks run on.
    """

    hosts: tuple[tuple[int, ...], ...]
    processors: tuple[int, ...]
    shared: bool = True
    table: Table = field(default_factory=Table)
    name: str = ""

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
        return f"on {self.name}" if self.name else ways.get(self.transport, among)

    def among(self, places: Mapping[int, int]) -> Machine:
        """Return the machine of those ranks alone that have a place, by their places."""
        kept = [(tuple(sorted(places[r] for r in ranks if r in places)), count)
                for ranks, count in zip(self.hosts, self.processors, strict=True)]  # fmt: skip
        kept = sorted(pair for pair in kept if pair[0])
        return replace(self, hosts=tuple(ranks for ranks, _ in kept), processors=tuple(count for _, count in kept))


def one_host(size: int, processors: int | None = None, *, shared: bool = True, table: Table | None = None) -> Machine:
    """Return a host with all ranks.

    Args:
        size: ranks.
        processors: that they may use; None: those that this process may use.
        shared, table: see Machine.
    """
    count = len(os.sched_getaffinity(0)) if processors is None else processors
    return Machine((tuple(range(size)),), (count,), shared, table or Table())


def by_host(names: Sequence[bytes], processors: Sequence[int], *, shared: bool, table: Table) -> Machine:
    """Return the machine of ranks that tell the name of their host, and which of its processors they may use.

    Args:
        names: one a rank.
        processors: bit k of a rank's number says that it may use processor k; ranks may be bound to different ones.
        shared, table: see Machine.
    """
    ranks: dict[bytes, list[int]] = {}
    for rank, name in enumerate(names):
        ranks.setdefault(name, []).append(rank)
    hosts = tuple(map(tuple, ranks.values()))
    counts = (functools.reduce(operator.or_, (processors[r] for r in ranks)).bit_count() for ranks in hosts)
    return Machine(hosts, tuple(counts), shared, table)
