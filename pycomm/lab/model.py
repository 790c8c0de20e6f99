"""What a laboratory consists of: hosts with network cards, sites, the lines between them, and what happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import InvalidArgument

_MOST_HOSTS = 200  # of which each has an address in 10.77.RAIL.0/24
_MOST_RAILS = 16


@dataclass(frozen=True)
class Host:
    """One host.

    Attributes:
        name: its host name.
        nics: bytes per second of each of its cards, both ways each; inf: as fast as it goes. Card k, called ethK, is on
            rail k, a network of its own.
        ranks: how many ranks of a job it takes; None: as many as the others.
        processors: how many of this machine's processors it has; None: an equal part of them, at least one, which it
            may have to share.
        site: where it is; hosts of one site share a switch for each rail.
        delay: seconds that a frame takes between the host and its switch.
        loss: the part of the frames that is lost there, each way.
    """

    name: str
    nics: tuple[float, ...]
    ranks: int | None = None
    processors: int | None = None
    site: str = ""
    delay: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class Trunk:
    """The line between the switches of two sites; each rail has one of its own.

    Attributes:
        sites: the two ends.
        rate: bytes per second, both ways each.
        delay: seconds that a frame takes.
        loss: the part of the frames that is lost, each way.
    """

    sites: tuple[str, str]
    rate: float
    delay: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class Event:
    """What happens to a link while the laboratory is in use: its rate changes, or its cable is pulled or plugged.

    Attributes:
        at: seconds after the start.
        host, nic: which card; host None: a line.
        sites: the ends of the line, which changes on all its rails; None: a card.
        rate: bytes per second from then on; None: as before.
        up: whether the cable is plugged; None: as before.
    """

    at: float
    host: str | None = None
    nic: int = 0
    sites: tuple[str, str] | None = None
    rate: float | None = None
    up: bool | None = None


@dataclass(frozen=True)
class Model:
    """A whole laboratory.

    Attributes:
        name: what reports call it.
        hosts: in the order in which ranks are placed on them.
        trunks: the lines between sites; every two sites need one.
        events: what happens, at any times.
        congestion: TCP's congestion control, as net.ipv4.tcp_congestion_control takes it.
        queue: seconds that a frame waits, at most, in front of a link before it is dropped.
        burst: seconds of its rate that a link passes at once after a rest, and may catch up on if a timer came late.
        seed: of the losses; the same seed loses the same frames, counted from the start.

    Raises:
        InvalidArgument: names are used twice, or something refers to what is not there.
    """

    name: str
    hosts: tuple[Host, ...]
    trunks: tuple[Trunk, ...] = ()
    events: tuple[Event, ...] = ()
    congestion: str = "cubic"
    queue: float = 0.02
    burst: float = 0.5e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < len(self.hosts) <= _MOST_HOSTS:
            raise InvalidArgument(f"a laboratory has 1 to {_MOST_HOSTS} hosts, not {len(self.hosts)}")
        names = [host.name for host in self.hosts]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidArgument(f"there are two hosts called {twice!r}")
        for host in self.hosts:
            if not 0 < len(host.nics) <= _MOST_RAILS:
                raise InvalidArgument(f"host {host.name} has {len(host.nics)} cards: it may have 1 to {_MOST_RAILS}")
        if len({host.ranks is None for host in self.hosts}) > 1:
            raise InvalidArgument("give ranks for all hosts, or for none")
        self._check_trunks()
        for event in self.events:
            if event.sites is not None:
                self.line(event.sites)
            else:
                assert event.host is not None
                self.card(event.host, event.nic)

    def _check_trunks(self) -> None:
        joined = [frozenset(trunk.sites) for trunk in self.trunks]
        for trunk in self.trunks:
            for site in trunk.sites:
                if site not in self.sites:
                    raise InvalidArgument(f"no host is at site {site!r}: the sites are {', '.join(self.sites)}")
        for pair in combinations(self.sites, 2):
            if joined.count(frozenset(pair)) != 1:
                raise InvalidArgument(f"sites {pair[0]!r} and {pair[1]!r} need one line between them")
        if len(joined) > len(self.sites) * (len(self.sites) - 1) // 2:
            raise InvalidArgument("a line joins two different sites")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites."""
        return tuple(dict.fromkeys(host.site for host in self.hosts))

    def rails(self, trunk: Trunk) -> int:
        """Return on how many rails a trunk joins its sites: on those that both have."""
        return min(max(len(host.nics) for host in self.hosts if host.site == site) for site in trunk.sites)

    def line(self, sites: Sequence[str]) -> int:
        """Return the number of the trunk between two sites, given in any order.

        Raises:
            InvalidArgument: there is none.
        """
        for number, trunk in enumerate(self.trunks):
            if sorted(trunk.sites) == sorted(sites):
                return number
        lines = ", ".join(" and ".join(map(repr, trunk.sites)) for trunk in self.trunks) or "no sites"
        raise InvalidArgument(f"there is no line between {' and '.join(map(repr, sites))}: there are those of {lines}")

    def card(self, host: str | int, nic: int) -> tuple[int, int]:
        """Return the numbers of a host, given by name or number, and of its card.

        Raises:
            InvalidArgument: there is no such host or card.
        """
        names = [each.name for each in self.hosts]
        if isinstance(host, int):
            number = host if 0 <= host < len(names) else -1
        else:
            number = names.index(host) if host in names else -1
        if number < 0:
            raise InvalidArgument(f"there is no host {host!r}: there are {', '.join(names)}")
        if not 0 <= nic < len(self.hosts[number].nics):
            raise InvalidArgument(f"host {names[number]} has no card {nic}: it has {len(self.hosts[number].nics)}")
        return number, nic


def address(host: int, rail: int) -> str:
    """Return the IPv4 address that a host has on a rail, both given by number."""
    return f"10.77.{rail}.{host + 1}"
