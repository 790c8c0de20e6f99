"""What a call should take: its schedules simulated, with the terms measured here or on a described machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from . import costs, simulate
from .candidates import Choice
from .machine import Machine
from .topology import Topology, flat
from .traffic import Traffic, traffic

if TYPE_CHECKING:
    from .bound import Bound


_MANY = 128  # ranks, beyond which hosts are taken to be equal: else pricing would take seconds


class _Priced:
    """What the two models have in common: the schedules of all ranks, which are kept."""

    def __init__(self, topology: Topology, terms: costs.Calibration | None) -> None:
        self._topology, self._terms = topology, terms
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

    def bind(self, collective: str, choice: Choice, nbytes: int) -> simulate.Bound:
        """Return what is simulated; arguments as for `seconds`."""
        key = collective, choice.algorithm
        if key not in self._traffic:
            size, groups = self._topology.size, self._topology.groups
            self._traffic[key] = traffic(choice.algorithm, collective, size=size, groups=groups)
        contention = self._terms is None  # of links: where terms are known, processors do all the work
        return simulate.Bound(
            self._traffic[key], self._topology, nbytes, choice.slices, choice.window, contention=contention
        )


class Described(_Priced):
    """Prices ways to run a call on a described machine.

    Args:
        topology: the machine.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology, None)

    def bound(self, collective: str, nbytes: int) -> Bound:
        """Return what no schedule can beat."""
        from .bound import bound  # here: a rank that chooses has no use for it

        return bound(collective, self._topology, nbytes)


class Predictor(_Priced):
    """Prices ways to run a call on the machine that ranks run on, with the terms that were measured there.

    Args:
        machine: the ranks' places, and the table with the terms.
    """

    def __init__(self, machine: Machine) -> None:
        machine = _even(machine)
        terms = costs.calibrated(machine.table.calibration, machine.processors, shared=machine.shared)
        super().__init__(topology_of(machine), terms)

    def bound(self, collective: str, nbytes: int) -> Bound:
        """Return what no schedule can beat, if no rank can take in bytes faster than the best of the terms says."""
        from .bound import bound  # here: a rank that chooses has no use for it

        assert self._terms is not None
        ports = flat(self._topology.size, bandwidth=self._terms.fastest(nbytes, self._topology), latency=0.0)
        return bound(collective, ports, nbytes)


def machine_of(topology: Topology) -> Machine:
    """Return what ranks on a described machine would know of it."""
    ranks: dict[int, list[int]] = {}
    for rank, host in enumerate(topology.host):
        ranks.setdefault(int(host), []).append(rank)
    hosts = tuple(map(tuple, ranks.values()))
    return Machine(hosts, tuple(map(len, hosts)), name=topology.name)


def topology_of(machine: Machine) -> Topology:
    """Return the ranks' places, without cost: where processors do all the work, links have none left."""
    host = np.zeros(machine.size, np.int32)
    for number, ranks in enumerate(machine.hosts):
        host[list(ranks)] = number
    return replace(
        flat(machine.size, bandwidth=np.inf, latency=0.0, name="this machine"),
        groups=machine.hosts, host=host, period=_period(machine),
    )  # fmt: skip


def _even(machine: Machine) -> Machine:
    """Return a machine of many ranks as if its hosts were equal: then one host's ranks stand for all others'."""
    size, hosts = machine.size, len(machine.hosts)
    if size <= _MANY or _period(machine) < size:
        return machine
    each = max(1, round(size / hosts))
    rows = tuple(tuple(range(first, first + each)) for first in range(0, hosts * each, each))
    return replace(machine, hosts=rows, processors=(min(machine.processors),) * hosts)


def _period(machine: Machine) -> int:
    """Return by how much ranks can be shifted without changing who is near whom; those of a host share processors."""
    each = len(machine.hosts[0])
    rows = tuple(tuple(range(first, first + each)) for first in range(0, machine.size, each))
    return each if machine.hosts == rows and len(set(machine.processors)) == 1 else machine.size
