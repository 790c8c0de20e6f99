"""Jobs that are over soon end well, one after the other: no signal, no hang, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("size", "jobs"), [(2, 5), (4, 2)])
def test_short_jobs_end_well(size, jobs):
    script = Path(__file__).with_name("short_jobs.py")
    command = [sys.executable, script, "--jobs", str(jobs), "--ranks", str(size), "--backends", "pycomm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and f"{jobs} well" in done.stdout, done.stdout + done.stderr
