"""Real libraries, each started by its own launcher, measured in the real loop; those not installed are skipped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pycomm.errors import DeadlineExceeded, PeerLost
from pycomm.perf.bench import Cell
from pycomm.perf.cases import CASES
from pycomm.perf.coordinator import Effort, LaunchedJob, Switchboard, closing, measure
from pycomm.perf.rivals import PYCOMM, RIVALS, Rival

EFFORT = Effort(iterations=6)


def _fail(job, error):
    raise error


LIBRARIES = [
    (PYCOMM, {"transport": "shm"}),
    (PYCOMM, {"transport": "tcp"}),
    *((rival, {}) for rival in RIVALS.values()),
]


@pytest.mark.parametrize(("rival", "join"), LIBRARIES, ids=lambda value: getattr(value, "name", None))
def test_every_collective_is_right(rival, join):
    name, ranks = rival.name, 3
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    with Switchboard() as board, closing([LaunchedJob(board, rival, place, ranks, 60, join)]) as jobs:
        assert len(jobs[0].hosts) == ranks
        for case in CASES.values():
            for in_place in (False, True) if case.input_at is not None else (False,):
                cell = Cell(case.name, case.count(4096, 4, ranks), "float", "sum", 0, in_place, 1 << 20)
                sample = measure(jobs, cell, EFFORT, _fail)[name]
                if sample.unsupported is None:
                    assert sample.wrong == 0, (case.name, in_place)
                    assert len(sample.times) == 6 and sample.low > 0


def _python(code: str) -> Rival:
    """A library whose launcher runs a line of Python instead of the worker, one process a rank."""
    return Rival("odd", lambda: sys.executable, "", lambda place, n, worker: [([place, "-c", code, *worker], {})] * n)


def test_a_job_that_cannot_start_says_its_last_words():
    with Switchboard() as board, pytest.raises(PeerLost, match="no such fabric"):
        LaunchedJob(board, _python("raise SystemExit('no such fabric')"), sys.executable, 2, 30, {})


def test_a_job_that_never_answers_is_ended():
    with Switchboard() as board, pytest.raises(DeadlineExceeded, match="rank 0, 1 in 1 s"):
        LaunchedJob(board, _python("import time; time.sleep(600)"), sys.executable, 2, 1, {})


def test_a_rank_that_dies_while_measured_is_reported():
    rival = RIVALS["gloo"]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    with Switchboard() as board, closing([LaunchedJob(board, rival, place, 2, 60, {})]) as jobs:
        os.kill(jobs[0].hosts[1][0], signal.SIGKILL)
        time.sleep(0.3)
        cell = Cell("allreduce", 4, "float", "sum", 0, False, 1 << 20)
        failures = []
        assert measure(jobs, cell, EFFORT, lambda job, error: failures.append(error)) == {}
        assert isinstance(failures[0], PeerLost)


def test_a_worker_leaves_when_its_coordinator_is_gone(tmp_path):
    """A coordinator that is killed outright leaves no ranks behind."""
    rival = RIVALS["gloo"]
    if rival.find() is None:
        pytest.skip(rival.missing)
    code = (
        "import json, os, sys\n"
        "from pycomm.perf.coordinator import LaunchedJob, Switchboard\n"
        "from pycomm.perf.rivals import RIVALS\n"
        "board = Switchboard()\n"
        "job = LaunchedJob(board, RIVALS['gloo'], sys.executable, 2, 60, {})\n"
        "print(json.dumps([pid for pid, _ in job.hosts]), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pids = json.loads(done.stdout)
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "ranks outlive their coordinator"
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
