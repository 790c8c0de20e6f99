"""Rank 0's tuning table is everybody's: what others find is not looked at, and a bad one is an error on all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

import pycomm
from pycomm import InvalidArgument
from pycomm.job.launch import run_ranks, spawn
from pycomm.selection.table import Override, Table, save


def digest_and_algorithm(path: str, other: str) -> tuple[str, str]:
    import os

    import numpy as np

    os.environ["PYCOMM_ALGO"] = f"@{other if int(os.environ['PYCOMM_RANK']) else path}"
    comm = pycomm.init()
    data = np.ones(4, np.float32)
    comm.Allreduce(pycomm.IN_PLACE, data)
    return comm.machine.table.digest, comm.trace()[-1]["algorithm"]


@pytest.mark.parametrize("algorithm", ["pairwise", "bruck"])
def test_rank_0_hands_its_table_to_all(tmp_path: Path, algorithm: str) -> None:
    table = Table(choices=(Override("allreduce", (0, 9), (0, 99), algorithm),))
    save(table, tmp_path / "a.toml")
    said = run_ranks(3, digest_and_algorithm, str(tmp_path / "a.toml"), "/nowhere.toml")
    assert said == 3 * [(table.digest, algorithm)]


def test_a_bad_table_of_rank_0_is_an_error_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("version = 7")
    outcomes = spawn(3, digest_and_algorithm, str(tmp_path / "bad.toml"), "", timeout=20)
    for outcome in outcomes:
        assert isinstance(outcome.error, InvalidArgument)
        assert "bad.toml is not usable: its version is 7" in str(outcome.error)
