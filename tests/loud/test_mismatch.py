"""Ranks that disagree on a call find out, on both sides, which calls they were; never a hang, never a silent answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conformance import INPROC, SHM, TCP, TRANSPORTS, on_processes, on_ranks
from mismatches import TYPED, cases, told

import pycomm

Call = Callable[[pycomm.Comm], None]


def f32(n: int = 8) -> np.ndarray:
    return np.ones(n, np.float32)


def allreduce(c: pycomm.Comm) -> None:
    c.Allreduce(f32(), f32())


# What rank 1 does where all others call allreduce(float32, count 8, SUM), and a word that both sides must hear of it.
AGAINST_ALLREDUCE: dict[str, tuple[Call, str]] = {
    "collective": (lambda c: c.Scan(f32(), f32()), "scan"),
    "barrier": (lambda c: c.Barrier(), "barrier"),
    "alltoall": (lambda c: c.Alltoall(f32(8 * c.size), f32(8 * c.size)), "alltoall"),
    "dtype": (lambda c: c.Allreduce(np.ones(8, np.int32), np.ones(8, np.int32)), "int32"),
    "wider dtype": (lambda c: c.Allreduce(np.ones(8), np.ones(8)), "float64"),
    "same bytes": (lambda c: c.Allreduce(np.ones(4), np.ones(4)), "count 4"),
    "count": (lambda c: c.Allreduce(f32(9), f32(9)), "count 9"),
    "no count": (lambda c: c.Allreduce(f32(0), f32(0)), "count 0"),
    "large count": (lambda c: c.Allreduce(f32(500_000), f32(500_000)), "count 500000"),
    "op": (lambda c: c.Allreduce(f32(), f32(), pycomm.MAX), "MAX"),
}


def expect_mismatch(comm: pycomm.Comm, first: Call, words: tuple[str, ...]) -> None:
    """Make a call and go on, until the disagreement shows: a rank whose part was done is told at a later call."""
    with pytest.raises(pycomm.Mismatch) as caught:
        comm.Barrier()  # inside: the others may be ahead, and their failure ends what this rank is still in
        first(comm)
        for _ in range(1000):
            allreduce(comm)
    for word in words:
        assert word in str(caught.value), caught.value
    assert 0 <= caught.value.rank < comm.size and (comm.size > 2 or caught.value.rank != comm.rank)
    with pytest.raises(pycomm.Mismatch) as again:  # and so does every call from now on
        comm.Ibarrier()
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("what", AGAINST_ALLREDUCE)
@pytest.mark.parametrize("size", (2, 4))
def test_against_an_allreduce(transport: str, what: str, size: int) -> None:
    call, word = AGAINST_ALLREDUCE[what]

    def rank(comm: pycomm.Comm) -> None:
        expect_mismatch(
            comm, call if comm.rank == 1 else allreduce, ("disagree", "allreduce(float32, count 8, SUM)", word)
        )

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("collective", ("bcast", "reduce", "gather", "scatter"))
@pytest.mark.parametrize("size", (2, 3))
def test_root(transport: str, collective: str, size: int) -> None:
    """Two ranks that each think to be the root may both have returned: the next call must not go unnoticed."""

    def rank(comm: pycomm.Comm) -> None:
        root = 1 if comm.rank == 1 else 0
        calls: dict[str, Call] = {
            "bcast": lambda c: c.Bcast(f32(), root),
            "reduce": lambda c: c.Reduce(f32(), f32(), root=root),
            "gather": lambda c: c.Gather(f32(), f32(8 * size), root),
            "scatter": lambda c: c.Scatter(f32(8 * size), f32(), root),
        }
        expect_mismatch(comm, calls[collective], ("disagree",))

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("transport", (INPROC, SHM, TCP))
def test_every_disagreement_in_every_collective(transport: str) -> None:
    """The matrix that mismatches.py prints: each rank is told, of whatever the ranks may disagree on."""
    wrong = [
        f"{collective}, another {kind}: rank {rank} {what}: {words}"
        for collective, kind, usual, odd in cases()
        for rank, (what, words) in enumerate(told(transport, usual, odd))
        if what != TYPED
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_order(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        x, y = f32(), f32(16)
        calls: list[Call] = [lambda c: c.Allreduce(x, x.copy()), lambda c: c.Allreduce(y, y.copy())]
        if comm.rank:
            calls.reverse()
        expect_mismatch(comm, calls[0], ("count 8", "count 16", "as operation"))

    on_ranks(transport, 2, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_call_too_many(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        extra = comm.rank == 0  # whose first call nobody else makes
        expect_mismatch(
            comm, (lambda c: c.Bcast(f32(), 0)) if extra else allreduce, ("broadcast", "allreduce", "operation 1")
        )

    on_ranks(transport, 2, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("how", ({"algorithm": "doubling"}, {"slices": 2}, {"algorithm": "ring", "slices": 3}))
def test_algorithm_and_slices(transport: str, how: dict[str, object]) -> None:
    """Their messages may look alike: the ranks compare what they run, before a byte is believed."""

    def rank(comm: pycomm.Comm) -> None:
        usual = {"algorithm": "ring", "slices": 1}

        def call(c: pycomm.Comm) -> None:
            c.Allreduce(f32(64), f32(64), **(how if c.rank else usual))

        expect_mismatch(comm, call, ("disagree",))

    on_ranks(transport, 2, rank)


def test_own_algorithms_that_differ() -> None:
    def rank(comm: pycomm.Comm) -> None:
        def one(v: pycomm.schedules.view.View) -> None:  # type: ignore[name-defined]
            with v.round():
                v.send(0, to=v.rank + 1)
                v.reduce(0, frm=v.rank + 1)

        def two(v: pycomm.schedules.view.View) -> None:  # type: ignore[name-defined]
            one(v)

        expect_mismatch(comm, lambda c: c.Allreduce(f32(), f32(), algorithm=one if c.rank else two), ("algorithm",))

    on_ranks(INPROC, 2, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_counts_of_uneven_blocks(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        counts = [5, 7] if comm.rank else [5, 8]
        data = f32(13)
        expect_mismatch(comm, lambda c: c.Allgatherv(f32(counts[c.rank]), [data, counts]), ("disagree",))

    on_ranks(transport, 2, rank)


@pytest.mark.parametrize("transport", (SHM, TCP))
def test_between_processes(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        expect_mismatch(
            comm, allreduce if comm.rank != 2 else (lambda c: c.Allreduce(f32(3), f32(3))), ("count 3", "count 8")
        )

    on_processes(transport, 4, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_other_communicators_live_on(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        expect_mismatch(own, allreduce if comm.rank else (lambda c: c.Allreduce(f32(3), f32(3))), ("disagree",))
        comm.Barrier()
        fresh = comm.Split(0)
        assert fresh is not None
        allreduce(fresh)

    on_ranks(transport, 3, rank)
