"""In C a setting is found where Python finds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pycomm import knobs

ROOT = Path(__file__).parents[2]


def test_a_setting_is_found_where_python_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    sources = (Path(__file__).with_name("knob.c"), ROOT / "csrc" / "helper" / "knob.c")
    include = f"-I{ROOT / 'csrc' / 'helper'}"
    subprocess.run(["cc", "-D_GNU_SOURCE", include, *sources, "-o", tmp_path / "knob"], timeout=60, check=True)
    text = "# PYCOMM_MPI_REPORT=0\n\n PYCOMM_MPI_REPORT = 1 \nPYCOMM_PYTHON=\nPYCOMM_JOB=a=b # c\nPYCOMM_TIMEOUT=4\n"
    (tmp_path / ".pycomm.conf").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYCOMM_TIMEOUT", "5")
    settings = (knobs.MPI_REPORT, knobs.PYTHON, knobs.JOB, knobs.TIMEOUT, knobs.ALGO)
    for knob in settings[:3] + settings[4:]:
        monkeypatch.delenv(knob.name, raising=False)
    names = [knob.name for knob in settings]
    done = subprocess.run([tmp_path / "knob", *names], capture_output=True, text=True, timeout=60, check=True)
    found = [knob.setting() for knob in settings]
    assert done.stdout.splitlines() == ["" if one.source == "default" else one.text for one in found]
    assert done.stdout.splitlines() == ["1", "", "a=b # c", "5", ""]
