"""Every test of the launch room starts from an environment without a launcher."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

LAUNCHER_VARIABLES = re.compile(
    r"(PYCOMM|OMPI|PMIX?|MPI|SLURM|PALS|TORCHELASTIC|MASTER|NCCL|GLOO)_|(LOCAL_)?(RANK|WORLD_SIZE)$"
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No launcher's variable from outside, and a runtime directory of the test's own."""
    for name in list(os.environ):
        if LAUNCHER_VARIABLES.match(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
