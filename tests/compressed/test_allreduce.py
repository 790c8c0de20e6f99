"""A compressed Allreduce: its error is within the bound, all ranks get the same bits, feedback bounds sums of calls."""

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
    [[0], [1], [2]],
    [[0, 1], [2, 3]],
    [[0, 3], [4, 1, 2]],
    [[0, 1, 2], [3, 4], [5, 6]],
)
COUNTS = (0, 1, 2, 5, 1000, (1 << 20) + 77)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_every_size_is_within_the_bound_and_the_same_everywhere(groups: list[list[int]]) -> None:
    size = sum(map(len, groups))

    def rank(comm: pycomm.Comm) -> list[bytes]:
        results = []
        for kind in KINDS:
            compressor = Compressor(comm, kind, groups)
            for count in COUNTS if kind == "int8" else COUNTS[:-1]:
                own, out = whole_numbers(comm.rank, count), np.full(count, np.nan, np.float32)
                compressor.Allreduce(own, out)
                assert np.array_equal(own, whole_numbers(comm.rank, count))  # the input is not written
                compressor.Allreduce(pycomm.IN_PLACE, own)
                assert own.tobytes() == out.tobytes()
                results.append(out)
        return results

    everyone = on_ranks(groups, rank)
    for results in zip(*everyone, strict=True):
        assert len({r.tobytes() for r in results}) == 1
    cases = [(kind, count) for kind in KINDS for count in (COUNTS if kind == "int8" else COUNTS[:-1])]
    for (kind, count), result in zip(cases, everyone[0], strict=True):
        inputs = [whole_numbers(r, count).astype(np.float64) for r in range(size)]
        sums = [np.sum([inputs[r] for r in group], axis=0) for group in groups]
        exact = np.sum(sums, axis=0)
        if not count:
            continue
        most = sum(bound(kind, np.abs(s).max()) for s in sums)
        if len(groups) > 2:
            most += bound(kind, np.abs(exact).max() + most)
        assert np.abs(result - exact).max() <= most + np.abs(exact).max() * 2.0**-22


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filling", ["random", "one huge", "subnormal", "zero"])
def test_the_bound_holds_block_by_block(kind: str, filling: str) -> None:
    """Of two ranks, blocks begin at multiples of 256, so that each can be held to its own bound."""

    def numbers(rank: int) -> np.ndarray:
        x = np.random.default_rng(rank).uniform(-1, 1, 256 * 40).astype(np.float32)
        if filling == "one huge":
            x[rank::256] = 1e30
        return x * np.float32({"subnormal": 2.0**-130, "zero": 0}.get(filling, 1))

    def rank(comm: pycomm.Comm) -> np.ndarray:
        out = np.empty(256 * 40, np.float32)
        Compressor(comm, kind, [[0], [1]]).Allreduce(numbers(comm.rank), out)
        return out

    first, second = on_ranks([[0], [1]], rank)
    assert first.tobytes() == second.tobytes()
    inputs = [numbers(r).astype(np.float64).reshape(-1, 256) for r in (0, 1)]
    largest = [np.abs(x) if kind == "bf16" else np.abs(x).max(1, keepdims=True) for x in inputs]
    most = bound(kind, largest[0]) + bound(kind, largest[1])
    exact = inputs[0] + inputs[1]
    assert (np.abs(first.reshape(-1, 256) - exact) <= most + (np.abs(exact) + most) * 2.0**-24).all()


@pytest.mark.parametrize("groups", [[[0], [1]], [[0, 1], [2], [3]]], ids=str)
def test_what_is_not_finite_is_seen(groups: list[list[int]]) -> None:
    def rank(comm: pycomm.Comm) -> Any:
        results = []
        for kind in KINDS:
            feedback = Feedback()
            x = np.full(2000, 1 + comm.rank, np.float32)
            if comm.rank == 1:
                x[[3, 700]] = np.inf, np.nan
            out = np.empty_like(x)
            compressor = Compressor(comm, kind, groups)
            compressor.Allreduce(x, out, feedback=feedback)
            assert np.isfinite(feedback.residual).all()
            again = np.empty_like(x)
            compressor.Allreduce(np.ones_like(x), again, feedback=feedback)
            assert np.isfinite(again).all()  # what was seen once is not fed back
            results.append(out)
        return results

    for results in zip(*on_ranks(groups, rank), strict=True):
        assert len({r.tobytes() for r in results}) == 1
        bad = np.flatnonzero(~np.isfinite(results[0]))
        assert bad.tolist() == [3, 700]


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16])
def test_other_dtypes_and_averages(dtype: Any) -> None:
    groups = [[0, 1], [2]]

    def rank(comm: pycomm.Comm) -> np.ndarray:
        x = (np.arange(3000) % 100 + comm.rank).astype(dtype)
        Compressor(comm, "int8", groups).Allreduce(pycomm.IN_PLACE, x, pycomm.AVG)
        return x

    results = on_ranks(groups, rank)
    assert len({r.tobytes() for r in results}) == 1
    exact = np.arange(3000) % 100 + 1.0
    coarse = 2.0**-7 * 200 if dtype is ml_dtypes.bfloat16 else 0  # of the group's sum and of the average
    assert (
        np.abs(results[0].astype(np.float64) - exact).max()
        <= (bound("int8", 199) + bound("int8", 101) + coarse) / 3 + coarse
    )


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0], [1], [2, 3]]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_feedback_keeps_the_sum_of_many_calls(groups: list[list[int]], kind: str) -> None:
    steps, count, size = 50, 1500, sum(map(len, groups))
    inputs = [np.random.default_rng(r).uniform(-1, 1, (steps, count)).astype(np.float32) for r in range(size)]
    for own in inputs:
        own += np.linspace(0, 1, count, dtype=np.float32)  # a bias, whose rounding does not average out

    def rank(comm: pycomm.Comm, fed: bool) -> np.ndarray:
        compressor, feedback = Compressor(comm, kind, groups), Feedback() if fed else None
        total, out = np.zeros(count), np.empty(count, np.float32)
        for own in inputs[comm.rank]:
            compressor.Allreduce(own, out, feedback=feedback)
            total += out
        return total

    exact = np.sum([own.astype(np.float64).sum(0) for own in inputs], axis=0)
    # at most 2 in each summand; a residual is at most bound(kind, 2 + residual) of each summand, and of the sum
    each = bound(kind, 2.0 * size) * (1 + 1 / 6)
    most = (len(groups) + 1) * each + steps * size * 2.0**-22
    with_feedback = np.abs(on_ranks(groups, rank, True)[0] - exact).max()
    assert with_feedback <= most
    assert np.abs(on_ranks(groups, rank, False)[0] - exact).max() > with_feedback


def test_descent_converges_with_feedback_and_not_without() -> None:
    """Minimise |x - target|^2 / 2 where a large coordinate of each block drowns the small ones of int4."""
    groups, count = [[0], [1]], 256
    target = np.linspace(0.01, 0.06, count, dtype=np.float32)

    def rank(comm: pycomm.Comm, fed: bool) -> float:
        compressor, feedback = Compressor(comm, "int4", groups), Feedback() if fed else None
        x, gradient = np.zeros(count, np.float32), np.empty(count, np.float32)
        noise = np.zeros(count, np.float32)
        for step in range(400):
            noise[0] = 1 if step % 2 else -1  # which the average of all steps is free of
            compressor.Allreduce(x - target + noise, gradient, pycomm.AVG, feedback=feedback)
            x -= 0.02 * gradient
        return float(np.abs(x - target)[1:].max())

    with_feedback, without = on_ranks(groups, rank, True)[0], on_ranks(groups, rank, False)[0]
    assert with_feedback < 0.01 < 0.05 < without


def test_over_sockets_between_processes_and_without_groups() -> None:
    from pycomm.job.launch import run_ranks

    def rank() -> Any:
        comm = pycomm.init()
        comm.set_timeout(10)
        x = whole_numbers(comm.rank, 300_000)
        one_host, sites = np.empty_like(x), np.empty_like(x)
        Compressor(comm, "int4").Allreduce(x, one_host)  # all ranks are on one host: nothing is compressed
        Compressor(comm, "int8", [[0, 1], [2, 3]]).Allreduce(x, sites)
        return one_host, sites.tobytes()

    results = run_ranks(4, rank, env={"PYCOMM_TRANSPORTS": "tcp"}, timeout=60)
    exact = np.sum([whole_numbers(r, 300_000) for r in range(4)], axis=0)
    assert all(np.array_equal(one_host, exact) for one_host, _ in results)
    assert len({sites for _, sites in results}) == 1


def test_wrong_arguments() -> None:
    def rank(comm: pycomm.Comm) -> None:
        with pytest.raises(pycomm.InvalidArgument, match="bf16, int8, int4"):
            Compressor(comm, "int2")
        compressor, x = Compressor(comm, "int8", [[0], [1]]), np.ones(8, np.float32)
        for arguments, what in (
            ((x, np.empty(8, np.float32), pycomm.MAX), "SUM and AVG"),
            ((x.astype(np.int32), np.empty(8, np.int32)), "one of float32"),
            ((x, np.empty(8)), "sendbuf has dtype float32 and recvbuf float64"),
            ((x, np.empty(7, np.float32)), "8 elements and recvbuf 7"),
            ((x, x), "overlap"),
        ):
            with pytest.raises(pycomm.InvalidArgument, match=what):
                compressor.Allreduce(*arguments)
        feedback = Feedback()
        compressor.Allreduce(pycomm.IN_PLACE, x, feedback=feedback)
        with pytest.raises(pycomm.InvalidArgument, match=r"reset\(\)"):
            compressor.Allreduce(pycomm.IN_PLACE, np.ones(9, np.float32), feedback=feedback)
        feedback.reset()
        compressor.Allreduce(pycomm.IN_PLACE, np.ones(9, np.float32), feedback=feedback)
        compressor.Free()

    on_ranks([[0], [1]], rank)


@pytest.mark.parametrize("what", ["kind", "op", "count"])
def test_ranks_that_disagree_all_get_an_error(what: str) -> None:
    """With one element int8 and int4 are equally long: the header tells."""

    def rank(comm: pycomm.Comm) -> None:
        odd = comm.rank == 2
        compressor = Compressor(comm, "int8" if odd and what == "kind" else "int4", [[0, 1], [2]])
        x = np.ones(5 if odd and what == "count" else 1, np.float32)
        op = pycomm.AVG if odd and what == "op" else pycomm.SUM
        with pytest.raises((pycomm.Mismatch, pycomm.Aborted, pycomm.Truncated)):
            compressor.Allreduce(pycomm.IN_PLACE, x, op)

    on_ranks([[0, 1], [2]], rank)
