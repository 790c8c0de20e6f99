"""What reductions compute: every op and dtype against numpy, rounding, averages, NaN, -0, the same bits everywhere."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conformance import INPROC, REDUCING, TRANSPORTS, Case, combine, fingerprint, on_ranks, perform

import pycomm
from pycomm.schedules import registry

INTS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
NARROW = (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
FLOATS = (np.float32, np.float64, *NARROW)
COMPLEX = (np.complex64, np.complex128)
ARITHMETIC = (pycomm.SUM, pycomm.PROD, pycomm.AVG)
ORDER = (pycomm.MIN, pycomm.MAX)
LOGICAL = (pycomm.LAND, pycomm.LOR, pycomm.LXOR)
BITS = (pycomm.BAND, pycomm.BOR, pycomm.BXOR)
ALL_OPS = ARITHMETIC + ORDER + LOGICAL + BITS
DEFINED = {
    **dict.fromkeys(INTS, ALL_OPS),
    **dict.fromkeys(FLOATS, ARITHMETIC + ORDER + LOGICAL),
    **dict.fromkeys(COMPLEX, ARITHMETIC),
    np.bool_: tuple(op for op in ALL_OPS if op != pycomm.AVG),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", (2, 3, 5))
def test_every_op_on_every_dtype(transport: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for dtype, ops in DEFINED.items():
            for op in ops:
                for count in (0, 37):
                    if op == pycomm.AVG and np.dtype(dtype).kind not in "iu":
                        continue  # see below: it rounds
                    perform(comm, Case("allreduce", count, dtype, op))
                    perform(comm, Case("reduce_scatter", count, dtype, op, waits=False))

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("collective", REDUCING)
def test_ops_in_every_reduction(collective: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for dtype in (np.int16, ml_dtypes.bfloat16, np.float64, np.complex64):
            for op in DEFINED[dtype]:
                if op == pycomm.AVG and (dtype != np.int16 or collective in ("scan", "exscan")):
                    continue
                perform(comm, Case(collective, 100, dtype, op, root=comm.size - 1 if collective == "reduce" else 0))

    on_ranks(INPROC, 4, rank)


@pytest.mark.parametrize("size", (1, 2, 5))
def test_ops_without_meaning_are_refused_on_every_rank(size: int) -> None:
    """Also on ranks that only send, and on a communicator of one."""

    def rank(comm: pycomm.Comm) -> None:
        for dtype, ops in DEFINED.items():
            x, y = np.zeros(3, dtype), np.zeros(3, dtype)
            for op in set(ALL_OPS) - set(ops):
                with pytest.raises(pycomm.InvalidArgument, match="is not defined for"):
                    comm.Allreduce(x, y, op)
                with pytest.raises(pycomm.InvalidArgument, match="is not defined for"):
                    comm.Reduce(x, y, op, 0)
                with pytest.raises(pycomm.InvalidArgument, match="is not defined for"):
                    comm.Iexscan(x, y, op)
        for call in (comm.Scan, comm.Exscan):
            with pytest.raises(pycomm.InvalidArgument, match="AVG is not defined for (ex)?scan"):
                call(np.zeros(3), np.zeros(3), pycomm.AVG)
        for op in (-1, 11, 256, 256 + pycomm.MAX, 1 << 40):
            for dtype in (np.float32, np.int8):
                with pytest.raises(pycomm.InvalidArgument, match="op"):
                    comm.Allreduce(np.zeros(3, dtype), np.zeros(3, dtype), op)
        comm.Barrier()

    on_ranks(INPROC, size, rank)


@pytest.mark.parametrize("dtype", INTS)
def test_averages_of_integers_round_towards_zero(dtype: type) -> None:
    def rank(comm: pycomm.Comm) -> None:
        info = np.iinfo(dtype)
        mine = np.array([comm.rank, -comm.rank if info.min else comm.rank, 7, info.max // 4, info.min // 4], dtype)
        result = np.empty_like(mine)
        comm.Allreduce(mine, result, pycomm.AVG)
        sums = [3, -3 if info.min else 3, 21, 3 * (info.max // 4), 3 * (info.min // 4)]
        assert result.tolist() == [int(abs(s) // 3) * (1 if s >= 0 else -1) for s in sums]

    on_ranks(INPROC, 3, rank)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", (2, 3, 4))
def test_averages_of_floats(dtype: type, size: int) -> None:
    """Two kinds: float16 and float8 divide first, so that no sum overflows; the others divide last."""
    first = dtype in (np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
    largest = float(ml_dtypes.finfo(dtype).max)
    values = [1.0, 0.5, -3.0, *([largest / 2] if first else [])]

    def rank(comm: pycomm.Comm) -> None:
        mine = np.array(values).astype(dtype)
        for result in (np.empty_like(mine), mine.copy()):
            comm.Allreduce(pycomm.IN_PLACE if (result == mine).all() else mine, result, pycomm.AVG)
            near = float(ml_dtypes.finfo(dtype).eps) * size
            assert np.allclose(result.astype(float), values, rtol=near), result
        assert (mine == np.array(values).astype(dtype)).all()

    on_ranks(INPROC, size, rank)


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_floats_round_once_to_nearest_even(dtype: type) -> None:
    """A sum of two is the exact sum, rounded: all pairs of finite numbers of a float8, a grid of the wider two."""
    if np.dtype(dtype).itemsize == 1:
        numbers = np.arange(256, dtype=np.uint8).view(dtype)
    else:
        numbers = np.arange(0, 65536, 251, dtype=np.uint16).view(dtype)
    numbers = numbers[np.isfinite(numbers.astype(np.float32))]
    a, b = (x.ravel() for x in np.meshgrid(numbers, numbers))

    def rank(comm: pycomm.Comm) -> None:
        result = np.empty_like(a)
        for op, exact in (
            (pycomm.SUM, a.astype(float) + b.astype(float)),
            (pycomm.PROD, a.astype(float) * b.astype(float)),
        ):
            comm.Allreduce(a if comm.rank == 0 else b, result, op)
            wanted = exact.astype(np.float32).astype(dtype)
            agree = (result == wanted) | (np.isnan(result.astype(np.float32)) & np.isnan(wanted.astype(np.float32)))
            assert agree.all(), (a[~agree][:3], b[~agree][:3], result[~agree][:3], wanted[~agree][:3])

    on_ranks(INPROC, 2, rank)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_signed_zero(dtype: type) -> None:
    def rank(comm: pycomm.Comm) -> None:
        rows = [[np.nan, 1.0, -0.0, 0.0, -0.0], [2.0, np.nan, 0.0, -0.0, -0.0], [3.0, 4.0, -0.0, -0.0, -0.0]]
        mine = np.array(rows[comm.rank]).astype(dtype)
        got = {}
        for op in (pycomm.MIN, pycomm.MAX, pycomm.SUM):
            got[op] = np.empty_like(mine)
            comm.Allreduce(mine, got[op], op)
            result = got[op].astype(np.float64)
            assert np.isnan(result[:2]).all(), "NaN wins"
            assert (result[2:] == 0).all()
        signs = {op: np.signbit(got[op].astype(np.float64)[2:]).tolist() for op in got}
        assert signs == {
            pycomm.MIN: [True, True, True],
            pycomm.MAX: [False, False, True],
            pycomm.SUM: [False, False, True],
        }

    on_ranks(INPROC, 3, rank)


@pytest.mark.parametrize("size", (2, 3, 5, 8))
@pytest.mark.parametrize("dtype", (np.float32, ml_dtypes.bfloat16, np.float16, np.complex64))
def test_the_same_bits_on_every_rank_and_in_every_run(size: int, dtype: type) -> None:
    """Random floats, whose sum depends on the order: every rank gets the same one, near the exact one."""

    def rank(comm: pycomm.Comm) -> dict[str, int]:
        comm.groups = [list(range(size // 2)), list(range(size // 2, size))]
        inputs = [np.random.default_rng(r).standard_normal(3001).astype(dtype) for r in range(size)]
        mine, result, prints = inputs[comm.rank], np.empty(3001, dtype), {}
        exact = np.sum([x.astype(np.complex128) for x in inputs], axis=0)
        for algorithm in registry.names("allreduce"):
            for slices in (1, 2):
                comm.Allreduce(mine, result, algorithm=algorithm, slices=slices)
                error = np.abs(result.astype(np.complex128) - exact)
                bound = (
                    size
                    * np.max(np.abs(inputs), axis=0)
                    * size
                    * float(ml_dtypes.finfo(np.empty(0, dtype).real.dtype).eps)
                )
                assert (error <= np.maximum(bound.astype(float), 1e-30)).all()
                prints[f"{algorithm}/{slices}"] = fingerprint(result)
        comm.Allreduce(pycomm.IN_PLACE, again := mine.copy(), algorithm="ring")
        prints["in place"] = fingerprint(again)
        return prints

    runs = [on_ranks(INPROC, size, rank) for _ in range(2)]
    assert all(prints == runs[0][0] for run in runs for prints in run)
    assert runs[0][0]["in place"] == runs[0][0]["ring/1"] or size * 3001 > 2**20


def test_integers_wrap() -> None:
    def rank(comm: pycomm.Comm) -> None:
        for dtype in INTS:
            mine = np.full(5, np.iinfo(dtype).max, dtype)
            for op in (pycomm.SUM, pycomm.PROD):
                result = np.empty_like(mine)
                comm.Allreduce(mine, result, op)
                assert result.tolist() == combine(op, [mine] * comm.size).tolist()

    on_ranks(INPROC, 3, rank)
