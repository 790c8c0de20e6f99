"""Changes to any machine: cables at a part of their bandwidth, and cards of different speed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, NewType

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from . import units
from .model import Topology

Speeds = NewType("Speeds", tuple[float, ...])


class Degrade(NamedTuple):
    """Which cables lose bandwidth, in both directions, and how much they keep.

    Attributes:
        what: a kind of links, or the labels of a cable's two ends.
        amount: how many cables of the kind, spread evenly over all of them.
        part: that `amount` is a part of them (0.1: a tenth, at least one), not a number.
        keeps: the part of the bandwidth that is left.
    """

    what: str | tuple[str, str]
    amount: float
    part: bool
    keeps: float


def read_degrade(text: str) -> Degrade:
    """Read nic@0.5 (all cables of a kind), nic*3@0.5, nic*10%@0.5 or rank 3..leaf 0@0.5 (one cable)."""
    what, at, keeps = text.rpartition("@")
    first, dots, second = what.partition("..")
    kind, star, amount = what.partition("*")
    if not at or not what:
        raise InvalidArgument(f"{text!r}: write KIND@PART, KIND*COUNT@PART, KIND*10%@PART or ONE..OTHER@PART")
    if dots:
        return Degrade((first.strip(), second.strip()), 1, False, units.factor(keeps))
    if not star:
        return Degrade(kind.strip(), 1.0, True, units.factor(keeps))
    if amount.endswith("%"):
        return Degrade(kind.strip(), units.factor(amount[:-1]) / 100, True, units.factor(keeps))
    return Degrade(kind.strip(), units.count(amount), False, units.factor(keeps))


def degrade(topology: Topology, change: Degrade) -> Topology:
    """Return the machine with some cables at a part of their bandwidth; messages take the ways they took before.

    Raises:
        InvalidArgument: there is no such kind, cable, or number of cables.
    """
    links = topology.links
    low, high = np.minimum(links.source, links.target), np.maximum(links.source, links.target)
    cable = low.astype(np.int64) * topology.vertices + high
    if isinstance(change.what, str):
        kind = _kind(topology, change.what)
        there = np.unique(cable[links.kind == kind])
        count = max(1, round(change.amount * len(there))) if change.part else int(change.amount)
        if count > len(there):
            raise InvalidArgument(f"there are {len(there)} cables of the kind {change.what}, not {count:g}")
        chosen = there[np.arange(count) * len(there) // count]
        hit = (links.kind == kind) & np.isin(cable, chosen)
        whole = count == len(there)
    else:
        one, other = sorted(vertex(topology, label) for label in change.what)
        hit, whole = cable == one * topology.vertices + other, False
        if not hit.any():
            raise InvalidArgument(f"no cable joins {change.what[0]!r} and {change.what[1]!r}")
    bandwidth = np.where(hit, links.bandwidth * change.keeps, links.bandwidth)
    return replace(
        topology, links=links._replace(bandwidth=bandwidth), period=topology.period if whole else topology.size
    )


def vertex(topology: Topology, label: str) -> int:
    """Return the vertex of that label; raise InvalidArgument if there is none."""
    labels = topology.labels or [topology.label(number) for number in range(topology.vertices)]
    if label not in labels:
        raise InvalidArgument(f"there is no {label!r}; there are {labels[0]!r} to {labels[-1]!r}")
    return labels.index(label)


def _kind(topology: Topology, name: str) -> int:
    if name not in topology.kinds:
        raise InvalidArgument(f"there are no links of the kind {name!r}; there are {', '.join(topology.kinds)}")
    return topology.kinds.index(name)


def read_speeds(text: str) -> Speeds:
    """Read 1+0.5: of cards, one number for each equal part of the hosts, in order."""
    return Speeds(tuple(units.factor(part) for part in text.split("+")))


def speed(topology: Topology, speeds: Speeds) -> Topology:
    """Return the machine with cards of different speed: their own links, and what they reduce.

    Args:
        topology: the machine.
        speeds: the first of the equal parts of its hosts, in order, has cards of the first one, and so on.
    """
    hosts = int(topology.host.max()) + 1
    return speed_of_ranks(topology, np.array(speeds)[topology.host.astype(np.int64) * len(speeds) // hosts])


def speed_of_ranks(topology: Topology, factors: npt.NDArray[np.float64]) -> Topology:
    """Return the machine with each rank's own links, and what it reduces, multiplied by a number for each rank."""
    links = topology.links
    wide = np.concatenate([factors, np.ones(topology.vertices - topology.size)])
    # Of a link between two ranks the slower one counts.
    narrow = np.minimum(wide[links.source], wide[links.target])
    both = (links.source < topology.size) & (links.target < topology.size)
    factor = np.where(both, narrow, wide[links.source] * wide[links.target])
    alike = bool((np.roll(factors, topology.period) == factors).all())
    return replace(
        topology,
        links=links._replace(bandwidth=links.bandwidth * factor),
        reduce_rate=topology.reduce_rate * factors,
        period=topology.period if alike else topology.size,
    )
