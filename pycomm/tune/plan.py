"""What `pycomm tune` measures: which jobs, and which cases in each, so that some of them can judge the fit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product

from ..selection.candidates import candidates
from ..selection.machine import Machine, one_host
from .measure import COLLECTIVES, Case

# Bytes of a rank's full vector: those that are fitted, and those in between that judge the fit.
FITTED = (8, 1 << 11, 1 << 15, 1 << 18, 1 << 20, 1 << 22)
HELD_OUT = (96, 3 << 15, 3 << 18)
_TOGETHER = 16 << 20  # bytes of all ranks' vectors; more of them take long and say no more


def default_ranks() -> list[int]:
    """Return numbers of ranks that show what a machine does: fewer and more than it has processors, and a prime."""
    processors = len(os.sched_getaffinity(0))
    return sorted({2, 3, max(2, processors), 2 * processors, 4 * processors})


def held_out_ranks(ranks: Iterable[int]) -> set[int]:
    """Return those numbers of ranks that judge the fit: one between the least and the most, a prime if there is one."""
    inner = sorted(ranks)[1:-1]
    odd = [count for count in inner if count % 2]
    return set((odd or inner)[:1])


def machine_of(size: int, transport: str) -> Machine:
    """Return the machine that the ranks of a job to be measured will know, but for its table."""
    processors = len(os.sched_getaffinity(0))
    if transport != "mixed":
        return one_host(size, processors, shared=transport == "shm")
    half = (size + 1) // 2
    return Machine((tuple(range(half)), tuple(range(half, size))), 2 * (max(1, processors // 2),))


def cases(machine: Machine, sizes: Iterable[int] = FITTED + HELD_OUT) -> list[Case]:
    """Return what to measure on a machine: of each algorithm and size the coarsest and a middle slicing."""
    found = []
    sizes = [nbytes for nbytes in sizes if nbytes * machine.size <= _TOGETHER]
    for collective, nbytes in product(COLLECTIVES, sizes):
        ways = candidates(collective, nbytes, machine)
        counts = sorted({way.slices for way in ways})
        kept = {counts[0], counts[len(counts) // 2]}
        found += [Case(collective, nbytes, way) for way in ways if way.slices in kept]
    return found
