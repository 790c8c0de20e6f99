"""Tuning: cases are timed on real ranks; residuals and errors follow from measurements as they should."""

from __future__ import annotations

import os
import shutil

import pytest

from pycomm.errors import InvalidArgument
from pycomm.selection.candidates import Choice
from pycomm.selection.predict import Predictor
from pycomm.selection.table import Table
from pycomm.tune.jobs import measure_job
from pycomm.tune.learn import errors, residuals, steady
from pycomm.tune.measure import COLLECTIVES, Case, Measurement
from pycomm.tune.plan import cases, held_out_ranks, machine_of

ROOT = os.geteuid() == 0 and shutil.which("ip")


@pytest.mark.parametrize(("size", "transport"), [(3, "shm"), (2, "tcp"), (4, "mixed")])
def test_cases_are_timed_on_ranks(size: int, transport: str) -> None:
    if transport == "mixed" and not ROOT:
        pytest.skip("only root may make network namespaces")
    asked = [Case(collective, n, Choice("direct", 2, 2)) for collective in COLLECTIVES for n in (8, 10_000)]
    found = measure_job(size, transport, asked, 0.1)
    assert [(one.collective, one.asked, one.choice) for one in found] == [tuple(case) for case in asked]
    for one in found:
        assert (one.size, one.transport, one.hosts) == (size, transport, 2 if transport == "mixed" else 1)
        assert 0 < one.seconds < 1 and one.spread >= 0 and one.repeats >= 3
        assert one.nbytes <= max(one.asked, 4 * size)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no transport 'ib'"):
        measure_job(2, "ib", [], 1.0)
    with pytest.raises(InvalidArgument, match="barrier cannot be tuned"):
        measure_job(2, "shm", [Case("barrier", 8, Choice("direct", 1, 1))], 1.0)


def as_if(times_predicted: float, nbytes: int, spread: float = 0.0) -> Measurement:
    model = Predictor(machine_of(4, "shm"))
    seconds = times_predicted * model.seconds("allreduce", Choice("ring", 1, 1), nbytes)
    return Measurement("allreduce", "ring", 1, 1, nbytes, 4, "shm", seconds, spread, 9, 1, nbytes)


def test_residuals_are_what_the_model_is_off_and_leave_no_error() -> None:
    found = [as_if(1.5, 1 << 10), as_if(2.0, 1 << 20)]
    table = Table(residuals=residuals(found, Table()))
    assert [(one.nbytes, one.factor) for one in table.residuals] == [(1 << 10, 1.5), (1 << 20, 2.0)]
    (error,) = errors(found, table)
    assert (error.short, error.long) == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-3))
    (error,) = errors(found, Table())
    assert (error.short, error.long, error.count) == (pytest.approx(1 / 3), pytest.approx(1 / 2), 2)


def test_shaky_measurements_are_not_learnt_from() -> None:
    assert [one.spread for one in steady([as_if(1, 8, 0.1), as_if(1, 8, 0.9)])] == [0.1]


def test_every_algorithm_is_measured_and_a_prime_is_held_out() -> None:
    assert held_out_ranks([2, 3, 4, 8]) == {3} and held_out_ranks([2, 4]) == set()
    machine = machine_of(4, "mixed")
    assert machine.hosts == ((0, 1), (2, 3))
    asked = cases(machine, [8, 1 << 20])
    assert {case.collective for case in asked} == set(COLLECTIVES)
    assert {case.choice.algorithm for case in asked if case.collective == "alltoall"} == {
        "bruck", "direct", "hierarchical", "pairwise",
    }  # fmt: skip
