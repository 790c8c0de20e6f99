"""A C program that knows nothing of Python is built with the one command that the README names, and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE.parents[1] / "README.md").read_text()
PREFIX = Path(str(files("pycomm") / "lib" / "libpycomm.so")).parent.parent
PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(again C)
find_package(pycomm 0.1 REQUIRED)
find_package(Threads REQUIRED)
add_executable(again hello.c)
target_link_libraries(again PRIVATE pycomm::pycomm Threads::Threads)
if(NOT EXISTS "${pycomm_FORTRAN_SOURCE}")
  message(FATAL_ERROR "there is no Fortran module")
endif()
"""
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


def test_pkg_config_finds_it(compiled: Path):
    if not shutil.which("pkg-config"):
        pytest.skip("there is no pkg-config")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "pycomm >= 0.1"], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PKG_CONFIG_PATH": f"{PREFIX}/lib/pkgconfig"},
    ).stdout.split()  # fmt: skip
    done = subprocess.run(
        ["sh", "-ec", 'cc hello.c -pthread "$@" -o again && ./again', "sh", *flags], cwd=compiled.parent,
        env=os.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith(": 3 and 3\n"), done.stderr


def test_cmake_finds_it(compiled: Path):
    if not shutil.which("cmake"):
        pytest.skip("there is no cmake")
    (compiled.parent / "CMakeLists.txt").write_text(PROJECT)
    build = f'cmake -B build -DCMAKE_PREFIX_PATH="{PREFIX}" . && cmake --build build && ./build/again'
    done = subprocess.run(
        ["sh", "-ec", build], cwd=compiled.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith(": 3 and 3\n"), done.stderr


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
