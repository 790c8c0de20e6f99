"""Maximum flows, and the minimum cuts that prove them: the C library's, for the graph of a topology."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import check, ffi, lib
from .graph import Graph, Mask, Reals

Heads = npt.NDArray[np.int32]

_NOTHING = 1e-12  # of the largest capacity: less than this is rounding


class Network:
    """Capacities between vertices, for flows between any two of them.

    One vertex more than the graph has, `extra`, is there for a source or sink that stands for many.
    """

    def __init__(self, graph: Graph) -> None:
        self.extra = graph.n
        key, back = graph.source * graph.n + graph.target, graph.target * graph.n + graph.source
        pairs = np.unique(np.minimum(key, back))  # each with its capacity there and back, one of which may be 0
        source, target = pairs // graph.n, pairs % graph.n
        self._head = np.stack([target, source], axis=1).reshape(-1).astype(np.int32)
        self._capacity = np.zeros(2 * len(pairs))
        self._capacity[2 * np.searchsorted(pairs, np.minimum(key, back)) + (key > back)] = graph.capacity
        self._nothing = _NOTHING * float(self._capacity.max(initial=0.0))

    def flow(
        self, source: int, sink: int, more: Sequence[tuple[int, int, float]] = (), enough: float = float("inf")
    ) -> tuple[float, Mask | None]:
        """Return the greatest flow, and the smallest source side of a cut that allows no more.

        Args:
            source, sink: vertices.
            more: arcs for this flow alone: (source, target, capacity).
            enough: do not look for more than this; where this much is found, there is no cut (None).
        """
        head, capacity = self._head, self._capacity.copy()
        if more:
            u, v, c = (np.array(column) for column in zip(*more, strict=True))
            head = np.concatenate([head, np.stack([v, u], axis=1).reshape(-1).astype(np.int32)])
            capacity = np.concatenate([capacity, np.stack([c, np.zeros(len(c))], axis=1).reshape(-1)])
        value, side = max_flow(self.extra + 1, head, capacity, source, sink, enough, self._nothing)
        return value, None if side is None else side[: self.extra]


def max_flow(
    vertices: int, head: Heads, capacity: Reals, source: int, sink: int, enough: float, nothing: float = 0.0
) -> tuple[float, Mask | None]:
    """Return the greatest flow in a network, and the smallest source side of a cut that allows no more.

    Args:
        vertices: how many.
        head: int32; arcs come in pairs that are each other's residual: arc a ends at head[a], begins at head[a ^ 1].
        capacity: float64, of each arc; the flow is taken off.
        source, sink: vertices.
        enough: do not look for more than this; where this much is found, there is no cut (None).
        nothing: capacities up to this are rounding.
    """
    side = np.empty(vertices, np.bool_)
    value = ffi.new("double *")
    network = ffi.new(
        "struct pcm_flow_network *",
        (vertices, len(head), ffi.from_buffer("int32_t[]", head), ffi.from_buffer("double[]", capacity), nothing),
    )
    check(lib.pcm_max_flow(network, source, sink, enough, value, ffi.from_buffer("uint8_t[]", side)))
    return value[0], side if side[source] else None
