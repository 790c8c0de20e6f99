"""Explaining a choice: the fields agree with the selector, and the text can be had with a job and without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pycomm
from pycomm.__main__ import main
from pycomm.communicator.explain import Explanation, explain
from pycomm.job.launch import run_ranks
from pycomm.selection.machine import one_host
from pycomm.selection.select import Selector
from pycomm.selection.table import Override, Residual, Table, save


def of(nbytes: int, table: Table | None = None) -> Explanation:
    machine = one_host(4, 2, table=table)
    return explain("allreduce", nbytes, machine, Selector(machine))


def test_the_rows_are_the_candidates_in_order() -> None:
    said = of(1 << 16)
    assert [row.choice for row in said.rows if row.chosen] == [said.chosen]
    assert [row.seconds for row in said.rows] == sorted(row.seconds for row in said.rows)
    text = str(said)
    assert text.startswith("allreduce of 64 KiB on 4 ranks, over shared memory")
    for row in said.shown():
        assert text.count(f"  {row.choice}") >= 1
    assert {row.choice.algorithm for row in said.shown()} == {row.choice.algorithm for row in said.rows}
    assert said.why.startswith(f"chosen: {said.chosen}")


def test_a_table_shows_in_it() -> None:
    residual = Residual("allreduce", "ring", "shm", 4, 1 << 16, 1.5, 2)
    choice = Override("allreduce", (1, 9), (0, 1 << 20), "pairwise", 7, 2)
    said = of(1 << 16, Table(residuals=(residual,), choices=(choice,), source="mine.toml"))
    assert {round(row.factor, 6) for row in said.rows if row.choice.algorithm == "ring"} == {1.5}
    assert "by mine.toml" in str(said) and "as PYCOMM_ALGO or the tuning table asks" in said.why
    assert said.chosen == ("pairwise", 7, 2)


def calls_and_explanation() -> Explanation:
    comm = pycomm.init()
    data = np.ones(1000, np.float32)
    for _ in range(3):
        comm.Allreduce(pycomm.IN_PLACE, data)
    return comm.explain("allreduce", data.nbytes)


def test_a_communicator_tells_what_its_calls_took() -> None:
    for said in run_ranks(2, calls_and_explanation):
        measured = [row for row in said.rows if row.chosen]
        assert measured[0].measured is not None and 0 < measured[0].measured < 10
        others = [row for row in said.rows if row.choice.algorithm != said.chosen.algorithm]
        assert all(row.measured is None for row in others)


def test_the_command_needs_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(Table(choices=(Override("broadcast", (5, 5), (0, 1 << 20), "ring"),)), tmp_path / "t.toml")
    command = ["explain", "broadcast", "--size", "64K", "-n", "5", "--transport", "tcp"]
    assert main([*command, "--table", str(tmp_path / "t.toml")]) == 0
    text = capsys.readouterr().out
    assert "broadcast of 64 KiB on 5 ranks, over sockets" in text and "\nchosen: ring" in text
    assert main([*command[:3], "64X"]) == 2
    assert "--size" in capsys.readouterr().err


def test_the_command_knows_described_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "allgather", "--topology", "fat-tree:16", "--size", "1M"]) == 0
    text = capsys.readouterr().out
    assert "on 16 ranks, on fat-tree:16" in text and "%" in text and "\nbound " in text
    assert main(["explain", "allgather", "--topology", "fat-tree:16", "-n", "3"]) == 2


def test_explaining_loads_no_optional_package() -> None:
    code = "import sys, pycomm.__main__ as m; m.main(['explain', 'allreduce']); assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
