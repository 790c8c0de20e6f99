"""The ways in which a call may be run, among which one is chosen: algorithms, and how finely they are sliced."""

from __future__ import annotations

from typing import NamedTuple

from . import registry
from .contract import contract
from .machine import Machine

KIB = 1 << 10
# Bytes of the messages that slices are made for: a cache line's worth of time more or less does not matter, so that a
# factor of 2 is fine enough. Over sockets a message of 64,000 bytes is one fragment, which leaves as one packet (tcp's
# TCP_PIECE); in shared memory one of 64 KiB is, and from 256 KiB on messages are read where they lie (PCM_LEND).
NEAR_MESSAGES = tuple(size * KIB for size in (32, 64, 128, 256, 512, 1024))
FAR_MESSAGES = (32_000, 64_000, 128_000, 256_000)
MOST_SLICES = 512
# Slices at once. Other windows were measured to gain 0.3 % in the mean over all collectives and sizes.
NEAR_WINDOW, FAR_WINDOW = 2, 8


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

    def __str__(self) -> str:
        """Return it for people: "ring in 8 slices, 2 at once"."""
        return (
            self.algorithm if self.slices == 1 else f"{self.algorithm} in {self.slices} slices, {self.window} at once"
        )


def window_of(slices: int, machine: Machine) -> int:
    """Return how many of the slices go at once."""
    return min(slices, FAR_WINDOW if machine.far else NEAR_WINDOW)


def algorithms(collective: str, machine: Machine, *, uneven: bool = False) -> list[str]:
    """Return the names of the shipped algorithms that can do a call on a machine, in alphabetical order.

    Args:
        collective: e.g. "allreduce".
        machine: with one host, or one rank a host, algorithms for groups of near ranks are left out.
        uneven: whether blocks may differ in length.
    """
    grouped = len(machine.hosts) > 1 and any(len(ranks) > 1 for ranks in machine.hosts)
    all_know = collective in ("allgather", "reduce_scatter")  # the length of every block
    return [
        entry.name
        for entry in registry.listing()
        if entry.collective == collective
        and entry.shipped
        and (grouped or not entry.grouped)
        and (not uneven or entry.uneven or all_know)
    ]


def candidates(collective: str, nbytes: int, machine: Machine, name: str | None = None) -> list[Choice]:
    """Return the ways to run an even call.

    Args:
        collective: e.g. "allreduce".
        nbytes: of the larger of the two buffers of a rank.
        machine: what it runs on.
        name: the algorithm, if that is given.
    """
    slices = sorted({1, *_slices(collective, nbytes, machine)})
    choices = [name] if name else algorithms(collective, machine)
    return [Choice(algorithm, count, window_of(count, machine)) for algorithm in choices for count in slices]


def _slices(collective: str, nbytes: int, machine: Machine) -> set[int]:
    """Return how many slices bring messages to a good length, where an unsliced algorithm sends one block at once."""
    whole = contract(collective).blocks == "one" and collective != "allreduce"
    part = nbytes if whole else nbytes // machine.size
    counts = (-(-part // length) for length in (FAR_MESSAGES if machine.far else NEAR_MESSAGES))
    return {count for count in counts if 1 <= count <= MOST_SLICES}
