"""Compressed Reduce_scatter and Allgather: errors within their bounds, the same bits, feedback, disagreements."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from compressed_helpers import KINDS, bound, on_ranks, whole_numbers

import pycomm
from pycomm.compressed import Compressor, Feedback

GROUPS = (
    [[0], [1]],
    [[0, 2], [1]],
    [[0, 1], [2, 3]],
    [[0, 3], [4, 1, 2]],
    [[0, 1, 2], [3, 4], [5, 6]],
)
SHAPES = ("empty", "single", "even", "uneven", "long")


def counts_of(shape: str, size: int) -> list[int]:
    return {
        "empty": [0] * size,
        "single": [int(r == 1) for r in range(size)],
        "even": [700] * size,
        "uneven": [(r * r * 300) % 1900 for r in range(size)],
        "long": [(1 << 20) // size + 3 + r for r in range(size)],
    }[shape]


def starts_of(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts])


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_a_reduce_scatter_is_within_its_bound(groups: list[list[int]]) -> None:
    size = sum(map(len, groups))
    cases = [(kind, shape) for kind in KINDS for shape in SHAPES if kind == "int8" or shape != "long"]

    def rank(comm: pycomm.Comm) -> list[np.ndarray]:
        results = []
        for kind, shape in cases:
            counts = counts_of(shape, size)
            own, out = whole_numbers(comm.rank, sum(counts)), np.full(counts[comm.rank], np.nan, np.float32)
            Compressor(comm, kind, groups).Reduce_scatter(own, out, counts)
            assert np.array_equal(own, whole_numbers(comm.rank, sum(counts)))  # the input is not written
            if shape == "even":
                again, whole = np.empty_like(out), own.copy()
                compressor = Compressor(comm, kind, groups)
                compressor.Reduce_scatter_block(own, again)
                compressor.Reduce_scatter_block(pycomm.IN_PLACE, whole)
                assert again.tobytes() == out.tobytes() == whole[: out.size].tobytes()
            results.append(out)
        return results

    everyone = on_ranks(groups, rank)
    for number, (kind, shape) in enumerate(cases):
        counts = counts_of(shape, size)
        inputs = [whole_numbers(r, sum(counts)).astype(np.float64) for r in range(size)]
        sums = [np.sum([inputs[r] for r in group], axis=0) for group in groups]
        for owner, (start, count) in enumerate(zip(starts_of(counts), counts, strict=False)):
            here = slice(start, start + count)
            result, exact = everyone[owner][number], sum(s[here] for s in sums)
            assert result.size == count
            others = [
                np.abs(s[here]).max(initial=0) for s, group in zip(sums, groups, strict=True) if owner not in group
            ]
            most = sum(bound(kind, largest) for largest in others) + np.abs(exact).max(initial=0) * 2.0**-22
            assert np.abs(result - exact).max(initial=0) <= most


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_an_allgather_is_within_its_bound_and_the_same_everywhere(groups: list[list[int]]) -> None:
    size = sum(map(len, groups))
    cases = [(kind, shape) for kind in KINDS for shape in SHAPES if kind == "int8" or shape != "long"]

    def rank(comm: pycomm.Comm) -> list[np.ndarray]:
        results = []
        for kind, shape in cases:
            counts = counts_of(shape, size)
            own, out = whole_numbers(comm.rank, counts[comm.rank]), np.full(sum(counts), np.nan, np.float32)
            compressor = Compressor(comm, kind, groups)
            compressor.Allgatherv(own, [out, counts])
            assert np.array_equal(own, whole_numbers(comm.rank, counts[comm.rank]))
            # Apart, from the last to the first, and in place
            displs = sum(counts) + size - starts_of(counts)[1:] - np.arange(size)
            apart = np.full(sum(counts) + size, np.nan, np.float32)
            apart[displs[comm.rank] : displs[comm.rank] + own.size] = own
            compressor.Allgatherv(pycomm.IN_PLACE, [apart, (counts, displs)])
            blocks = [apart[d : d + n] for d, n in zip(displs, counts, strict=True)]
            assert np.concatenate(blocks).tobytes() == out.tobytes()
            assert np.isnan(apart).sum() == size  # nothing between the blocks is written
            if shape == "even":
                again = np.empty_like(out)
                compressor.Allgather(own, again)
                assert again.tobytes() == out.tobytes()
            results.append(out)
        return results

    everyone = on_ranks(groups, rank)
    for number, (kind, shape) in enumerate(cases):
        counts = counts_of(shape, size)
        assert len({results[number].tobytes() for results in everyone}) == 1
        result, at = everyone[0][number], starts_of(counts)
        for owner, count in enumerate(counts):
            exact = whole_numbers(owner, count)
            error = np.abs(result[at[owner] : at[owner + 1]] - exact).max(initial=0)
            assert error <= bound(kind, np.abs(exact).max(initial=0))


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16])
def test_other_dtypes_and_averages(dtype: Any) -> None:
    groups = [[0, 1], [2]]

    def rank(comm: pycomm.Comm) -> tuple[np.ndarray, np.ndarray]:
        compressor = Compressor(comm, "int8", groups)
        x = (np.arange(900) % 100 + comm.rank).astype(dtype)
        block, whole = np.empty(300, dtype), np.empty(900, dtype)
        compressor.Reduce_scatter_block(x, block, pycomm.AVG)
        compressor.Allgather(x[:300], whole)
        return block.astype(np.float64), whole.astype(np.float64)

    coarse = 2.0**-7 * 200 if dtype is ml_dtypes.bfloat16 else 0  # of a group's sum and of the result
    for number, (block, whole) in enumerate(on_ranks(groups, rank)):
        exact = np.arange(300 * number, 300 * number + 300) % 100 + 1.0
        assert np.abs(block - exact).max() <= (bound("int8", 199) + coarse) / 3 + coarse
        gathered = np.concatenate([np.arange(300) % 100 + r for r in range(3)])
        assert np.abs(whole - gathered).max() <= bound("int8", 101) + coarse / 2


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0], [1], [2, 3]]], ids=str)
def test_what_is_not_finite_is_seen(groups: list[list[int]]) -> None:
    size = sum(map(len, groups))

    def rank(comm: pycomm.Comm) -> list[tuple[np.ndarray, np.ndarray]]:
        results = []
        for kind in KINDS:
            compressor, fed = Compressor(comm, kind, groups), [Feedback(), Feedback()]
            x = np.ones(600 * size, np.float32)
            if comm.rank == size - 1:
                x[[3, 700]] = np.inf, np.nan
            block, whole = np.empty(600, np.float32), np.empty(600 * size, np.float32)
            for _ in range(2):
                compressor.Reduce_scatter_block(x, block, feedback=fed[0])
                compressor.Allgather(x[:600], whole, feedback=fed[1])
                results.append((block.copy(), whole.copy()))
                x[:] = 1
            assert all(np.isfinite(each.residual).all() for each in fed)
        return results

    everyone = on_ranks(groups, rank)
    for number in range(2 * len(KINDS)):
        sums = np.concatenate([results[number][0] for results in everyone])
        whole = everyone[0][number][1]
        bad = number % 2 == 0  # what was seen once is not fed back
        assert np.flatnonzero(~np.isfinite(sums)).tolist() == ([3, 700] if bad else [])
        assert np.flatnonzero(~np.isfinite(whole)).tolist() == ([600 * (size - 1) + 3] if bad else [])


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0], [1], [2, 3]]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_feedback_keeps_the_sum_of_many_calls(groups: list[list[int]], kind: str) -> None:
    steps, count, size = 50, 400, sum(map(len, groups))
    inputs = [np.random.default_rng(r).uniform(-1, 1, (steps, size * count)).astype(np.float32) for r in range(size)]
    for own in inputs:
        own += np.linspace(0, 1, size * count, dtype=np.float32)  # a bias, whose rounding does not average out

    def rank(comm: pycomm.Comm, fed: bool) -> tuple[np.ndarray, np.ndarray]:
        compressor, feedbacks = Compressor(comm, kind, groups), [Feedback() if fed else None for _ in range(2)]
        totals, block, whole = (np.zeros(count), np.zeros(size * count)), np.empty(count, np.float32), None
        whole = np.empty(size * count, np.float32)
        for own in inputs[comm.rank]:
            compressor.Reduce_scatter_block(own, block, feedback=feedbacks[0])
            compressor.Allgather(own[:count], whole, feedback=feedbacks[1])
            totals[0][:] += block
            totals[1][:] += whole
        return totals

    exact = np.sum([own.astype(np.float64).sum(0) for own in inputs], axis=0)
    gathered = np.concatenate([own[:, :count].astype(np.float64).sum(0) for own in inputs])
    errors = []
    for fed in (True, False):
        results = on_ranks(groups, rank, fed)
        sums = np.concatenate([total for total, _ in results])
        errors.append((np.abs(sums - exact).max(), np.abs(results[0][1] - gathered).max()))
    # a residual is at most 1/6 of what is encoded, which is at most 2 of each rank
    most = len(groups) * bound(kind, 2.0 * size) * (1 + 1 / 6), bound(kind, 2.0) * (1 + 1 / 6)
    rounding = steps * size * 2.0**-22
    for with_feedback, without, limit in zip(*errors, most, strict=True):
        assert with_feedback <= limit + rounding
        assert without > with_feedback


def test_over_sockets_between_processes_and_in_one_group() -> None:
    from pycomm.job.launch import run_ranks

    def rank() -> Any:
        comm = pycomm.init()
        comm.set_timeout(10)
        counts = [1000, 2000, 3000, 4000]
        x = whole_numbers(comm.rank, 10_000)
        results = []
        for groups in ([[3, 1, 0, 2]], [[0, 1], [2, 3]]):  # in one group nothing is compressed
            compressor = Compressor(comm, "int8", groups)
            block, whole = np.empty(counts[comm.rank], np.float32), np.empty(10_000, np.float32)
            compressor.Reduce_scatter(x, block, counts)
            compressor.Allgatherv(block, [whole, counts])
            results.append(whole)
        return results

    exact = np.sum([whole_numbers(r, 10_000) for r in range(4)], axis=0)
    results = run_ranks(4, rank, env={"PYCOMM_TRANSPORTS": "tcp"}, timeout=60)
    assert all(np.array_equal(alone, exact) for alone, _ in results)
    assert len({sites.tobytes() for _, sites in results}) == 1
    assert 0 < np.abs(results[0][1] - exact).max() <= bound("int8", 2000) + bound("int8", 4100)


def test_wrong_arguments() -> None:
    def rank(comm: pycomm.Comm) -> None:
        compressor, x, one = Compressor(comm, "int8", [[0], [1]]), np.ones(8, np.float32), np.ones(1, np.float32)
        scatter, gather = compressor.Reduce_scatter, compressor.Allgatherv
        for call, arguments, what in (
            (compressor.Reduce_scatter_block, (x, np.empty(3, np.float32)), "8 elements to reduce and 3 in a block"),
            (compressor.Reduce_scatter_block, (x, np.empty(4, np.float32), pycomm.MAX), "SUM and AVG"),
            (compressor.Reduce_scatter_block, (x, x[:4]), "overlap"),
            (scatter, (x, np.empty(4), [4, 4]), "sendbuf has dtype float32 and recvbuf float64"),
            (scatter, (x, np.empty(5, np.float32), [4, 4]), "recvbuf has 5 elements, and recvcounts says 4"),
            (scatter, (x, np.empty(4, np.float32), [4, 5]), "does not lie within the 8 elements"),
            (compressor.Allgather, (x, np.empty(15, np.float32)), "recvbuf has 15 elements"),
            (compressor.Allgather, (x.astype(np.int32), np.empty(16, np.int32)), "one of float32"),
            (gather, (one, [x, [4, 4]]), "sendbuf has 1 elements, and the counts of recvbuf say 4"),
            (gather, (x[:4], [x, [4, 4]]), "overlap"),
        ):
            with pytest.raises(pycomm.InvalidArgument, match=what):
                call(*arguments)

    on_ranks([[0], [1]], rank)


@pytest.mark.parametrize("what", ["collective", "counts", "op"])
def test_ranks_that_disagree_all_get_an_error(what: str) -> None:
    """Of 2 and 1 elements as int4 the messages are equally long: a checksum tells."""

    def rank(comm: pycomm.Comm) -> None:
        odd = comm.rank == 2
        compressor = Compressor(comm, "int4", [[0, 1], [2]])
        counts = [1, 2, 1] if odd and what == "counts" else [2, 1, 1]
        x, out = np.ones(4, np.float32), np.empty(counts[comm.rank], np.float32)
        with pytest.raises((pycomm.Mismatch, pycomm.Aborted, pycomm.Truncated)):
            if odd and what == "collective":
                compressor.Allgatherv(x[:1], [x.copy(), counts])
            else:
                compressor.Reduce_scatter(x, out, counts, pycomm.AVG if odd and what == "op" else pycomm.SUM)

    on_ranks([[0, 1], [2]], rank)
