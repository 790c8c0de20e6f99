"""torch in jobs of mpiexec: no variables of torch's are needed, and MPI carries what it is asked to carry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

RANKS = Path(__file__).with_name("launched_ranks.py")
PATIENCE = 90
TORCHS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run(kind: str, name: str, where: Path, **extra: str) -> None:
    """Run a check of launched_ranks.py on two ranks, both of which must come to its end."""
    rival = RIVALS[kind]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    command, variables = rival.launch(place, 2, [sys.executable, "-P", str(RANKS), name, str(where)])[0]
    env = {key: value for key, value in os.environ.items() if key not in TORCHS} | variables
    env |= {"OMP_NUM_THREADS": "1", "PYCOMM_NETWORK": "off"} | extra
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = [path for path in where.iterdir() if path.name.isdigit()]
    assert len(said) == 2 and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "transports"), [("openmpi", "shm,mpi"), ("mpich", "mpi"), ("impi", "mpi")])
def test_training_under_mpiexec(kind: str, transports: str, tmp_path: Path) -> None:
    run(kind, "training", tmp_path, PYCOMM_TRANSPORTS=transports)


def test_without_mpi_ranks_meet_through_the_hub(tmp_path: Path) -> None:
    run("mpich", "training", tmp_path)


def test_any_store_and_order_of_ranks(tmp_path: Path) -> None:
    run("mpich", "torchs_variables", tmp_path, PYCOMM_TRANSPORTS="mpi")


def test_mpi_must_be_open_to_all_threads(tmp_path: Path) -> None:
    run("mpich", "few_threads", tmp_path, PYCOMM_TRANSPORTS="mpi", MPI4PY_RC_THREAD_LEVEL="serialized")
