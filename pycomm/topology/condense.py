"""A machine with fewer parts, for drawings: hosts as one, and switches that are wired alike as one."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from .model import Topology


class Cable(NamedTuple):
    """Both directions between two vertices, or one if there is no other.

    Attributes:
        kind, bandwidth, latency: of the direction upwards by vertex number; the bandwidth is the smaller one.
        narrow: it is narrower than others of its kind.
    """

    one: int
    other: int
    kind: int
    bandwidth: float
    latency: float
    narrow: bool


class Part(NamedTuple):
    """A host, or switches.

    Attributes:
        vertices: what it is made of.
        ranks: those of a host; empty: switches.
        inside: cables among its vertices.
    """

    vertices: list[int]
    ranks: list[int]
    inside: list[Cable]


class Plan(NamedTuple):
    """The condensed machine.

    Attributes:
        parts: hosts first.
        joins: for each pair of parts (lower number first) the cables between them.
        near: the neighbours of each part.
    """

    parts: list[Part]
    joins: dict[tuple[int, int], list[Cable]]
    near: list[list[int]]


def cables(topology: Topology) -> list[Cable]:
    """Return all cables."""
    links = topology.links
    most = np.zeros(len(topology.kinds))
    np.maximum.at(most, links.kind, links.bandwidth)
    found: dict[tuple[int, int, int], Cable] = {}
    columns = (links.source, links.target, links.kind, links.bandwidth, links.latency)
    for source, target, kind, bandwidth, latency in zip(*(column.tolist() for column in columns), strict=True):
        one, other = sorted((source, target))
        before = found.get((one, other, kind))
        width = min(bandwidth, before.bandwidth) if before else bandwidth
        found[one, other, kind] = Cable(one, other, kind, width, latency, width < 0.999 * most[kind])
    return list(found.values())


def whole(topology: Topology) -> Plan:
    """Return the plan in which every vertex is a part of its own; ranks are hosts of one."""
    parts = [Part([v], [v] if v < topology.size else [], []) for v in range(topology.vertices)]
    return _joined(parts, np.arange(topology.vertices).tolist(), cables(topology))


def condense(topology: Topology) -> Plan:
    """Return the machine with each host, and what only it uses, as one part, and switches wired alike as one."""
    wires = cables(topology)
    near: list[list[int]] = [[] for _ in range(topology.vertices)]
    for cable in wires:
        near[cable.one].append(cable.other)
        near[cable.other].append(cable.one)
    owner = topology.host.tolist() + [-1] * (topology.vertices - topology.size)
    _claim(owner, near, topology.size)
    hosts = int(topology.host.max()) + 1
    # Switches of no host that have the same neighbours are one part: the rails of a pod.
    bundles: dict[frozenset[int], int] = {}
    for vertex in range(topology.size, topology.vertices):
        if owner[vertex] < 0:
            beside = frozenset(owner[v] if 0 <= owner[v] < hosts else hosts + v for v in near[vertex])
            owner[vertex] = bundles.setdefault(beside, hosts + len(bundles))
    parts = [Part([], [], []) for _ in range(hosts + len(bundles))]
    for vertex, part in enumerate(owner):
        parts[part].vertices.append(vertex)
        if vertex < topology.size:
            parts[part].ranks.append(vertex)
    return _joined(parts, owner, wires)


def _claim(owner: list[int], near: list[list[int]], size: int) -> None:
    """Give switches that touch the ranks of but one host to it, and so on to what is between these and the rest."""
    frontier = sorted({v for rank in range(size) for v in near[rank] if v >= size})
    while frontier:
        claimed = []
        for vertex in frontier:
            touched = {owner[v] for v in near[vertex] if owner[v] >= 0}
            ranks = any(v < size for v in near[vertex])
            if len(touched) == 1 and (ranks or sum(owner[v] < 0 for v in near[vertex]) <= 1):
                claimed.append((vertex, touched.pop()))
        for vertex, host in claimed:
            owner[vertex] = host
        frontier = sorted({v for vertex, _ in claimed for v in near[vertex] if owner[v] < 0})


def _joined(parts: list[Part], owner: list[int], wires: list[Cable]) -> Plan:
    joins: dict[tuple[int, int], list[Cable]] = {}
    near: list[dict[int, None]] = [{} for _ in parts]
    for cable in wires:
        a, b = sorted((owner[cable.one], owner[cable.other]))
        if a == b:
            parts[a].inside.append(cable)
        else:
            joins.setdefault((a, b), []).append(cable)
            near[a][b] = near[b][a] = None
    return Plan(parts, joins, [list(beside) for beside in near])


def levels(plan: Plan) -> list[int]:
    """Return how many joins each part is away from the nearest host."""
    level = [0 if part.ranks else -1 for part in plan.parts]
    here = [number for number, part in enumerate(plan.parts) if part.ranks]
    while here:
        there = dict.fromkeys(other for part in here for other in plan.near[part] if level[other] < 0)
        for other in there:
            level[other] = level[here[0]] + 1
        here = list(there)
    return level


def signatures(plan: Plan, level: list[int]) -> list[int]:
    """Return a number for each part of a tree, equal where it, what is below, and the join above are alike."""
    known: dict[tuple[object, ...], int] = {}
    result = [0] * len(plan.parts)
    for number in sorted(range(len(plan.parts)), key=lambda n: level[n]):
        part = plan.parts[number]
        below = sorted(result[n] for n in plan.near[number] if level[n] < level[number])
        above = [join(plan, number, n) for n in plan.near[number] if level[n] > level[number]]
        key = (len(part.ranks), len(part.vertices), _summed(part.inside), *below, -1, *map(_summed, above))
        result[number] = known.setdefault(key, len(known))
    return result


def join(plan: Plan, one: int, other: int) -> list[Cable]:
    """Return the cables between two parts."""
    return plan.joins[min(one, other), max(one, other)]


def _summed(some: list[Cable]) -> tuple[tuple[object, int], ...]:
    return tuple(sorted(Counter((c.kind, c.bandwidth, c.latency) for c in some).items()))
