"""Programs of MPI in C and Fortran, built with the commands that they name, with a communicator of pycomm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "c"
MPIS = ("openmpi", "mpich", "impi")
PATIENCE = 60
STRICT = {"groups.c": "-std=c11 -Wall -Wextra -Werror -pedantic", "sums.f90": "-std=f2018 -Wall -Wextra -Werror"}


def commands(source: str) -> list[str]:
    """The commands that build an example, as its head names them; the last one also runs it."""
    head = re.findall(r"^(?: \*|!) {5}(.+)$", (EXAMPLES / source).read_text(), re.M)
    assert head and head[-1].endswith(f"&& mpiexec -n 4 ./{Path(source).stem}")
    return [*head[:-1], head[-1].partition(" && ")[0]]


@pytest.mark.parametrize("source", STRICT)
@pytest.mark.parametrize("kind", MPIS)
def test_a_program_of_mpi(kind: str, source: str, tmp_path: Path) -> None:
    rival = RIVALS[kind]
    mpiexec = rival.find()
    if mpiexec is None:
        pytest.skip(rival.missing)
    if source.endswith("f90") and not shutil.which("gfortran"):
        pytest.skip("there is no Fortran compiler: apt-get install gfortran")
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    home = Path(mpiexec).parent.parent
    libraries = sorted((home / "lib").glob("libmpi.so.*"))
    if not libraries:
        pytest.skip(f"this {kind} has no libmpi.so")
    # Intel MPI's package has no header, and MPICH's ABI.
    mpich = RIVALS["mpich"].find() if kind == "impi" else None
    header = (Path(mpich).parent.parent if mpich else home) / "include"
    if not (header / "mpi.h").exists():
        pytest.skip(f"there is no mpi.h for {kind}")
    for file in EXAMPLES.iterdir():
        shutil.copy(file, tmp_path)
    linked = f"-Wl,-rpath,{home / 'lib'} {libraries[0]}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands(source):
        words = command.replace("mpicc", f"cc -I{header}").replace("gfortran ", f"gfortran {STRICT[source]} ")
        words = words.replace(" -lmpi ", " ") + ("" if " -c " in words else f" {linked}")
        subprocess.run(["sh", "-ec", words], cwd=tmp_path, env=os.environ | {"PATH": path}, timeout=60, check=True)
    worker, variables = rival.launch(mpiexec, 3, [str(tmp_path / Path(source).stem)])[0]
    done = subprocess.run(
        worker, env=os.environ | variables, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = sorted(done.stdout.split("\n"))
    assert said == ["", "all: 3 ranks, right", "even: 2 ranks, right", "odd: 1 ranks, right"], done.stdout + done.stderr


def test_fortran_has_the_codes_of_c() -> None:
    def enums(path: str, pattern: str, name: str) -> dict[str, list[str]]:
        text = (ROOT / path).read_text()
        found = [re.findall(name, body, re.I) for body in re.findall(pattern, text, re.S)]
        return {names[0].lower(): [name.lower() for name in names] for names in found if names}

    ours = enums("csrc/pycomm.f90", r"enum, bind\(c\)[^\n]*\n(.*?)end enum", r"\bpcm_\w+")
    theirs = enums("csrc/pycomm.h", r"enum pcm_\w+ \{(.*?)\};", r"\bPCM_\w+")
    assert set(ours) == {"pcm_bool", "pcm_sum", "pcm_allreduce", "pcm_ok"}
    for first, names in ours.items():
        assert names == theirs[first][: len(names)]
