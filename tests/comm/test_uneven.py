"""Collectives with a count a rank: empty blocks, gaps, any order of displacements, in place, many fragments."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import TRANSPORTS, on_processes, on_ranks

import pycomm
from pycomm.selection.machine import Machine

SIZES = (1, 2, 3, 5, 8, 13)


def shapes(size: int, scale: int) -> list[list[int]]:
    """Return some counts a rank."""
    return [
        [scale * (r % 3) for r in range(size)],  # every third is empty
        [scale * size if r == size - 1 else 0 for r in range(size)],
        [scale + r for r in range(size)],
        [0] * size,
    ]


def gaps(counts: list[int], backwards: bool) -> list[int]:
    """Return displacements with a gap of 3 elements before each block."""
    order = list(range(len(counts)))[:: -1 if backwards else 1]
    displs, at = [0] * len(counts), 0
    for r in order:
        displs[r] = at + 3
        at += 3 + counts[r]
    return displs


def block(source: int, target: int, count: int) -> np.ndarray:
    return (np.arange(count) % 97 + 1000 * source + 100_000 * target).astype(np.int32)


def expect_blocks(data: np.ndarray, counts: list[int], displs: list[int], wanted: list[np.ndarray]) -> None:
    untouched = np.full_like(data, -1)
    for n, at, values in zip(counts, displs, wanted, strict=True):
        untouched[at : at + n] = values
    np.testing.assert_array_equal(data, untouched)


def room(counts: list[int]) -> int:
    return sum(counts) + 3 * len(counts) + 3


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", SIZES)
def test_allgatherv_gatherv_scatterv(transport: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for scale in (1, 100, 30_000 if size < 8 else 3000):
            for counts in shapes(size, scale):
                for backwards in (False, True):
                    displs = gaps(counts, backwards)
                    n, wanted = counts[comm.rank], [block(r, 0, counts[r]) for r in range(size)]
                    data = np.full(room(counts), -1, np.int32)
                    comm.Allgatherv(block(comm.rank, 0, n), [data, (counts, displs)])
                    expect_blocks(data, counts, displs, wanted)

                    data[:] = -1
                    data[displs[comm.rank] : displs[comm.rank] + n] = block(comm.rank, 0, n)
                    comm.Iallgatherv(pycomm.IN_PLACE, [data, (counts, displs)]).Wait()
                    expect_blocks(data, counts, displs, wanted)

                    for root in {0, size - 1}:
                        here = comm.rank == root
                        data[:] = -1
                        comm.Gatherv(block(comm.rank, 0, n), [data, (counts, displs)] if here else None, root)
                        expect_blocks(data, counts, displs, wanted if here else [np.full(c, -1) for c in counts])

                        mine = np.full(n, -2, np.int32)
                        comm.Scatterv([data, (counts, displs)] if here else None, mine, root)
                        np.testing.assert_array_equal(mine, wanted[comm.rank])

    on_ranks(transport, size, rank)


def test_counts_of_any_kind_also_once_the_call_is_known() -> None:
    """The second call of a kind is described in C: it takes, and refuses, what the first one does."""

    def rank(comm: pycomm.Comm) -> None:
        mine, data = np.full(2, comm.rank), np.empty(5, np.int64)
        for counts, displs in (([2, 2], [0, 3]), ((2, 2), (3, 0)), (np.array([2, 2]), np.array([0, 2], np.int32))):
            for _ in range(2):
                data[:] = -1
                comm.Allgatherv(mine, [data, (counts, displs)])
                expect_blocks(data, list(counts), list(displs), [np.full(2, 0), np.full(2, 1)])
        wrong = (
            ([2, -2], [0, 2]), ([2, 2], [0, 1]), ([2, 2], [0, 4]), ([2, 2, 0], [0, 2, 4]), ([1, 1], [0, 2]),
            ([2, 1 << 70], [0, 2]), ([2.0, 2.0], [0, 2]), (np.array([2, -2]), [0, 2]),
        )  # fmt: skip
        for layout in wrong:
            with pytest.raises(pycomm.InvalidArgument):
                comm.Allgatherv(mine, [data, layout])
        with pytest.raises(pycomm.InvalidArgument):
            comm.Allgatherv(mine.astype(np.int32), [data, [2, 2]])
        comm.Barrier()

    on_ranks("inproc", 2, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", SIZES)
def test_alltoallv(transport: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        me = comm.rank
        for scale in (1, 7, 20_000 if size < 8 else 2000):
            for turn in range(3):
                amount = [[scale * ((s + t + turn) % 3) for t in range(size)] for s in range(size)]  # [source][target]
                out, into = amount[me], [amount[s][me] for s in range(size)]
                from_displs, to_displs = gaps(out, turn == 1), gaps(into, turn == 2)
                data = np.full(room(out), -1, np.int32)
                for t in range(size):
                    data[from_displs[t] : from_displs[t] + out[t]] = block(me, t, out[t])
                for algorithm in (None, "direct", "pairwise"):
                    how = {"algorithm": algorithm} if algorithm else {}
                    got = np.full(room(into), -1, np.int32)
                    comm.Alltoallv([data, (out, from_displs)], [got, (into, to_displs)], **how)
                    expect_blocks(got, into, to_displs, [block(s, me, into[s]) for s in range(size)])

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter(transport: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for counts in (*shapes(size, 5), *shapes(size, 10_000)):
            total = sum(counts)
            mine = (np.arange(total) % 89 * (comm.rank + 1)).astype(np.int64)
            at = sum(counts[: comm.rank])
            wanted = np.arange(total)[at : at + counts[comm.rank]] % 89 * (size * (size + 1) // 2)
            for algorithm in (None, "ring", "direct"):
                how = {"algorithm": algorithm} if algorithm else {}
                got = np.full(counts[comm.rank], -1, np.int64)
                comm.Reduce_scatter(mine, got, counts, **how)
                np.testing.assert_array_equal(got, wanted)

    on_ranks(transport, size, rank)


def test_algorithms_that_cannot_are_refused_on_every_rank() -> None:
    """Also on those ranks whose own part of the algorithm would do."""

    def rank(comm: pycomm.Comm) -> None:
        counts = [1, 2, 3, 4]
        data, mine = np.zeros(10), np.zeros(counts[comm.rank])
        with pytest.raises(pycomm.InvalidArgument, match="binomial.*uneven"):
            comm.Gatherv(mine, [data, counts], algorithm="binomial")
        with pytest.raises(pycomm.InvalidArgument, match="binomial.*uneven"):
            comm.Scatterv([data, counts], mine, algorithm="binomial")
        with pytest.raises(pycomm.InvalidArgument, match="bruck.*uneven"):
            comm.Ialltoallv([data, counts], [data.copy(), counts], algorithm="bruck")
        comm.Barrier()

    on_ranks("inproc", 4, rank)


def test_counts_that_cannot_be_are_refused() -> None:
    def rank(comm: pycomm.Comm) -> None:
        data, mine = np.zeros(10), np.zeros(2)
        for spec, words in (
            ([data, [2, 2]], "counts must be 3 numbers"),
            ([data, [2, -1, 2]], "rank 1"),
            ([data, [2, 2, 7]], "rank 2.*within the 10 elements"),
            ([data, ([2, 2, 2], [0, 2, 9])], "rank 2"),
            ([data, ([2, 2, 2], [0, -2, 4])], "rank 1"),
            ([data, ([2, 2, 2], [0, 2])], "displacements must be 3"),
            ([data, [2.5, 2, 2]], "whole numbers"),
            ([data, ["a", 2, 2]], "whole numbers"),
            ([data, ([2, 2, 2], [0, 1, 4])], "overlap"),
            ([data, [2, 2, 2], 3], "is a list of 3"),
        ):
            with pytest.raises(pycomm.InvalidArgument, match=words):
                comm.Allgatherv(mine, spec)
        with pytest.raises(pycomm.InvalidArgument, match="sendbuf has 3 elements and the counts say 2"):
            comm.Allgatherv(np.zeros(3), [data, [2, 2, 2]])
        with pytest.raises(pycomm.InvalidArgument, match="recvbuf has 3 elements and the counts say 2"):
            comm.Reduce_scatter(np.zeros(6), np.zeros(3), [2, 2, 2])
        comm.Barrier()

    on_ranks("inproc", 3, rank)


def test_counts_that_disagree_in_an_alltoallv_are_found() -> None:
    def rank(comm: pycomm.Comm) -> None:
        out, into = [1, 2], [1, 2] if comm.rank else [1, 3]
        with pytest.raises(pycomm.Mismatch, match="counts"):
            comm.Alltoallv([np.zeros(3), out], [np.zeros(4), into])
            comm.Barrier()

    on_ranks("inproc", 2, rank)


@pytest.mark.parametrize("transport", ("shm", "tcp"))
def test_uneven_between_processes(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        counts = [0, 100_000, 1, 33_333]
        data = np.empty(sum(counts), np.int32)
        comm.Allgatherv(block(comm.rank, 0, counts[comm.rank]), [data, counts])
        np.testing.assert_array_equal(data, np.concatenate([block(r, 0, c) for r, c in enumerate(counts)]))

    on_processes(transport, 4, rank)


GROUPS = {
    "2+2": [[0, 1], [2, 3]],
    "3+1+2": [[5, 1, 2], [0], [3, 4]],
    "3+2+2 in turn": [[0, 3, 6], [1, 4], [2, 5]],
    "three levels": [[[0, 1], [2, 3, 4]], [[5], [6, 7]], [[8, 9]]],
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_alltoallv_by_way_of_near_ranks(transport: str, groups: list) -> None:
    """Blocks of any lengths, also none and very unlike ones, through ranks that are told how long they are."""
    size = 1 + max(np.hstack([np.hstack(group) for group in groups]).tolist())

    def rank(comm: pycomm.Comm) -> None:
        comm.groups = groups
        me = comm.rank
        shapes = (
            lambda s, t: (s * t) % 3,
            lambda s, t: 0,
            lambda s, t: 5 + s + 7 * t,
            lambda s, t: 50_000 if (s, t) == (size - 1, 0) else s % 2,
            lambda s, t: 300 * (s + t) if t % 2 else 0,
        )
        for shape in shapes:
            for algorithm in ("hierarchical", "hierarchical(direct, pairwise)"):
                out, into = [shape(me, t) for t in range(size)], [shape(s, me) for s in range(size)]
                from_displs, to_displs = gaps(out, True), gaps(into, False)
                data, got = np.full(room(out), -1, np.int32), np.full(room(into), -1, np.int32)
                for t in range(size):
                    data[from_displs[t] : from_displs[t] + out[t]] = block(me, t, out[t])
                comm.Alltoallv([data, (out, from_displs)], [got, (into, to_displs)], algorithm=algorithm)
                expect_blocks(got, into, to_displs, [block(s, me, into[s]) for s in range(size)])

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16"])
def test_alltoallv_by_way_of_near_ranks_of_any_type_and_in_slices(dtype: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        comm.groups = [[0, 1], [2, 3, 4]]
        counts = np.array([[1000 * ((s + 2 * t) % 3) for t in range(5)] for s in range(5)])
        kind = np.dtype(dtype)
        own = np.concatenate([np.full(n, 10 * comm.rank + t) for t, n in enumerate(counts[comm.rank])]).astype(kind)
        got = np.empty(counts[:, comm.rank].sum(), kind)
        comm.Alltoallv([own, counts[comm.rank]], [got, counts[:, comm.rank]], algorithm="hierarchical", slices=3)
        wanted = np.concatenate([np.full(n, 10 * s + comm.rank) for s, n in enumerate(counts[:, comm.rank])])
        np.testing.assert_array_equal(got, wanted.astype(kind))

    on_ranks("shm", 5, rank)


def test_what_is_chosen_follows_from_what_the_rank_with_most_sends() -> None:
    """All ranks choose alike, although some of them send nothing; and they choose anew when that changes."""

    def rank(comm: pycomm.Comm) -> list[str]:
        comm.settle(Machine(((0, 1), (2, 3)), (2, 2)))
        used = []
        for each in (1, 1, 1, 1_000_000, 1):  # they agree after 1, 2 and 4 calls
            out = [each if comm.rank == 3 else 0] * 4
            into = [0, 0, 0, each]
            got = np.empty(each, np.int32)
            own = np.concatenate([block(comm.rank, t, n) for t, n in enumerate(out)])
            comm.Alltoallv([own, out], [got, into])
            np.testing.assert_array_equal(got, block(3, comm.rank, each))
            used.append([record["algorithm"] for record in comm.trace() if record["collective"] == "alltoall"][-1])
        assert used[:3] == ["hierarchical"] * 3 and used[3] in ("direct", "pairwise") and used[4] == used[3]
        return used

    assert len({tuple(used) for used in on_ranks("shm", 4, rank)}) == 1


def test_groups_may_change_between_two_alltoallvs() -> None:
    def rank(comm: pycomm.Comm) -> None:
        for groups in ([[0, 1], [2, 3]], [[0], [1, 2, 3]], [[0, 1], [2, 3]], [[0, 1, 2, 3]]):
            comm.groups = groups
            for base in (1, 5):
                own = np.concatenate([block(comm.rank, t, base * t) for t in range(4)])
                got = np.empty(base * 4 * comm.rank, np.int32)
                comm.Alltoallv(
                    [own, [base * t for t in range(4)]], [got, [base * comm.rank] * 4], algorithm="hierarchical"
                )
                wanted = [block(s, comm.rank, base * comm.rank) for s in range(4)]
                np.testing.assert_array_equal(got, np.concatenate(wanted))

    on_ranks("inproc", 4, rank)


def test_counts_that_disagree_are_found_in_messages_of_several_blocks() -> None:
    """Also where only the order of two lengths differs, so that the message is as long as it should be."""

    def rank(comm: pycomm.Comm) -> None:
        comm.groups = [[0, 1], [2, 3]]
        counts = np.array([[1, 1, 2, 3], [1, 1, 5, 4], [1, 1, 1, 1], [1, 1, 1, 1]])
        out, into = counts[comm.rank], counts[:, comm.rank].copy()
        if comm.rank == 2:
            into[:2] = into[1::-1]
        with pytest.raises(pycomm.Mismatch, match="counts"):
            comm.Alltoallv([np.zeros(out.sum()), out], [np.zeros(into.sum()), into], algorithm="hierarchical")
            comm.Barrier()

    on_ranks("inproc", 4, rank)


def test_a_hierarchy_cannot_only_be_started() -> None:
    def rank(comm: pycomm.Comm) -> None:
        comm.groups = [[0, 1], [2, 3]]
        data, counts = np.zeros(10), [1, 2, 3, 4]
        with pytest.raises(pycomm.InvalidArgument, match="hierarchical.*unless the call is blocking"):
            comm.Ialltoallv([data, counts], [np.zeros(10), counts], algorithm="hierarchical")
        comm.Barrier()

    on_ranks("inproc", 4, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_calls_are_planned_by_what_all_ranks_know(transport: str) -> None:
    """Of a gather to all they know the whole vector, of an all-to-all nobody knows more than its own."""

    def rank(comm: pycomm.Comm) -> None:
        for counts, nbytes in (([100_000, 0, 31_072], 1 << 20), ([100_000, 1, 31_072], 2 << 20), ([0, 0, 0], 0)):
            own, everything = np.full(counts[comm.rank], comm.rank + 1.0), np.empty(sum(counts))
            assert comm._allgatherv(own, [everything, counts], {}).nbytes == nbytes
            assert comm._reduce_scatter(everything, own, counts, pycomm.SUM, {}).nbytes == nbytes
            comm.Allgatherv(own, [everything, counts])
            np.testing.assert_array_equal(everything, np.repeat([1.0, 2.0, 3.0], counts))
        lists = [np.zeros(6), [2, 2, 2]], [np.zeros(6), [2, 2, 2]]
        assert comm._alltoallv(*lists, {}).nbytes == 0

    on_ranks(transport, 3, rank)
