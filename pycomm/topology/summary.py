"""What there is to say of a machine in a few lines: how much of what, how far, and how much through the middle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import InvalidArgument
from ..schedules.registry import Groups
from .check import check_period
from .condense import cables
from .model import Ids, Topology
from .units import say_rate, say_seconds

PAIRS = 1 << 18  # of ranks that are looked at, at most


class Distance(NamedTuple):
    """The farthest that two ranks are apart, in links and in seconds; of a sample of pairs if not `exact`."""

    links: int
    seconds: float
    exact: bool


def diameter(topology: Topology) -> Distance:
    """Return how far apart ranks are."""
    shifts = _shifts(topology.size, topology.size - 1)
    source = np.tile(np.arange(topology.size, dtype=np.int32), len(shifts))
    target = (source + np.repeat(shifts + 1, topology.size)) % topology.size
    if not len(source):
        return Distance(0, 0.0, True)
    hops = np.diff(topology.paths(source, target).start)
    latency = topology.ends(source, target).latency
    return Distance(int(hops.max()), float(latency.max()), len(shifts) == topology.size - 1)


def bisection(topology: Topology) -> tuple[float, str]:
    """Return bytes per second from one half of the ranks to the other, as messages are routed, and which halves.

    All ranks of one half send to all of the other one, the same to each (to a sample of them on a large machine), and
    as fast as the busiest link lets them. Of several ways to halve the ranks, in blocks of 1, 2, ... halves, the
    worst one counts; it need not be the worst there is.
    """
    size = topology.size // 2 * 2
    if not size:
        return np.inf, "one rank has no halves"
    blocks = [size // 2]
    while blocks[-1] % 2 == 0 and len(blocks) < 6:
        blocks.append(blocks[-1] // 2)
    ranks = np.arange(size, dtype=np.int32)
    worst = (np.inf, "")
    for block in blocks:
        lower = ranks // block % 2 == 0
        rate = min(_flow(topology, ranks[lower], ranks[~lower]), _flow(topology, ranks[~lower], ranks[lower]))
        words = f"ranks 0-{block - 1} | {block}-{size - 1}" if 2 * block == size else f"every other {block} ranks"
        if rate < 0.999 * worst[0]:
            worst = (rate, words)
    return worst


def _flow(topology: Topology, sources: Ids, targets: Ids) -> float:
    shifts = _shifts(len(sources), len(sources))
    source = np.tile(sources, len(shifts))
    place = np.tile(np.arange(len(sources)), len(shifts)) + np.repeat(shifts, len(sources))
    taken = topology.paths(source, targets[place % len(targets)]).links
    load = np.bincount(taken, minlength=len(topology.links.source)) / len(shifts)  # 1: what a source sends in all
    used = load > 0
    return float((topology.links.bandwidth[used] / load[used]).min() * len(sources))


def _shifts(size: int, wanted: int) -> Ids:
    """Return all distances from 0 to wanted - 1, or so many of them, spread out, that PAIRS pairs of ranks result."""
    count = min(wanted, max(2, PAIRS // size))
    return np.unique(np.arange(count) * wanted // max(1, count)).astype(np.int32)


def summary(topology: Topology) -> Iterator[str]:
    """Yield the lines of `pycomm topo`."""
    hosts, switches = len(np.unique(topology.host)), topology.vertices - topology.size
    yield f"{topology.name}: {topology.size} ranks, {hosts} hosts, {switches} switches"
    yield from _table(topology)
    yield f"groups     {_groups(topology.groups)}"
    yield f"period     {_period(topology)}"
    far = diameter(topology)
    sampled = "" if far.exact else " (sampled)"
    yield f"diameter   {far.links} links, {say_seconds(far.seconds)}{sampled}"
    rate, halves = bisection(topology)
    yield f"bisection  {say_rate(rate)} each way, as routed: {halves}"
    rates = np.unique(topology.reduce_rate)
    free = "free" if np.isinf(rates).all() else " to ".join(dict.fromkeys(say_rate(r) for r in (rates[0], rates[-1])))
    yield f"reduction  {free}"


def _table(topology: Topology) -> Iterator[str]:
    counts: dict[tuple[int, float, float, bool], int] = {}
    for cable in cables(topology):
        key = (cable.kind, -cable.bandwidth, cable.latency, cable.narrow)
        counts[key] = counts.get(key, 0) + 1
    rows = [("cables", "", "each way", "latency", "")]
    for (kind, bandwidth, latency, narrow), count in sorted(counts.items()):
        words = "narrower than others" if narrow else ""
        rows.append((topology.kinds[kind], f"{count}", say_rate(-bandwidth), say_seconds(latency), words))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    widths[0] = max(widths[0], 10)
    for row in rows:
        cells = (
            cell.rjust(width) if i == 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield " ".join(cells).rstrip()


def _groups(groups: Groups) -> str:
    """Write nested groups by their sizes: 4 x 32 x 8; uneven ones as 2 x (8 to 16)."""
    sizes = []
    level = [groups]
    while level:
        lengths = sorted({len(group) for group in level})
        sizes.append(str(lengths[0]) if len(lengths) == 1 else f"({lengths[0]} to {lengths[-1]})")
        level = [member for group in level for member in group if isinstance(member, tuple)]
    return " x ".join(sizes)


def _period(topology: Topology) -> str:
    if topology.period == topology.size:
        return f"{topology.period}: no rotation of the ranks is known to change nothing"
    try:
        check_period(topology)
    except InvalidArgument as why:
        return f"{topology.period}, which is wrong: {why}"
    return f"{topology.period}: ranks r and r + {topology.period} see the same (proved)"
