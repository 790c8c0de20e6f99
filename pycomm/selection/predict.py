"""What a call should take: its schedules simulated, with the terms measured here or on a described machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..schedules.registry import Groups
from ..schedules.schedule import SEND
from ..schedules.traffic import Traffic, traffic
from ..simulator import costs, simulate
from ..topology import Topology, flat
from ..topology.model import Ids, Links
from ..topology.routing import Tree
from .candidates import Choice
from .machine import Machine
from .network import Network

if TYPE_CHECKING:
    from ..bound import Bound


_AT_ONCE = 1 << 11  # messages, up to which it is simulated how they share links; beyond, links are added up
_IN_ALL = 1 << 16  # messages of all slices that are simulated, likewise
_ENDLESS = 1e15  # bytes per second of links within a host, where terms of processors are known
_MANY = 128  # ranks, beyond which hosts are taken to be equal: else pricing would take seconds


class _Priced:
    """What the two models have in common: the schedules of all ranks, which are kept."""

    def __init__(self, topology: Topology, terms: costs.Calibration | None, *, linked: bool = False) -> None:
        self._topology, self._terms, self._linked = topology, terms, linked
        self._traffic: dict[tuple[str, str], Traffic] = {}

    def seconds(self, collective: str, choice: Choice, nbytes: int) -> float:
        """Return what a call should take, without residuals.

        Args:
            collective: of which root 0 is the root.
            choice: how it is run.
            nbytes: a rank's full vector.
        """
        call = self.bind(collective, choice, nbytes)
        return call.seconds() if self._terms is None else call.called(self._terms)

    def least(self, collective: str, choice: Choice) -> float:
        """Return what a call takes at least, whatever its size, by the number of its messages: found in no time."""
        if self._terms is None:
            return 0.0
        what = self._messages(collective, choice.algorithm)
        sends = int(np.count_nonzero(what.kind == SEND)) * (what.size // what.period)
        return self._terms.least(sends * choice.slices, self._topology)

    def bind(self, collective: str, choice: Choice, nbytes: int) -> simulate.Bound:
        """Return what is simulated; arguments as for `seconds`."""
        what = self._messages(collective, choice.algorithm)
        # Of links: where terms are known and no network, processors do all the work.
        contention = self._terms is None or (self._linked and _few(what, choice))
        return simulate.Bound(what, self._topology, nbytes, choice.slices, choice.window, contention=contention)

    def _messages(self, collective: str, algorithm: str) -> Traffic:
        key = collective, algorithm
        if key not in self._traffic:
            size, groups = self._topology.size, self._topology.groups
            self._traffic[key] = traffic(algorithm, collective, size=size, groups=groups)
        return self._traffic[key]


def _few(what: Traffic, choice: Choice) -> bool:
    """Whether so few messages are under way together that it takes milliseconds to find out how they share links."""
    sends = np.append(0, np.cumsum(what.kind == SEND))
    each = np.diff(sends[what.ops])  # round
    number = np.arange(len(each)) - np.repeat(what.rounds[:-1], np.diff(what.rounds))
    times = what.size // what.period
    at_once = np.bincount(number, each, minlength=1).max() * times * choice.window
    return bool(at_once <= _AT_ONCE and sends[-1] * times * choice.slices <= _IN_ALL)


class Described(_Priced):
    """Prices ways to run a call on a described machine.

    Args:
        topology: the machine.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology, None)

    def bound(self, collective: str, nbytes: int) -> Bound:
        """Return what no schedule can beat."""
        from ..bound import bound  # here: a rank that chooses has no use for it

        return bound(collective, self._topology, nbytes)


class Predictor(_Priced):
    """Prices ways to run a call on the machine that ranks run on, with the terms that were measured there.

    Args:
        machine: the ranks' places, and the table with the terms.
    """

    def __init__(self, machine: Machine) -> None:
        machine = _even(machine)
        terms = costs.calibrated(machine.table.calibration, machine.processors, shared=machine.shared)
        far = terms.far
        priced = far.latency + far.send + far.receive
        if machine.network is not None:
            terms = _slowed(terms, machine.network.message)
        super().__init__(topology_of(machine, priced=priced), terms, linked=machine.network is not None)
        self._machine = machine

    def bound(self, collective: str, nbytes: int) -> Bound:
        """Return what no schedule can beat, if no rank can take in bytes faster than the best of the terms says."""
        from ..bound import bound  # here: a rank that chooses has no use for it

        assert self._terms is not None
        fastest = self._terms.fastest(nbytes, self._topology)
        if self._linked:
            return bound(collective, topology_of(self._machine, inside=fastest), nbytes)
        return bound(collective, flat(self._topology.size, bandwidth=fastest, latency=0.0), nbytes)


def _slowed(terms: costs.Calibration, message: float) -> costs.Calibration:
    """Return the terms if a message sent and one received cost so many seconds between hosts, should that be more."""
    more = max(0.0, message - terms.far.send - terms.far.receive) / 2
    return replace(terms, far=replace(terms.far, send=terms.far.send + more, receive=terms.far.receive + more))


def machine_of(topology: Topology) -> Machine:
    """Return what ranks on a described machine would know of it."""
    from ..packing import offered  # here: ranks that run have no use for it

    ranks: dict[int, list[int]] = {}
    for rank, host in enumerate(topology.host):
        ranks.setdefault(int(host), []).append(rank)
    hosts = tuple(map(tuple, ranks.values()))
    return Machine(hosts, tuple(map(len, hosts)), name=topology.name, packed=offered(topology))


def topology_of(machine: Machine, *, priced: float = 0.0, inside: float = np.inf) -> Topology:
    """Return the ranks' places, and the links between their hosts if somebody measured them.

    Args:
        machine: the machine. Without a network its links cost nothing: processors do all the work.
        priced: seconds of a message between hosts that are in the costs of processors, and so not in the links'.
        inside: bytes per second that a rank can send, and receive.
    """
    host = np.zeros(machine.size, np.int32)
    for number, ranks in enumerate(machine.hosts):
        host[list(ranks)] = number
    if machine.network is not None:
        return _linked(machine, machine.network, host, priced, min(inside, _ENDLESS))
    return replace(
        flat(machine.size, bandwidth=inside, latency=0.0, name="this machine"),
        groups=machine.groups, host=host, period=_period(machine),
    )  # fmt: skip


def _linked(machine: Machine, network: Network, host: Ids, priced: float, inside: float) -> Topology:
    """Return a tree: ranks under hosts, hosts under sites, sites under what is between them."""
    size, nhosts, nsites = machine.size, len(machine.hosts), len(network.sites)
    sites = size + nhosts  # the number of the first one
    parent = np.full(sites + nsites + (nsites > 1), -1, np.int32)
    below = len(parent) - 1  # each vertex but the last has a link to its parent, and one from it
    parent[:size], parent[sites:below] = size + host, below
    for number, members in enumerate(network.sites):
        parent[size + np.array(members)] = sites + number
    rate, latency = np.full(below, inside), np.zeros(below)
    rate[size:sites] = network.rates
    latency[size:sites] = max(0.0, network.latency - priced) / 2
    if nsites > 1:
        rate[sites:] = network.far_rates
        latency[sites:] = max(0.0, network.far_latency - network.latency) / 2
    period = size if network.uneven else _period(machine)
    kind = np.repeat(np.array([0, 1, 2], np.uint8), [size, nhosts, below - sites])
    child = np.arange(below, dtype=np.int32)  # and the number of its link up
    ends = child, parent[:-1]
    links = Links(*map(np.concatenate, (ends, ends[::-1], *((one, one) for one in (rate, latency, kind)))))
    labels = [*(f"rank {r}" for r in range(size)), *(f"host {h}" for h in range(nhosts))]
    labels += [*(f"site {s}" for s in range(nsites)), "wide area"] if nsites > 1 else ["network"]
    up = np.append(child, np.int32(-1))
    tree = Tree(size, parent, up, np.where(up < 0, up, up + np.int32(below)))
    return Topology(
        "this machine", size, len(parent), links, ("memory", "host", "site"), tree, machine.groups, host,
        np.full(size, np.inf), period, labels,
    )  # fmt: skip


def _even(machine: Machine) -> Machine:
    """Return a machine of many ranks as if its hosts were equal: then one host's ranks stand for all others'."""
    size, hosts = machine.size, len(machine.hosts)
    if size <= _MANY or _period(machine) < size:
        return machine
    each = max(1, round(size / hosts))
    rows = tuple(tuple(range(first, first + each)) for first in range(0, hosts * each, each))
    return replace(machine, hosts=rows, processors=(min(machine.processors),) * hosts, places=())


def _period(machine: Machine) -> int:
    """Return by how much ranks can be shifted without changing who is near whom; those of a host share processors."""
    each = len(machine.hosts[0])
    rows = tuple(tuple(range(first, first + each)) for first in range(0, machine.size, each))
    alike = machine.hosts == rows and len(set(machine.processors)) == 1
    if machine.network is not None and len(machine.network.sites) > 1:
        return machine.size
    first = machine.groups[0]
    return each if alike and all(g == _further(first, h * each) for h, g in enumerate(machine.groups)) else machine.size


def _further(group: Groups, by: int) -> Groups:
    return tuple(_further(member, by) if isinstance(member, tuple) else member + by for member in group)
