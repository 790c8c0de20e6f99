"""torch in jobs of mpiexec: no variables of torch's are needed, and MPI carries what it is asked to carry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

RANKS = Path(__file__).with_name("launched_ranks.py")
EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 90
TORCHS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run(kind: str, ranks: int, name: str, where: Path, **extra: str) -> None:
    """Run a check of launched_ranks.py ; all ranks must come to its end."""
    rival = RIVALS[kind]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    command, variables = rival.launch(place, ranks, [sys.executable, "-P", str(RANKS), name, str(where)])[0]
    env = {key: value for key, value in os.environ.items() if key not in TORCHS} | variables
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES), "PYCOMM_NETWORK": "off"} | extra
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = [path for path in where.iterdir() if path.name.isdigit()]
    assert len(said) == ranks and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "transports"), [("openmpi", "shm,mpi"), ("mpich", "mpi"), ("impi", "mpi")])
def test_training_under_mpiexec(kind: str, transports: str, tmp_path: Path) -> None:
    run(kind, 2, "training", tmp_path, PYCOMM_TRANSPORTS=transports)


def test_mpi_must_be_open_to_all_threads(tmp_path: Path) -> None:
    run("mpich", 1, "few_threads", tmp_path, PYCOMM_TRANSPORTS="mpi", MPI4PY_RC_THREAD_LEVEL="serialized")
