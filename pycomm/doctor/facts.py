"""What is measured, as data: what each rank sees of itself and its host, what pairs of ranks see of each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..discover.host import say_processors


@dataclass(frozen=True)
class Card:
    """A network interface.

    Attributes:
        name: e.g. "eth0".
        addresses: IPv4 first.
        mtu: bytes of the longest packet; 0: not known.
        rate: bytes per second that it says it has; None: it does not say.
        unusable: why no peer is reached over it, as a predicate ("is down"); "" if nothing speaks against it.
    """

    name: str
    addresses: tuple[str, ...]
    mtu: int
    rate: float | None
    unusable: str


@dataclass(frozen=True)
class Own:
    """What a rank sees of itself and of its host. Limits are in bytes or numbers; None: there is no limit.

    Attributes:
        host: its name.
        identity: what the ranks of one host have in common, and nobody else has.
        transports: that it may use, best first, as PYCOMM_TRANSPORTS has them.
        processors: that it may use, by number.
        online: how many processors the host has.
        descriptors: files and sockets that it may have open, after it has raised the limit itself.
        open: that it has open.
        file_size: of the largest file that it may write; shared memory counts as one.
        memlock: bytes of memory that it may keep from being swapped.
        memory: bytes that are free on the host, or in the control group of the rank if that has fewer.
        shm: bytes that are free in /dev/shm; None: there is none.
        reads_peers: whether one process of the host may read another's memory.
        tcp_receive, tcp_send: bytes that the kernel lets the buffers of a connection grow to; 0: not known.
        cards: interfaces of the host.
    """

    host: str
    identity: str
    transports: tuple[str, ...]
    processors: tuple[int, ...]
    online: int
    descriptors: int | None
    open: int
    file_size: int | None
    memlock: int | None
    memory: int
    shm: int | None
    reads_peers: bool
    tcp_receive: int
    tcp_send: int
    cards: tuple[Card, ...]

    def card_of(self, address: str) -> Card | None:
        """Return the interface that has an address."""
        return next((card for card in self.cards if address in card.addresses), None)


@dataclass(frozen=True)
class Pair:
    """What two ranks see of each other.

    Attributes:
        a, b: the ranks, a < b.
        transport: what moves their messages; "" if nothing does.
        latency: seconds that a short message takes one way, at best.
        there, back: bytes per second from a to b, and from b to a.
        ahead: seconds that b's clock is ahead of a's, give or take the latency.
        ends: addresses of a and of b, of each network that they use; none where messages go through memory.
        failed: why they could not be measured; "" if they could. The numbers are then 0.
    """

    a: int
    b: int
    transport: str
    latency: float = 0.0
    there: float = 0.0
    back: float = 0.0
    ahead: float = 0.0
    ends: tuple[tuple[str, str], ...] = ()
    failed: str = ""

    @property
    def rate(self) -> float:
        """Bytes per second in the slower direction."""
        return min(self.there, self.back)


@dataclass(frozen=True)
class Facts:
    """All that is known of a job.

    Attributes:
        owns: what each rank sees, by rank.
        pairs: those that were measured.
    """

    owns: tuple[Own, ...]
    pairs: tuple[Pair, ...]

    @cached_property
    def hosts(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each host."""
        return hosts_of([own.identity for own in self.owns])

    @cached_property
    def host_of(self) -> Mapping[int, int]:
        """The number of each rank's host."""
        return {rank: number for number, ranks in enumerate(self.hosts) for rank in ranks}

    def name(self, rank: int) -> str:
        """Return a rank for people: "rank 3 (node1)"; where there is one host, without it."""
        return f"rank {rank} ({self.owns[rank].host})" if len(self.hosts) > 1 else f"rank {rank}"

    def pair_name(self, pair: Pair) -> str:
        """Return a pair for people."""
        return f"{self.name(pair.a)} and {self.name(pair.b)}"

    def near(self, pair: Pair) -> bool:
        """Return whether two ranks are on one host."""
        return self.host_of[pair.a] == self.host_of[pair.b]


def hosts_of(identities: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each host, in the order of their first ranks, from what tells each rank's host."""
    ranks: dict[str, list[int]] = {}
    for rank, identity in enumerate(identities):
        ranks.setdefault(identity, []).append(rank)
    return tuple(map(tuple, ranks.values()))


def say_ranks(ranks: Iterable[int]) -> str:
    """Return ranks for people: "rank 3", "ranks 0-2,8"."""
    listed = frozenset(ranks)
    return f"rank{'s' * (len(listed) > 1)} {say_processors(listed)}"


def pack(value: Own | Sequence[Pair]) -> bytes:
    """Return what is sent to the other ranks."""
    return json.dumps(asdict(value) if isinstance(value, Own) else [asdict(pair) for pair in value]).encode()


def unpack_own(blob: bytes) -> Own:
    """Return what `pack` was given by another rank."""
    found: dict[str, Any] = json.loads(blob)
    cards = tuple(Card(**{**card, "addresses": tuple(card["addresses"])}) for card in found["cards"])
    tuples = {name: tuple(found[name]) for name in ("transports", "processors")}
    return Own(**{**found, **tuples, "cards": cards})


def unpack_pairs(blob: bytes) -> list[Pair]:
    """Return what `pack` was given by another rank."""
    return [Pair(**{**pair, "ends": tuple(map(tuple, pair["ends"]))}) for pair in json.loads(blob)]
