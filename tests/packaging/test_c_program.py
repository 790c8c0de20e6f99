"""A C program that knows nothing of Python is built with the one command that the README names, and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE.parents[1] / "README.md").read_text()
COMMAND = "cc hello.c -pthread $(pycomm info --compile) -o hello"


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    shutil.copy(HERE / "hello.c", tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    strict = COMMAND.replace("cc ", "cc -std=c11 -Wall -Wextra -Werror -pedantic ")
    subprocess.run(["sh", "-ec", strict], cwd=tmp_path, env=os.environ | {"PATH": path}, timeout=60, check=True)
    return tmp_path / "hello"


def test_a_c_program_runs(compiled: Path):
    done = subprocess.run([compiled], capture_output=True, text=True, timeout=60, check=False, env={})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": 3 and 3\n")


def test_the_readme_names_the_command():
    assert COMMAND in README


def test_the_header_is_plain_c_and_cplusplus(tmp_path: Path):
    for compiler, suffix in (("cc", "c"), ("c++", "cpp")):
        if not shutil.which(compiler):
            pytest.skip(f"there is no {compiler}")
        source = tmp_path / f"x.{suffix}"
        source.write_text('#include "pycomm.h"\nint main(void) { return PCM_OK; }\n')
        flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{HERE.parents[1] / 'csrc'}"]
        subprocess.run([compiler, *flags, source], timeout=60, check=True)
