"""Every collective over every transport: counts, sizes, roots, in place, blocking or not, every algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import COLLECTIVES, REDUCING, ROOTED, TRANSPORTS, Case, on_processes, on_ranks, perform

import pycomm
from pycomm.schedules import registry

SIZES = (1, 2, 3, 5, 8)
COUNTS = (0, 1, 7, 1000)
LONG = 50_001  # elements of float32: several fragments, and not divisible by anything
FAST = ("inproc",)  # the schedules are the same over all transports: here all combinations are tried


def roots(collective: str, size: int, count: int) -> list[int]:
    """All ranks for one of the counts, the first and the last for the other short ones, the last for the long one."""
    if collective not in ROOTED:
        return [0]
    return list(range(size)) if count == COUNTS[2] else sorted({size - 1 if count == LONG else 0, size - 1})


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_default_algorithm(transport: str, size: int, collective: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for count in (*COUNTS, LONG):
            for root in roots(collective, size, count):
                for in_place in (False, True):
                    case = Case(collective, count, root=root, in_place=in_place)
                    perform(comm, case)
                    perform(comm, case.but(waits=False))

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("size", (2, 3, 5, 7, 8, 13))
def test_every_algorithm(size: int, collective: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        half = size // 2 or 1
        comm.groups = [list(range(half)), list(range(half, size))] if size > 1 else [[0]]
        for algorithm in registry.names(collective):
            for root in {0, size // 2, size - 1} if collective in ROOTED else {0}:
                for count, slices in ((0, None), (1, None), (17, 3), (1009, 1), (1009, 4)):
                    for in_place in (False, True):
                        how = {"algorithm": algorithm, "slices": slices}
                        perform(comm, Case(collective, count, np.int32, root=root, in_place=in_place, how=how))

    on_ranks("inproc", size, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_every_algorithm_with_many_fragments(transport: str, collective: str) -> None:
    """Lanes fill up and drain: sends stop half-way, arrivals are forwarded."""

    def rank(comm: pycomm.Comm) -> None:
        comm.groups = [[0, 1], [2, 3, 4]]
        for algorithm in registry.names(collective):
            for slices in (1, 5):
                how = {"algorithm": algorithm, "slices": slices}
                count = 150_001 if collective in ("allreduce", "reduce", "broadcast", "scan", "exscan") else 40_001
                for in_place in (False, True):
                    perform(comm, Case(collective, count, np.int64, root=comm.size - 1 if collective in ROOTED else 0,
                                       in_place=in_place, how=how))  # fmt: skip

    on_ranks(transport, 5, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_megabyte_in_default_slices(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for collective in COLLECTIVES:
            for in_place in (False, True):
                perform(comm, Case(collective, 300_007, root=1 if collective in ROOTED else 0, in_place=in_place))

    on_ranks(transport, 3, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", SIZES)
def test_barrier_waits_for_everybody(transport: str, size: int) -> None:
    arrived: list[int] = []

    def rank(comm: pycomm.Comm) -> None:
        for turn in range(5):
            if comm.rank == turn % comm.size:
                arrived.append(turn)
            for algorithm in (None, *registry.names("barrier")):
                comm.Barrier(**({"algorithm": algorithm} if algorithm else {}))
            assert turn in arrived
            comm.Ibarrier().Wait()

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_back_to_back_calls_of_different_kinds(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        random = np.random.default_rng(7)  # the same on all ranks
        for _ in range(300):
            collective = COLLECTIVES[random.integers(len(COLLECTIVES))]
            root = int(random.integers(comm.size)) if collective in ROOTED else 0
            count = int(random.integers(0, 3000) ** 2 // 900)
            perform(comm, Case(collective, count, np.int32, root=root, in_place=bool(random.integers(2)),
                               waits=bool(random.integers(2))))  # fmt: skip

    on_ranks(transport, 4, rank)


@pytest.mark.parametrize("transport", ("shm", "tcp", "shm,tcp"))
@pytest.mark.parametrize("size", (2, 7))
def test_between_processes(transport: str, size: int) -> None:
    """More ranks than cores, too: those that wait must let the others run."""

    def rank(comm: pycomm.Comm) -> None:
        for collective in COLLECTIVES:
            for count in (1, 1000, 50_001):
                perform(comm, Case(collective, count, np.float64, root=1 if collective in ROOTED else 0))
        comm.Barrier()

    on_processes(transport, size, rank)


@pytest.mark.parametrize("collective", REDUCING)
@pytest.mark.parametrize("size", (2, 5))
def test_uneven_last_slice(collective: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for slices in (2, 3, 8, 100):
            perform(comm, Case(collective, 101, np.int16, how={"slices": slices}))

    on_ranks("inproc", size, rank)
