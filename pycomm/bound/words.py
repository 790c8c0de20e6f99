"""How a bound is told: what binds, in words that a person who knows the machine understands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..topology import Topology
from ..topology.units import say_rate
from .graph import Ids, Mask

_NAMED = 4  # runs of numbers that a sentence lists


def cut(topology: Topology, side: Mask, each: bool) -> str:
    """Return what a cut is: "the links into rank 3, 2 of 50 GB/s", "the nic links from host 2 to the rest, 50 GB/s".

    Args:
        topology: the machine.
        side: which vertices are on the side from which the links go.
        each: whether what is said of this rank, host or group is true of each of them.
    """
    links = topology.links
    crossing = np.flatnonzero(side[links.source] & ~side[links.target])
    ranks, others = np.flatnonzero(side[: topology.size]), np.flatnonzero(~side[: topology.size])
    inwards = len(others) < len(ranks)
    near = others if inwards else ranks
    called = f"each {_sort(topology, near)}" if each else _called(topology, near)
    source, target = ("the rest", called) if inwards else (called, "the rest")
    if not len(crossing):
        return f"the missing links from {source} to {target}"
    amount = _amount(links.bandwidth[crossing])
    if len(near) == 1:
        return f"the links {'into' if inwards else 'out of'} {called}, {amount}"
    kinds = _kinds([topology.kinds[kind] for kind in np.unique(links.kind[crossing])])
    return f"the {kinds} from {source} to {target}, {amount}"


def _amount(bandwidth: npt.NDArray[np.float64]) -> str:
    """ "4 of 50 GB/s", or "4 with 170 GB/s together"; one is just "50 GB/s"."""
    if len(bandwidth) == 1:
        return say_rate(float(bandwidth[0]))
    if np.ptp(bandwidth) <= 1e-9 * bandwidth.max():
        return f"{len(bandwidth)} of {say_rate(float(bandwidth[0]))}"
    return f"{len(bandwidth)} with {say_rate(float(bandwidth.sum()))} together"


def _numbers(topology: Topology, ranks: Ids) -> tuple[Ids, str]:
    """Return the numbers of some ranks, or of their hosts if these are there as a whole, and which of them it is."""
    hosts = np.unique(topology.host[ranks]).astype(np.int64)
    whole = len(hosts) < len(ranks) and np.isin(topology.host, hosts).sum() == len(ranks)
    return (hosts, "host") if whole else (ranks, "rank")


def _sort(topology: Topology, ranks: Ids) -> str:
    """Return what some ranks are: "rank", "host", "group of 4 hosts"."""
    numbers, noun = _numbers(topology, ranks)
    return noun if len(numbers) == 1 else f"group of {len(numbers)} {noun}s"


def _called(topology: Topology, ranks: Ids) -> str:
    """Return a name for some ranks: "host 2", "hosts 0-3", "ranks 0-3 and 8-11"."""
    numbers, noun = _numbers(topology, ranks)
    if len(numbers) == 1:
        return f"host {numbers[0]}" if noun == "host" else topology.label(int(numbers[0]))
    ends = np.flatnonzero(np.append(np.diff(numbers) > 1, True))
    starts = np.concatenate([[0], ends[:-1] + 1])
    runs = [f"{a}-{b}" if a < b else f"{a}" for a, b in zip(numbers[starts], numbers[ends], strict=True)]
    if len(runs) > _NAMED:
        return f"{len(numbers)} {noun}s ({noun}s {', '.join(runs[:_NAMED])}, ...)"
    return f"{noun}s " + (" and ".join([", ".join(runs[:-1]), runs[-1]]) if len(runs) > 1 else runs[0])


def parts(topology: Topology, count: int, leaving: float) -> str:
    """Return what a partition is: "the links out of all 8 hosts together, 400 GB/s"."""
    noun = {len(np.unique(topology.host)): "hosts", topology.size: "ranks"}
    return f"the links out of all {count} {noun.get(count, 'parts')} together, {say_rate(leaving)}"


def all_links(kinds: Sequence[str], mean: float, capacity: float) -> str:
    """Return what all links of some kinds are: "all torus links together, 6.4 TB/s, of which a byte takes 2.5"."""
    return f"all {_kinds(kinds)} together, {say_rate(capacity)}, of which a byte takes {mean:.3g}"


def _kinds(names: Sequence[str]) -> str:
    """Return "leaf-spine links", or "links" where they have no other name."""
    return f"{' and '.join(names)} links" if list(names) != ["link"] else "links"
