"""Which algorithm a call uses, and in how many slices: a pure function of facts that all ranks share."""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20


class Choice(NamedTuple):
    """How a call is run.

    Attributes:
        algorithm: name, as `pycomm.registry.find` takes it.
        slices: pieces of the buffer that go through the rounds one after the other.
        window: how many of them at once.
    """

    algorithm: str
    slices: int
    window: int


SLICE_BYTES = 256 * KIB  # of the whole buffer: what two ranks touch stays in a second-level cache
WINDOW = 2


def slices_for(nbytes: int) -> tuple[int, int]:
    """Return (slices, window) for a buffer of nbytes."""
    slices = max(1, -(-nbytes // SLICE_BYTES))
    return slices, min(WINDOW, slices)


def choose(collective: str, nbytes: int, size: int, uneven: bool = False) -> Choice:
    """Return the choice for one call.

    Args:
        collective: e.g. "allreduce".
        nbytes: of the larger of the two buffers; of the own part where counts are uneven.
        size: ranks.
        uneven: whether blocks may differ in length.
    """
    slices, window = slices_for(nbytes)
    if uneven:
        name = {"alltoall": "pairwise" if size > 8 else "direct", "allgather": "ring" if size > 8 else "direct"}
        # ranks know only their own counts, from which they could not agree on a number of slices
        return Choice(name.get(collective, "direct"), 1, 1)
    return Choice(_name(collective, nbytes, size), slices, window)


def _name(collective: str, nbytes: int, size: int) -> str:
    small = nbytes <= 16 * KIB
    match collective:
        case "allreduce":
            return "doubling" if small else "ring" if size == 2 else "two_shot" if size <= 8 else "ring"
        case "reduce_scatter" | "allgather":
            return "direct" if size <= 8 else "bruck" if small else "ring"
        case "alltoall":
            return "direct" if size <= 8 else "bruck" if small else "pairwise"
        case "broadcast" | "reduce":
            return "binomial" if small or size <= 8 else "double_tree"
        case "gather" | "scatter":
            return "direct" if size <= 8 else "binomial"
        case "scan" | "exscan":
            return "doubling"
    return "dissemination"
