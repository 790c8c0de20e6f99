"""The best that any schedule could do on a machine: what every report, simulated or measured, is set beside."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidArgument
from ..schedules.contract import contract
from ..topology import Topology
from ..topology.units import say_seconds
from .demand import Demand
from .limits import limits

__all__ = ["Bound", "bound"]

_EQUAL = 1e-9


@dataclass(frozen=True)
class Bound:
    """The time that no schedule can beat, and why.

    Attributes:
        seconds: the bound; at least each of the next two, at most their sum.
        latency_seconds: what is left of it when bytes cost nothing.
        bandwidth_seconds: what is left of it when latency is nothing (this includes the adding up of values).
        cut: what binds: "the links out of rank 3, 50 GB/s".
        sentence: the line for reports: "bound 1.23 ms: the links out of rank 3, 50 GB/s, bind".
    """

    seconds: float
    latency_seconds: float
    bandwidth_seconds: float
    cut: str
    sentence: str


def bound(collective: str, topology: Topology, nbytes: float, root: int = 0) -> Bound:
    """Return the best that any schedule could do: docs/bound.md derives it.

    Args:
        collective: its name.
        topology: the machine.
        nbytes: n, the bytes of a rank's full vector (see `Schedule.share`).
        root: of a broadcast, reduce, gather or scatter.

    Raises:
        InvalidArgument: there is no such collective or root, or `nbytes` is negative.
    """
    promise = contract(collective)
    if not 0 <= root < topology.size:
        raise InvalidArgument(f"root {root} is not one of {topology.size} ranks")
    if nbytes < 0:
        raise InvalidArgument(f"a message cannot have {nbytes} bytes")
    demand = Demand(collective, topology.size, root if promise.rooted else 0)
    found = limits(topology, demand) if nbytes or collective == "barrier" else ()
    if not found:
        return Bound(0.0, 0.0, 0.0, "nothing", "bound 0 s: nothing needs to be sent")
    seconds = [limit.seconds(nbytes) for limit in found]
    most = max(seconds)
    binding = found[next(i for i, value in enumerate(seconds) if value >= most * (1 - _EQUAL))]
    text = binding.words()
    return Bound(
        most,
        max(limit.latency for limit in found),
        max(limit.per_byte for limit in found) * nbytes,
        text,
        f"bound {say_seconds(most)}: {text}, bind",
    )
