"""pycomm.mpi.enable(): communicators of mpi4py give the same results, from there on by pycomm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

RANKS = Path(__file__).with_name("enabled_ranks.py")
JACOBI = [str(Path(__file__).parents[2] / "examples" / "jacobi.py"), "60", "60"]
ENABLED = (
    "import runpy, sys, pycomm.mpi as m; m.enable(); sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.parametrize(("kind", "ranks"), [("openmpi", 3), ("mpich", 2), ("impi", 2)])
def test_the_same_results_before_and_after(kind: str, ranks: int, tmp_path: Path) -> None:
    rival = RIVALS[kind]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    (tmp_path / "said").mkdir()
    command, variables = rival.launch(place, ranks, [sys.executable, "-P", str(RANKS), str(tmp_path / "said")])[0]
    env = os.environ | variables | {"PYCOMM_NETWORK": "off", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "said").iterdir()} == set(map(str, range(ranks)))


def test_a_solver_prints_the_same_numbers_in_four_ways(tmp_path: Path) -> None:
    """On MPI alone, under `pycomm mpirun`, after enable(), and without MPI."""
    rival = next((RIVALS[kind] for kind in ("openmpi", "mpich") if RIVALS[kind].find()), None)
    if rival is None:
        pytest.skip("no MPI is installed")
    place = rival.find()
    assert place is not None
    python = [sys.executable, "-P"]
    [(plain, variables)] = rival.launch(place, 2, [*python, *JACOBI])
    [(enabled, _)] = rival.launch(place, 2, [*python, "-c", ENABLED, *JACOBI])
    env = os.environ | variables | {"PYCOMM_NETWORK": "off", "XDG_CACHE_HOME": str(tmp_path)}
    said = set()
    for command in (
        plain,
        [*python, "-m", "pycomm", "mpirun", "--", *plain],
        enabled,
        [*python, "-m", "pycomm", "run", "-n", "2", "-m", "pycomm.mpi4py", *JACOBI],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        numbers, seconds = done.stdout.splitlines()
        assert numbers.startswith("sweeps 60, ") and seconds.startswith("seconds ")
        said.add(numbers)
    assert len(said) == 1, said
