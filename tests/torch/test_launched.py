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


@pytest.mark.parametrize(("kind", "transports"), [("openmpi", "shm,mpi"), ("mpich", "mpi"), ("impi", "mpi")])
def test_training_under_mpiexec(kind: str, transports: str, tmp_path: Path) -> None:
    rival = RIVALS[kind]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    command, variables = rival.launch(place, 2, [sys.executable, "-P", str(RANKS), str(tmp_path)])[0]
    env = {key: value for key, value in os.environ.items() if key not in TORCHS} | variables
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES), "PYCOMM_NETWORK": "off"}
    env |= {"PYCOMM_TRANSPORTS": transports}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(said) == 2 and done.returncode == 0, done.stdout + done.stderr
