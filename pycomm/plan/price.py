"""What a collective takes in one of many groups that run it at once, the cheapest way; and what binds it."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np

from ..bound import Bound, bound
from ..errors import InvalidArgument
from ..schedules import registry
from ..schedules.registry import Groups
from ..schedules.traffic import Traffic, traffic
from ..selection.candidates import Choice
from ..simulator.simulate import Bound as Simulation
from ..simulator.simulate import link_bytes
from ..topology import Topology
from ..topology.units import say_rate
from .cluster import Ranks
from .group import Share, share

# Steps of all ranks and slices that are simulated: with shared links, and with shared ports only. One million steps
# take a second or two.
_SHARED, _PORTS, _ONCE = 3_000, 300_000, 2_000_000
_STEADY = 24  # slices, beyond which the simulator reckons that each takes as long as the one before
_UNEVEN = 2_000  # ranks, up to which hierarchies are made of groups that differ in size
_TRIES = 2  # algorithms of which these slicings are tried,
_SLICES, _WINDOW = (4, 16, 64), 8
_GOOD = 1.01  # times the bound: who is as near to it is taken without a look at others

_Known = dict[tuple[str, str, int, Groups | None], Traffic]  # what all ranks do, by algorithm, size and groups


@dataclass(frozen=True, eq=False)
class Price:
    """What one call takes.

    Attributes:
        choice: the cheapest way; None of a message.
        seconds: of the slowest group.
        ports_only: that links between ports were not shared message by message, for there were too many messages: the
            time is no less then than what the busiest link needs.
        kind: of the link that is needed longest.
        link: that link, for people.
        bound: what no schedule can beat on the group's share of the machine; None of a message.
        share: the group's part of the machine; None of a message.
    """

    choice: Choice | None
    seconds: float
    ports_only: bool
    kind: str
    link: str
    bound: Bound | None
    share: Share | None

    @property
    def possible(self) -> float:
        """The bound over what it takes, 0 to 1."""
        return self.bound.seconds / self.seconds if self.bound and self.seconds else 1.0


class Pricer:
    """Prices calls on one machine; what is known already is not priced again.

    Args:
        topology: the machine.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._shares: dict[tuple[int, ...], Share] = {}
        self._prices: dict[tuple[object, ...], Price] = {}
        self._traffic: _Known = {}

    def on(self, topology: Topology) -> Pricer:
        """Return a pricer for the same machine with other links, which knows what is known where links are the same."""
        other = Pricer(topology)
        other._prices, other._traffic = self._prices, self._traffic
        return other

    def call(self, collective: str, groups: Ranks, nbytes: float) -> Price:
        """Return what a call takes in the worst off of some groups, all of which make it at once.

        Args:
            collective: its name, or "send" to the next rank of the group.
            groups: shape (groups, ranks of each), at least two of each.
            nbytes: n, see `Transfer`.
        """
        if collective == "send":
            return self._send(groups, nbytes)
        part = self.share(groups)
        key = (collective, nbytes, part.mark)
        if key not in self._prices:
            self._prices[key] = _cheapest(collective, part, nbytes, self._traffic)
        return self._prices[key]

    def share(self, groups: Ranks) -> Share:
        """Return the part of the machine that the worst off of some groups has."""
        key = _name(groups)
        if key not in self._shares:
            self._shares[key] = share(self._topology, groups)
        return self._shares[key]

    def _send(self, groups: Ranks, nbytes: float) -> Price:
        """Return what messages take that go all at once, each from a rank to the next of its group.

        Each gets an equal part of every link on its way, which max-min fairness makes no less.
        """
        links = self._topology.links
        source, target = groups[:, :-1].reshape(-1), groups[:, 1:].reshape(-1)
        paths = self._topology.paths(source, target)
        crossed = np.bincount(paths.links, minlength=len(links.source))
        per_byte = (crossed / links.bandwidth)[paths.links]
        heads = paths.start[:-1]
        slowest = np.maximum.reduceat(per_byte, heads)
        seconds = np.add.reduceat(links.latency[paths.links], heads) + nbytes * slowest
        last = int(seconds.argmax())
        way = slice(int(paths.start[last]), int(paths.start[last + 1]))
        link = int(paths.links[way][per_byte[way].argmax()])
        text = _link(self._topology, link, int(crossed[link]))
        return Price(None, float(seconds[last]), False, self._topology.kinds[links.kind[link]], text, None, None)


def _name(groups: Ranks) -> tuple[int, ...]:
    """Return what tells the groups of a layout from others: they are rows of equal steps."""
    return (*groups.shape, int(groups[0, 1] - groups[0, 0]), int(groups[-1, -1]), int(groups[len(groups) // 2, 0]))


def _cheapest(collective: str, part: Share, nbytes: float, known: _Known) -> Price:
    topology = part.topology
    limit = bound(collective, topology, nbytes)
    tried: list[tuple[float, Choice, _Way]] = []
    for name in _algorithms(collective, topology):
        if not tried or min(tried, key=_order)[0] > limit.seconds * _GOOD:
            way = _Way(collective, name, part, nbytes, known)
            if way.affordable(1):
                tried.append((way.seconds(Choice(name, 1, 1)), Choice(name, 1, 1), way))
    tried.sort(key=_order)
    if not tried:
        raise InvalidArgument(
            f"no {collective} among {topology.size} ranks of {topology.name} can be simulated: too many messages"
        )
    for _, first, way in tried[:_TRIES]:
        for slices in _SLICES:
            if min(tried, key=_order)[0] > limit.seconds * _GOOD and way.affordable(slices):
                choice = Choice(first.algorithm, slices, min(slices, _WINDOW))
                tried.append((way.seconds(choice), choice, way))
    seconds, choice, way = min(tried, key=_order)
    used = link_bytes(way.traffic, topology, nbytes) / topology.links.bandwidth
    link = int(used.argmax())
    kind, text = topology.kinds[topology.links.kind[link]], _link(topology, link, int(part.crossed[link]))
    return Price(choice, max(seconds, limit.seconds), not way.shared, kind, text, limit, part)


def _order(one: tuple[float, Choice, _Way]) -> tuple[float, Choice]:
    return float(f"{one[0]:.4e}"), one[1]


class _Way:
    """One algorithm for a call."""

    def __init__(self, collective: str, name: str, part: Share, nbytes: float, known: _Known) -> None:
        self.name, self._topology, self._nbytes = name, part.topology, nbytes
        groups = part.topology.groups if _hierarchies(part.topology) else None
        key = collective, name, part.topology.size, groups
        if key not in known:
            known[key] = traffic(name, collective, size=part.topology.size, groups=groups)
        self.traffic = known[key]
        steps = len(self.traffic.kind) // self.traffic.period
        self.shared = steps * part.topology.size <= _SHARED
        period = part.topology.size if self.shared else lcm(self.traffic.period, part.topology.period)
        self._steps = steps * period

    def affordable(self, slices: int) -> bool:
        """Tell whether it can be simulated in so many slices."""
        most = _STEADY * _SHARED if self.shared else _PORTS if slices > 1 else _ONCE
        return self._steps * min(slices, _STEADY) <= most

    def seconds(self, choice: Choice) -> float:
        """Return what it takes."""
        run = Simulation(
            self.traffic, self._topology, self._nbytes, choice.slices, choice.window, contention=self.shared
        )
        return run.seconds()


def _algorithms(collective: str, topology: Topology) -> list[str]:
    """Return the algorithms that can do it, those that take longest to write down last."""
    found = [
        (entry.grouped, entry.name)
        for entry in registry.listing()
        if entry.collective == collective
        and entry.shipped
        and topology.size <= (entry.most or topology.size)
        and (not entry.grouped or _hierarchies(topology))
    ]
    return [name for _, name in sorted(found)]


def _hierarchies(topology: Topology) -> bool:
    """Tell whether algorithms for groups of near ranks are tried: on many ranks only if the groups are of equal size.

    Then ranks do the same as others do, and writing down what all of them do takes hardly longer than for one.
    """
    level = topology.groups
    if not isinstance(level[0], tuple):
        return False
    while isinstance(level[0], tuple) and topology.size > _UNEVEN:
        if len({len(group) for group in level}) > 1:
            return False
        level = tuple(inner for group in level for inner in group)
    return True


def _link(topology: Topology, link: int, crossed: int) -> str:
    ends = [topology.label(int(end)) for end in (topology.links.source[link], topology.links.target[link])]
    shared = f", shared by {crossed}" if crossed > 1 else ""
    width = say_rate(float(topology.links.bandwidth[link]))
    return f"{topology.kinds[topology.links.kind[link]]} {' to '.join(ends)}, {width}{shared}"
