"""Confirming: all ranks run the same candidate in every call, switch at the same one, and every result is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pycomm
from pycomm.communicator.confirm import CANDIDATES, REPEATS, Trial
from pycomm.job.launch import run_ranks
from pycomm.selection.candidates import Choice
from pycomm.selection.select import Candidate
from pycomm.selection.table import load

CALLS = CANDIDATES * (REPEATS + 1)


def algorithms_used(path: str) -> tuple[list[str], list[str], str, str]:
    comm = pycomm.init()
    comm.confirm()
    data, total = np.arange(5000, dtype=np.int64) + comm.rank, np.empty(5000, np.int64)
    expected = comm.size * np.arange(5000) + comm.size * (comm.size - 1) // 2
    used = []
    for _ in range(CALLS + 5):
        comm.Allreduce(data, total)
        assert (total == expected).all()
        used.append(comm.trace()[-1]["algorithm"])
    comm.Iallreduce(data, total).Wait()
    started = comm.trace()[-1]["algorithm"]
    roots = []
    for root in range(CALLS + 1):  # whichever the root, a broadcast of a size is one kind of call
        buffer = np.full(40, comm.rank)
        comm.Bcast(buffer, root % comm.size)
        assert (buffer == root % comm.size).all()
        roots.append(comm.trace()[-1]["algorithm"])
    comm.save_tuning(path)
    return used, roots, started, str(comm.explain("allreduce", 40000))


def test_all_ranks_switch_at_the_same_call(tmp_path: Path) -> None:
    said = run_ranks(3, algorithms_used, str(tmp_path / "learnt.toml"))
    used, roots, started, explained = said[0]
    assert all((other[0], other[1]) == (used, roots) for other in said)
    tried = used[:CANDIDATES]
    assert used[:CALLS] == tried * (REPEATS + 1)
    assert len(set(used[CALLS:])) == 1 and used[-1] in tried
    assert started == used[-1]
    assert roots[:CALLS] == roots[:CANDIDATES] * (REPEATS + 1)
    assert "the fastest of those that the first calls tried" in explained
    learnt = {(residual.collective, residual.algorithm) for residual in load(tmp_path / "learnt.toml").residuals}
    assert learnt == {("allreduce", name) for name in tried} | {("broadcast", name) for name in roots[:CANDIDATES]}


def what_was_asked_for() -> set[str]:
    comm = pycomm.init()
    data = np.ones(100)
    for _ in range(CALLS + 1):
        comm.Allreduce(pycomm.IN_PLACE, data)
    return {record["algorithm"] for record in comm.trace()}


@pytest.mark.parametrize(("wish", "expected"), [("confirm;allreduce:bruck", 1), ("confirm", CANDIDATES)])
def test_the_variable_confirms_what_nobody_asked_for(wish: str, expected: int) -> None:
    for used in run_ranks(2, what_was_asked_for, env={"PYCOMM_ALGO": wish}):
        assert used == {"bruck"} if expected == 1 else len(used) >= 2


def test_a_trial_keeps_the_fastest_by_the_slowest_rank() -> None:
    names = ["ring", "bruck", "direct"]
    trial = Trial([Candidate(Choice(name, 1, 1), 1.0, 1.0) for name in names])
    made = []
    while (choice := trial.choice) is not None:
        made.append(choice.algorithm)
        trial.note({"ring": 1.0, "bruck": 0.5, "direct": 0.7}[choice.algorithm] * (100 if len(made) <= 3 else 1))
    assert made == names * (REPEATS + 1)
    assert trial.times.tolist() == [[1.0] * REPEATS, [0.5] * REPEATS, [0.7] * REPEATS]
    assert trial.fastest(trial.times).algorithm == "bruck"
    slowest = trial.times.copy()
    slowest[1] = 2.0
    assert trial.fastest(slowest).algorithm == "direct"
    assert trial.fastest(np.array([[1.0], [0.99], [1.5]])).algorithm == "ring"  # a tie goes to the model
