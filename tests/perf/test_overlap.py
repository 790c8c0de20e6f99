"""--overlap: calls are started, computing lies between, and what it hides is counted as OSU counts it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from fake import on_ranks

from pycomm.perf import overlap
from pycomm.perf.bench import Bench, Cell
from pycomm.perf.cases import CASES
from pycomm.perf.coordinator import Sample
from pycomm.perf.rivals import RIVALS


@pytest.mark.parametrize(
    ("pure", "compute", "total", "hidden"),
    [
        (100, 100, 100, 100.0), (100, 100, 110, 90.0), (100, 100, 200, 0.0),
        (100, 100, 300, 0.0),  # worse than one after the other is none at all
        (50, 200, 220, 60.0),  # also where computing takes longer than the call
    ],
)  # fmt: skip
def test_the_share_is_osus(pure: float, compute: float, total: float, hidden: float) -> None:
    assert overlap.percent(pure, compute, total) == pytest.approx(hidden)
    assert Sample([pure] * 3, [compute] * 3, [total] * 3).overlap == pytest.approx(hidden)


def test_without_a_measurement_there_is_none() -> None:
    assert Sample([1.0]).overlap is None


def test_work_is_an_amount() -> None:
    work = overlap.Work()
    rows = []
    for nanoseconds in (0.0, 1e5, 1e7):
        work.calibrate(nanoseconds)
        rows.append(len(work._rows))
        work.do()
        assert (work._sum == rows[-1]).all()
    assert rows[0] == 1 < rows[1] and rows[2] == pytest.approx(100 * rows[1], rel=0.1)


def test_a_call_is_started_before_computing_and_waited_for_after() -> None:
    order: list[str] = []

    class Noted(overlap.Work):
        def do(self) -> None:
            order.append("compute")

    def start() -> object:
        order.append("start")
        return lambda: order.append("wait")

    work = Noted()
    order.clear()
    alone, total = overlap.behind(work, start, lambda: order.append("barrier"))
    assert order == ["barrier", "compute", "barrier", "start", "compute", "wait"]
    assert alone > 0 and total > 0


@pytest.mark.parametrize("name", [name for name in CASES if name != "sendrecv"])
def test_every_collective_is_bound_for_starting(name: str) -> None:
    def rank(library: object) -> tuple[int | None, tuple[int, ...], bool]:
        outcome = Bench(library, Cell(name, 3, "float", "sum", 1, False, 1 << 20, True)).round(1, 4, True)
        assert outcome.overlapped is not None
        return outcome.wrong, outcome.overlapped.shape, bool(np.all(outcome.overlapped[1] >= 0))

    assert on_ranks(2, rank) == [(0, (2, 4), True)] * 2


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pycomm", "perf", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_command_beside_those_that_are_here(tmp_path) -> None:
    others = [name for name in ("gloo", "mpich") if RIVALS[name].find()]
    words = ["-n", "2", "-b", "8", "-e", "64K", "-f", "8192", "--iters", "6", "--overlap"]
    done = _run("allreduce", "alltoall", *words, "--vs", ",".join(others), "-J", str(tmp_path / "x.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert {row["library"] for row in rows} == {"pycomm", *others}
    assert all(row["wrong"] == 0 and row["overlap_percent"] >= 0 and row["compute_us"] > 0 for row in rows)
    heads = [line for line in done.stdout.splitlines() if "overlap  limit" in line]
    assert len(heads) == 2 and heads[0].split().count("overlap") == 2


def test_what_is_no_collective_is_refused() -> None:
    done = _run("sendrecv", "--overlap")
    assert done.returncode == 2 and "--overlap is of collectives" in done.stderr, done.stderr
