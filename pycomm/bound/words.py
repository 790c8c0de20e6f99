"""How a bound is told: what binds, in words that a person who knows the machine understands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..topology import Topology
from .graph import Mask

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_RATES = ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "KB/s"), (1.0, "B/s"))
_NAMED = 4  # runs of numbers that a sentence lists


def duration(seconds: float) -> str:
    """Return a time in its natural unit: "1.23 ms"."""
    if not 0 < seconds < float("inf"):
        return "0 s" if seconds == 0 else "for ever"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size * 0.9995), _UNITS[-1])
    return f"{_short(seconds / size)} {unit}"


def rate(per_second: float) -> str:
    """Return bytes a second in their natural unit: "50 GB/s"."""
    size, unit = next(((size, unit) for size, unit in _RATES if per_second >= size * 0.9995), _RATES[-1])
    return f"{_short(per_second / size)} {unit}"


def _short(value: float) -> str:
    """Three digits, without zeros behind the point."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def cut(topology: Topology, side: Mask) -> str:
    """Return what a cut is: "the ports of rank 3, 2 of 50 GB/s"; "the 16 leaf-spine links from hosts 0-1 to the rest".

    Args:
        topology: the machine.
        side: which vertices are on the side from which the links go.
    """
    links = topology.links
    crossing = np.flatnonzero(side[links.source] & ~side[links.target])
    ranks = np.flatnonzero(side[: topology.size])
    others = np.flatnonzero(~side[: topology.size])
    if not len(crossing):
        return "the missing links from {} to {}".format(*_ranks(topology, ranks, others))
    amount = _amount(links.bandwidth[crossing])
    alone = next((group for group in (ranks, others) if len(group) == 1), None)
    if alone is not None and (len(ranks) > 1 or len(others) > 1 or topology.size == 2):
        way = "out of" if alone is ranks else "into"
        name = topology.label(int(alone[0]))
        return f"the links {way} {'each rank' if _alike(topology, alone is others) else name}, {amount}"
    kinds = _kinds([topology.kinds[kind] for kind in np.unique(links.kind[crossing])])
    source, target = _ranks(topology, ranks, others)
    return f"the {kinds} from {source} to {target}, {amount}"


def _alike(topology: Topology, inwards: bool) -> bool:
    """Say whether the links into (or out of) all ranks have the same bandwidth."""
    links = topology.links
    total = np.bincount(links.target if inwards else links.source, links.bandwidth, topology.vertices)[: topology.size]
    return bool(np.ptp(total) <= 1e-9 * total.max())


def _amount(bandwidth: npt.NDArray[np.float64]) -> str:
    """ "4 of 50 GB/s", or "4 with 170 GB/s together"; one is just "50 GB/s"."""
    if len(bandwidth) == 1:
        return rate(float(bandwidth[0]))
    if np.ptp(bandwidth) <= 1e-9 * bandwidth.max():
        return f"{len(bandwidth)} of {rate(float(bandwidth[0]))}"
    return f"{len(bandwidth)} with {rate(float(bandwidth.sum()))} together"


def _ranks(topology: Topology, ranks: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> tuple[str, str]:
    """Return how to call the two sides of a cut: the one that is simpler by its name, the other "the rest"."""
    names = [_called(topology, group) for group in (ranks, others)]
    if len(names[0]) <= len(names[1]):
        return names[0], "the rest"
    return "the rest", names[1]


def _called(topology: Topology, ranks: npt.NDArray[np.int64]) -> str:
    """Return a name for some ranks: "host 2", "hosts 0-3", "ranks 0-3 and 8-11"."""
    hosts = np.unique(topology.host[ranks])
    whole = len(hosts) < len(ranks) and np.isin(topology.host, hosts).sum() == len(ranks)
    numbers, noun = (hosts, "host") if whole else (ranks, "rank")
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    ends = np.flatnonzero(np.append(np.diff(numbers) > 1, True))
    starts = np.concatenate([[0], ends[:-1] + 1])
    runs = [f"{a}-{b}" if a < b else f"{a}" for a, b in zip(numbers[starts], numbers[ends], strict=True)]
    if len(runs) > _NAMED:
        return f"{len(numbers)} {noun}s ({noun}s {', '.join(runs[:_NAMED])}, ...)"
    return f"{noun}s " + (" and ".join([", ".join(runs[:-1]), runs[-1]]) if len(runs) > 1 else runs[0])


def parts(topology: Topology, count: int, leaving: float) -> str:
    """Return what a partition is: "the links out of all 8 hosts together, 400 GB/s"."""
    noun = {len(np.unique(topology.host)): "hosts", topology.size: "ranks"}
    return f"the links out of all {count} {noun.get(count, 'parts')} together, {rate(leaving)}"


def all_links(kinds: Sequence[str], mean: float, capacity: float) -> str:
    """Return what all links of some kinds are: "all torus links together, 6.4 TB/s, of which a byte takes 2.5"."""
    return f"all {_kinds(kinds)} together, {rate(capacity)}, of which a byte takes {_short(mean)}"


def _kinds(names: Sequence[str]) -> str:
    """Return "leaf-spine links", or "links" where they have no other name."""
    return f"{' and '.join(names)} links" if list(names) != ["link"] else "links"
