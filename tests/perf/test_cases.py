"""Every case, run on an independent library of threads and numpy, comes out as it should; a spoilt one does not."""

from __future__ import annotations

import numpy as np
import pytest
from fake import on_ranks

from pycomm.errors import InvalidArgument
from pycomm.perf.bench import Bench, Cell, copies
from pycomm.perf.cases import CASES, Shape, find
from pycomm.perf.inputs import DTYPES, Inputs, dtype_of


def _wrong(collective, ranks, count, *, dtype="float", op="sum", root=0, in_place=False, spoil=False):
    cell = Cell(collective, count, dtype, op, root, in_place, 1 << 16)
    return [o.wrong for o in on_ranks(ranks, lambda library: Bench(library, cell).round(1, 3, True), spoil)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("collective", CASES)
def test_expectations_agree_with_numpy(collective, ranks):
    case = CASES[collective]
    forms = (False, True) if case.input_at is not None else (False,)
    for in_place in forms:
        for root in {0, ranks - 1} if case.rooted else {0}:
            for count in (1, 7, 2500) if case.moves_data else (0,):
                assert _wrong(collective, ranks, count, root=root, in_place=in_place) == [0] * ranks


@pytest.mark.parametrize("op", ["sum", "prod", "min", "max", "avg"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_op_is_exact(dtype, op):
    assert _wrong("allreduce", 5, 2500, dtype=dtype, op=op) == [0] * 5
    assert _wrong("reduce_scatter", 3, 700, dtype=dtype, op=op) == [0] * 3


@pytest.mark.parametrize("op", ["sum", "prod", "max"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_forgotten_contribution_is_counted(op, in_place):
    assert all(wrong > 100 for wrong in _wrong("allreduce", 3, 2500, op=op, in_place=in_place, spoil=True))


def test_sums_stay_exact_when_there_are_more_ranks_than_a_type_can_count():
    inputs = Inputs("f8e5m2", "sum", 40)
    exact = sum(inputs.of(rank, 0, 1009).astype(np.float64) for rank in range(40))
    assert np.array_equal(inputs.reduced("sum", 40, 0, 1009).astype(np.float64), exact)
    assert exact.max() <= 8 and exact.any()


def test_an_average_that_cannot_be_exact_is_refused():
    with pytest.raises(InvalidArgument, match="wider type"):
        Inputs("f8e4m3", "avg", 16)


def test_inputs_tell_ranks_and_places_apart():
    inputs = Inputs("float", "sum", 3)
    assert not np.array_equal(inputs.of(0, 0, 1000), inputs.of(1, 0, 1000))
    assert not np.array_equal(inputs.of(0, 0, 1000), inputs.of(0, 64, 1000))
    assert np.array_equal(inputs.of(0, 5000, 3000)[100:], inputs.of(0, 5100, 2900))


@pytest.mark.parametrize(
    ("collective", "factor"),
    [
        ("allreduce", 1.5),
        ("reduce_scatter", 0.75),
        ("allgather", 0.75),
        ("allgatherv", 0.75),
        ("alltoall", 0.75),
        ("alltoallv", 0.75),
        ("gather", 0.75),
        ("scatter", 0.75),
        ("broadcast", 1.0),
        ("reduce", 1.0),
        ("sendrecv", 1.0),
    ],
)
def test_bus_bandwidth_factors_at_four_ranks(collective, factor):
    assert CASES[collective].busbw(4) == factor


@pytest.mark.parametrize("collective", [name for name, case in CASES.items() if case.moves_data])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_printed_size_is_what_nccl_tests_prints(collective, ranks):
    """The larger of a rank's input and output, at the rank where it is largest."""
    case = CASES[collective]
    shapes = [Shape(rank, ranks, 6) for rank in range(ranks)]
    largest = max(max(case.sends(s), case.receives(s)) for s in shapes)
    assert case.nbytes(6, 4, ranks) == 4 * largest
    assert case.count(case.nbytes(6, 4, ranks), 4, ranks) == 6
    assert case.count(1, 4, ranks) == 1


def test_least_traffic_counts_inputs_and_outputs_once():
    assert CASES["allreduce"].least_traffic(100, 4, 3) == 3 * 400 + 3 * 400
    assert CASES["broadcast"].least_traffic(100, 4, 3) == 400 + 2 * 400
    assert CASES["allgather"].least_traffic(100, 4, 3) == 3 * 400 + 3 * 1200
    assert CASES["barrier"].least_traffic(0, 4, 3) == 0


@pytest.mark.parametrize("word", ["allreduce", "all_reduce", "all_reduce_perf", "AllReduce", "broadcast", "bcast"])
def test_names(word):
    assert find(word).name in ("allreduce", "broadcast")


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(InvalidArgument, match="allreduce, reduce, broadcast"):
        find("allreduc")
    with pytest.raises(InvalidArgument, match="bfloat16"):
        dtype_of("float128")


def test_copies_overflow_the_cache_within_memory():
    assert copies(1 << 30, 2, 1 << 33) == 2
    assert copies(1 << 30, 2, 1 << 20) == 1
    assert copies(8, 2, 1 << 30) == 64
    assert 2 < copies(1 << 20, 2, 1 << 33) <= 64
