"""What a collective must send out of a set of ranks, whatever its algorithm is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import contract
from .graph import Graph, Mask, Reals


@dataclass(frozen=True)
class Demand:
    """What must pass out of any set of ranks; the equations are derived in docs/bound.md.

    Attributes:
        collective, size, root: what is to be done.
        nbytes: n, the bytes of a rank's full vector.
    """

    collective: str
    size: int
    root: int
    nbytes: float

    def volume(self, weight: npt.ArrayLike, rooted: npt.ArrayLike, ahead: npt.ArrayLike) -> Reals:
        """Return the bytes that must leave sets of ranks, in any schedule.

        Args:
            weight: how many ranks each set has.
            rooted: whether the root is among them.
            ahead: whether one of them is before a rank that is not among them.
        """
        w, p, n = np.asarray(weight, np.float64), self.size, self.nbytes
        within, rooted, ahead = (w > 0) & (w < p), np.asarray(rooted), np.asarray(ahead)
        block = n / p
        amount: dict[str, Any] = {
            "allreduce": lambda: n * within,
            "reduce": lambda: n * (within & ~rooted),
            "broadcast": lambda: n * (within & rooted),
            "allgather": lambda: block * w * within,
            "reduce_scatter": lambda: block * (p - w) * within,
            "gather": lambda: block * w * ~rooted,
            "scatter": lambda: block * (p - w) * rooted,
            "alltoall": lambda: block * w * (p - w),
            "scan": lambda: n * ahead,
            "exscan": lambda: n * ahead,
            "barrier": lambda: 0 * w,
        }
        found: Reals = amount[self.collective]()
        return found

    def volume_of(self, graph: Graph, side: Mask) -> float:
        """Return the bytes that must leave one set of vertices."""
        rooted = bool(side[graph.vertex_of[self.root]])
        inside, outside = graph.lowest[side], graph.highest[~side]
        ahead = bool(len(inside) and len(outside) and inside.min() < outside.max())
        return float(self.volume(graph.weight[side].sum(), rooted, ahead))

    @property
    def additions(self) -> float:
        """The bytes that must be added up by all ranks together: a sum of p needs p - 1 additions."""
        if not contract(self.collective).reduces or self.collective == "barrier":
            return 0.0
        return (self.size - 1 - (self.collective == "exscan")) * self.nbytes
