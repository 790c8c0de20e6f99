"""What a collective must send out of a set of ranks, whatever its algorithm is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schedules.contract import contract
from .graph import Graph, Mask, Reals


@dataclass(frozen=True)
class Demand:
    """What must pass out of any set of ranks, in parts of n, the bytes of a rank's full vector; see docs/bound.md.

    Attributes:
        collective, size, root: what is to be done; root is 0 for collectives without one.
    """

    collective: str
    size: int
    root: int

    def volume(self, weight: npt.ArrayLike, rooted: npt.ArrayLike, ahead: npt.ArrayLike) -> Reals:
        """Return how much must leave sets of ranks, in any schedule.

        Args:
            weight: how many ranks each set has.
            rooted: whether the root is among them.
            ahead: whether one of them is before a rank that is not among them.
        """
        w, p = np.asarray(weight, np.float64), self.size
        within, rooted, ahead = (w > 0) & (w < p), np.asarray(rooted), np.asarray(ahead)
        amount: dict[str, Any] = {
            "allreduce": lambda: 1.0 * within,
            "reduce": lambda: 1.0 * (within & ~rooted),
            "broadcast": lambda: 1.0 * (within & rooted),
            "allgather": lambda: w * within / p,
            "reduce_scatter": lambda: (p - w) * within / p,
            "gather": lambda: w * ~rooted / p,
            "scatter": lambda: (p - w) * rooted / p,
            "alltoall": lambda: w * (p - w) / p,
            "scan": lambda: 1.0 * ahead,
            "exscan": lambda: 1.0 * ahead,
            "barrier": lambda: 0 * w,
        }
        found: Reals = amount[self.collective]()
        return found

    def volume_of(self, graph: Graph, side: Mask) -> float:
        """Return how much must leave one set of vertices."""
        rooted = bool(side[graph.vertex_of[self.root]])
        inside, outside = graph.lowest[side], graph.highest[~side]
        ahead = bool(len(inside) and len(outside) and inside.min() < outside.max())
        return float(self.volume(graph.weight[side].sum(), rooted, ahead))

    @property
    def additions(self) -> float:
        """How much must be added up by all ranks together: a sum of p needs p - 1 additions."""
        if not contract(self.collective).reduces or self.collective == "barrier":
            return 0.0
        return float(self.size - 1 - (self.collective == "exscan"))
