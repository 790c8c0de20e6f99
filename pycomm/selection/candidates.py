"""The ways in which a call may be run, among which one is chosen: algorithms, and how finely they are sliced."""

from __future__ import annotations

from typing import NamedTuple

from ..schedules import registry
from ..schedules.contract import contract
from .machine import Machine
from .network import shares

KIB = 1 << 10
# Bytes of the messages that slices are made for: a cache line's worth of time more or less does not matter, so that a
# factor of 2 is fine enough. Over sockets a message of 64,000 bytes is one fragment, which leaves as one packet (tcp's
# TCP_PIECE); in shared memory one of 64 KiB is, and from 256 KiB on messages are read where they lie (PCM_LEND).
NEAR_MESSAGES = tuple(size * KIB for size in (32, 64, 128, 256, 512, 1024))
FAR_MESSAGES = (32_000, 64_000, 128_000, 256_000)
MOST_SLICES = 512
LEAST_SLICE = 4 * KIB  # bytes of a message, below which slicing is not tried on described machines
DESCRIBED_SLICES, DESCRIBED_WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128), (2, 8)  # where nobody knows what is good
# What is tried across hosts, on a network that was measured, with the algorithm that `hierarchical` takes within them.
ACROSS = {
    "allreduce": ("bruck", ("doubling", "ring", "two_shot")),
    "allgather": ("bruck", ("direct", "ring")),
    "reduce_scatter": ("bruck", ("direct", "ring")),
    "broadcast": ("binomial", ("double_tree", "ring")),
    "reduce": ("binomial", ("double_tree", "ring")),
}
MOST_SHARED = 64  # hosts, up to which shards follow the hosts' rates, one by one
PARTS_A_HOST = 8  # parts of the vector, of which slower hosts own fewer: their shares are right to 1/8
# Slices at once. Other windows were measured to gain 0.3 % in the mean over all collectives and sizes.
NEAR_WINDOW, FAR_WINDOW = 2, 8


class Choice(NamedTuple):
    """How a call is run.

    Attributes:
        algorithm: name, as `pycomm.schedules.registry.find` takes it.
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


def algorithms(collective: str, machine: Machine, *, uneven: bool = False, told: bool = False) -> list[str]:
    """Return the names of the algorithms that can do a call on a machine, those made for it last.

    Args:
        collective: e.g. "allreduce".
        machine: if no ranks are nearer to each other than to others, algorithms for groups of near ranks are left out.
        uneven: whether blocks may differ in length.
        told: whether ranks tell those of their group how long the blocks are that these pass on.
    """
    all_know = collective in ("allgather", "reduce_scatter")  # the length of every block
    found = [
        entry.name
        for entry in registry.listing()
        if entry.collective == collective
        and entry.shipped
        and machine.size <= (entry.most or machine.size)
        and (machine.grouped or not entry.grouped)
        and (not uneven or entry.uneven or all_know or (told and entry.grouped))
    ]
    if machine.packed and not uneven and registry.has(collective, "packed"):
        found.append(machine.packed)
    return found if uneven else [*found, *_composed(collective, machine)]


def _composed(collective: str, machine: Machine) -> list[str]:
    """Return the names of what is made for the network: other algorithms across hosts, shards in unequal shares."""
    network, grouped = machine.network, machine.grouped
    if network is None:
        return []
    within, across = ACROSS.get(collective, ("", ()))
    inner = f"{within}, " * (machine.levels - 1)  # within hosts, and within sites
    names = [f"hierarchical({inner}{name})" for name in across] if grouped else []
    if collective == "allreduce" and network.uneven and len(network.sites) == 1 and len(machine.hosts) <= MOST_SHARED:
        rates = network.rates if grouped else [network.rates[machine.host_of(rank)] for rank in range(machine.size)]
        owned = f"two_shot({', '.join(map(str, shares(rates, PARTS_A_HOST * len(rates))))})"
        names.append(f"hierarchical({inner}{owned})" if grouped else owned)
    return names


def candidates(
    collective: str, nbytes: int, machine: Machine, name: str | None = None, *, uneven: bool = False
) -> list[Choice]:
    """Return the ways to run a call.

    Args:
        collective: e.g. "allreduce".
        nbytes: of the larger of the two buffers of a rank.
        machine: what it runs on.
        name: the algorithm, if that is given.
        uneven: whether blocks may differ in length, all of which all ranks know.
    """
    part = _unsliced(collective, nbytes, machine)
    if machine.name:
        counts = [count for count in DESCRIBED_SLICES if count == 1 or part >= count * LEAST_SLICE]
        ways = sorted({(count, min(count, window)) for count in counts for window in DESCRIBED_WINDOWS})
    else:
        lengths = FAR_MESSAGES if machine.far else NEAR_MESSAGES
        counts = sorted({1, *(min(MOST_SLICES, -(-part // length)) for length in lengths if part)})
        ways = [(count, window_of(count, machine)) for count in counts]
    choices = [name] if name else algorithms(collective, machine, uneven=uneven)
    return [Choice(algorithm, *way) for algorithm in choices for way in ways]


def _unsliced(collective: str, nbytes: int, machine: Machine) -> int:
    """Return how many bytes an algorithm that is not sliced sends at once."""
    whole = contract(collective).blocks == "one" and collective != "allreduce"
    return nbytes if whole else nbytes // machine.size
