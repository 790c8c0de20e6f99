"""Jobs that are over soon end well, one after the other: no signal, no hang, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("size", [2, 4])
def test_short_jobs_end_well(size):
    script = Path(__file__).with_name("short_jobs.py")
    command = [sys.executable, script, "--jobs", "5", "--ranks", str(size), "--backends", "pycomm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "5 well" in done.stdout, done.stdout + done.stderr
