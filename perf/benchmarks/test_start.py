"""What starting costs: the time from `pycomm run` to the end of a job that does one barrier, and a rank's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Written in one piece, so that the ranks' lines do not mix.
RESIDENT = """
import os
os.write(1, next(line.split()[1].encode() + b"\\n" for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
BARRIER = """
import pycomm
comm = pycomm.init()
comm.Barrier()
"""


def _mib(*command: str) -> float:
    """Return the most memory, in MiB, that one of the processes of a command says it has."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return max(map(int, done.stdout.split())) / 1024


@pytest.mark.parametrize("how", [[], ["--no-fork"]], ids=["fork", "no-fork"])
@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_start(benchmark: Any, tmp_path: Path, ranks: int, how: list[str]) -> None:
    """Time a whole job of one barrier; `mib_above_numpy` is the resident memory of its largest rank above numpy's."""
    job = [sys.executable, "-P", "-m", "pycomm", "run", "-n", str(ranks), *how]
    script, resident = tmp_path / "barrier.py", tmp_path / "resident.py"
    script.write_text(BARRIER)
    resident.write_text(BARRIER + RESIDENT)
    numpy = _mib(sys.executable, "-P", "-c", f"import numpy{RESIDENT}")
    benchmark.extra_info["mib_above_numpy"] = round(_mib(*job, str(resident)) - numpy, 1)
    benchmark.pedantic(subprocess.run, ([*job, str(script)],), {"check": True}, rounds=5)
