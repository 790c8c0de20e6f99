"""Proves that a topology looks the same to all ranks, up to a rotation, before anybody relies on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .model import Ids, Topology

ALL_PAIRS = 128  # ranks up to which every pair's path is compared
PAIRS = 1 << 19  # pairs that are compared beyond that, or 8 for each rank if they are more


def check_period(topology: Topology) -> npt.NDArray[np.integer]:
    """Return which link takes the place of each one when ranks are rotated by the period, having proved that one does.

    That is: prove that r -> r + period (mod size) is an automorphism: of links and of routing.

    The paths of pairs (s, t) and (s + period, t + period) are laid side by side, all of them up to 128 ranks, beyond
    that those of a sample of distances, from every rank. They say which switch takes the place of which. Then all links
    must be there again in their new places, with the same kind, bandwidth and latency, and each path that was compared
    must take the places of the other's links. The ranks' hosts and what they reduce must agree too.

    Raises:
        InvalidArgument: they do not; the message names the first thing that differs.
    """
    size, period = topology.size, topology.period
    if not 0 < period <= size or size % period:
        raise InvalidArgument(f"{topology.name}: the period {period} does not divide the {size} ranks")
    if period == size:
        return np.arange(len(topology.links.source))
    ranks = np.arange(size)
    shifted = (ranks + period) % size
    _check_ranks(topology, shifted)
    distances = np.arange(1, size)
    if size > ALL_PAIRS:
        distances = np.unique(np.geomspace(1, size - 1, max(8, PAIRS // size)).astype(np.int64))
    image = np.concatenate([shifted, np.full(topology.vertices - size, -1)])
    for distance in distances:
        target = (ranks + distance) % size
        one, other = topology.paths(ranks, target), topology.paths(shifted, shifted[target])
        differs = np.flatnonzero(np.diff(one.start) != np.diff(other.start))
        if len(differs):
            _refuse(topology, f"the paths of ranks {differs[0]} to {target[differs[0]]} and of their images differ")
        _map(topology, image, one.links, other.links)
    _extend(topology, image)
    return _places_of_links(topology, image)


def _check_ranks(topology: Topology, shifted: npt.NDArray[np.integer]) -> None:
    rate, host = topology.reduce_rate, topology.host
    unequal = np.flatnonzero(rate != rate[shifted])
    if len(unequal):
        _refuse(topology, f"rank {unequal[0]} and rank {shifted[unequal[0]]} do not reduce equally fast")
    pairs = np.unique(np.stack([host, host[shifted]], axis=1), axis=0)
    if len(pairs) != len(np.unique(host)):
        _refuse(topology, "ranks of one host come to lie on several")


def _map(topology: Topology, image: npt.NDArray[np.integer], one: Ids, other: Ids) -> None:
    """Note which vertex takes the place of which, from two sets of paths side by side; raise if they do not agree."""
    links = topology.links
    for fact in (links.kind, links.bandwidth, links.latency):
        wrong = np.flatnonzero(fact[one] != fact[other])
        if len(wrong):
            _refuse(topology, f"{_link(topology, one[wrong[0]])} and {_link(topology, other[wrong[0]])} are not alike")
    for ends in (links.source, links.target):
        before, after = ends[one], ends[other]
        new = image[before] < 0
        image[before[new]] = after[new]
        wrong = np.flatnonzero(image[before] != after)
        if len(wrong):
            vertex = int(before[wrong[0]])
            places = [topology.label(int(v)) for v in (image[vertex], after[wrong[0]])]
            _refuse(topology, f"{topology.label(vertex)} would have to become both {places[0]} and {places[1]}")


def _extend(topology: Topology, image: npt.NDArray[np.integer]) -> None:
    """Guess places for switches that no path passes, from equal links to neighbours; the links are checked later."""
    links = topology.links
    facts = np.stack([links.kind, links.bandwidth, links.latency], axis=1)
    hope = True
    while hope:
        hope = False
        for link in np.flatnonzero((image[links.source] >= 0) & (image[links.target] < 0)):
            if image[links.target[link]] < 0:
                equal = (links.source == image[links.source[link]]) & (facts == facts[link]).all(axis=1)
                free = [vertex for vertex in links.target[equal] if vertex not in image]
                if free:
                    image[links.target[link]], hope = free[0], True


def _places_of_links(topology: Topology, image: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    links = topology.links
    used = np.unique(np.concatenate([links.source, links.target]))
    unknown = used[image[used] < 0]
    if len(unknown):
        _refuse(topology, f"no path that was compared passes {topology.label(int(unknown[0]))}")
    if len(np.unique(image[used])) != len(used):
        _refuse(topology, "two vertices would become one")
    facts: list[npt.NDArray[Any]] = [links.kind, links.bandwidth, links.latency]
    before = [*facts, links.target, links.source]
    after = [*facts, image[links.target], image[links.source]]
    old, new = np.lexsort(before), np.lexsort(after)
    for one, other in zip(before, after, strict=True):
        wrong = np.flatnonzero(one[old] != other[new])
        if len(wrong):
            link = new[wrong[0]]
            places = [topology.label(int(image[ends[link]])) for ends in (links.source, links.target)]
            _refuse(topology, f"{_link(topology, link)} has no equal from {places[0]} to {places[1]}")
    places_of = np.empty(len(old), np.int64)
    places_of[new] = old
    return places_of


def _link(topology: Topology, link: Any) -> str:
    ends = [topology.label(int(vertices[link])) for vertices in (topology.links.source, topology.links.target)]
    return f"the link from {ends[0]} to {ends[1]}"


def _refuse(topology: Topology, why: str) -> None:
    turned = f"{topology.name} is not the same after a rotation by {topology.period} ranks"
    raise InvalidArgument(f"{turned}: {why}; use period={topology.size}")


def smallest_period(topology: Topology) -> Topology:
    """Return the same topology with the smallest period that `check_period` proves."""
    for period in range(1, topology.size):
        if topology.size % period == 0:
            candidate = replace(topology, period=period)
            try:
                check_period(candidate)
            except InvalidArgument:
                continue
            return candidate
    return replace(topology, period=topology.size)
