"""pycomm.mpi.enable(): communicators of mpi4py give the same results, from there on by pycomm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

RANKS = Path(__file__).with_name("enabled_ranks.py")


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
