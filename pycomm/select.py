"""Which algorithm a call uses, and in how many slices: a pure function of facts that all ranks share."""

from __future__ import annotations

from typing import NamedTuple

from . import knobs
from .contract import contract
from .errors import InvalidArgument
from .machine import Machine
from .registry import names

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


SMALL = 16 * KIB  # bytes of the whole buffer up to which rounds count for more than bytes
NEAR = 8  # ranks among which everybody may talk to everybody
WHOLE = 128 * KIB  # bytes of a message that is not worth slicing
FRAGMENT = 64 * KIB  # a message that goes through shared memory in one piece, and stays in a second-level cache there
TURN = 128 * KIB  # a message to be reduced where ranks share processors: fewer turns count for more than the cache
# What a rank sends at once, in bytes, from which on lending pays. Reading another process costs the kernel much for
# each page, and with a root one rank has to do it all; in fragments both sides copy half.
LENT, LENT_REDUCED, LENT_ROOTED = 1 * MIB, 4 * MIB, 16 * MIB
LOAN, LONG_LOAN = 256 * KIB, 512 * KIB  # messages that the receiver reads where they lie (PCM_LEND)
MOST_LOANS = 32  # of which there are no more than this: a rank whose turn it is not holds up fewer of them
FAR_SLICE = 64_000  # a message over sockets: one fragment, which the kernel passes on whole (tcp's TCP_PIECE)
WINDOW, FAR_WINDOW = 2, 8  # slices at once; a link is kept busy by what is under way while others turn round


def choose(collective: str, nbytes: int, size: int, machine: Machine, *, uneven: bool = False) -> Choice:
    """Return the choice for one call.

    Args:
        collective: e.g. "allreduce".
        nbytes: of the larger of the two buffers; not looked at where counts are uneven, which ranks do not all know.
        size: ranks.
        machine: what they run on.
        uneven: whether blocks may differ in length.

    Raises:
        InvalidArgument: PYCOMM_ALGO names no algorithm of the collective.
    """
    override = None if uneven else machine.table.override(collective, nbytes, size)
    name = _asked_for(collective) or (override and override.algorithm)
    name = name or _name(collective, None if uneven else nbytes, size, machine.crowded)
    if uneven:
        return Choice(name, 1, 1)
    part = nbytes if contract(collective).blocks == "one" and collective != "allreduce" else nbytes // size
    slices = max(1, -(-part // _message(collective, part, machine)))
    return Choice(name, slices, min(FAR_WINDOW if machine.far else WINDOW, slices))


def _message(collective: str, part: int, machine: Machine) -> int:
    """Return how many bytes messages should have, where an algorithm that is not sliced sends `part` bytes at once."""
    if machine.far:
        return FAR_SLICE
    if part <= WHOLE:
        return WHOLE
    kind = contract(collective)
    if machine.crowded and kind.reduces:
        return TURN
    if part < (LENT_ROOTED if kind.rooted else LENT_REDUCED if kind.reduces else LENT):
        return FRAGMENT
    return LOAN if part < 16 * LOAN else max(LONG_LOAN, part // MOST_LOANS)


def _name(collective: str, nbytes: int | None, size: int, crowded: bool) -> str:
    small = nbytes is not None and nbytes <= SMALL
    near = size <= NEAR
    # A round costs every rank a turn on its processor; one round of many messages is best where turns are dear.
    tiny = near and crowded and nbytes is not None and nbytes * size <= SMALL
    match collective:
        case "allreduce":
            return "direct" if tiny else "doubling" if small else "ring" if size == 2 or not near else "two_shot"
        case "reduce_scatter" | "allgather":
            return "direct" if near else "bruck" if small else "ring"
        case "alltoall":
            return "direct" if near else "bruck" if small else "pairwise"
        case "broadcast" | "reduce":
            return "direct" if tiny else "binomial" if near or small else "double_tree"
        case "gather" | "scatter":
            return "direct" if near or nbytes is None else "binomial"
        case "scan" | "exscan":
            return "doubling"
        case _:
            return "direct" if tiny else "dissemination"


def _asked_for(collective: str) -> str | None:
    """Return what PYCOMM_ALGO says of a collective."""
    for which, name in knobs.ALGO.value().names:
        if which and which != collective:
            continue
        if name in names(collective):
            return name
        if which:
            raise InvalidArgument(
                f"PYCOMM_ALGO asks for {name}, which is no {collective}: choose from {', '.join(names(collective))}"
            )
    return None
