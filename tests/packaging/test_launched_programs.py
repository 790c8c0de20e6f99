"""Programs in C and Fortran that a launcher starts, without MPI, built with the commands that they name."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "c"
DIES = Path(__file__).with_name("dies.c")
RUN = [sys.executable, "-P", "-m", "pycomm", "run", "-n", "3", "--timeout", "60"]
STRICT = {"launched.c": "cc -std=c11 -Wall -Wextra -Werror -pedantic", "launched.f90": "gfortran -Wall -Wextra -Werror"}
SAID = ["all: 3 ranks, right", "even: 2 ranks, right", "odd: 1 ranks, right"]


def compiled(source: Path, where: Path) -> Path:
    """Build a program with the command that its head names."""
    command = STRICT.get(source.name, STRICT["launched.c"])
    compiler = command.split()[0]
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler}")
    shutil.copy(source, where)
    head = re.search(r"^(?: \*|!) {5}(.+) && pycomm run -n \d \./(.+)$", source.read_text(), re.M)
    assert head
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = head[1].replace(compiler, command, 1)
    subprocess.run(["sh", "-ec", words], cwd=where, env=os.environ | {"PATH": path}, timeout=60, check=True)
    return where / head[2]


def output(*command: str | Path, **variables: str) -> str:
    env = os.environ | variables
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("source", STRICT)
def test_a_program_runs(source: str, tmp_path: Path) -> None:
    program = compiled(EXAMPLES / source, tmp_path)
    assert sorted(output(*RUN, program).splitlines()) == SAID
    alone = output(program, PYCOMM_PYTHON=sys.executable)
    assert alone == "all: 1 ranks, right\neven: 1 ranks, right\n"


def by_torchrun(program: Path, *each: dict[str, str]) -> list[str]:
    """Start ranks by the variables of torchrun, and return what they print."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(len(each)), "LOCAL_WORLD_SIZE": str(len(each)), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": program.parent.name, "PYCOMM_PYTHON": sys.executable,
    }  # fmt: skip
    ranks = [
        subprocess.Popen([program], env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r)} | own,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for r, own in enumerate(each)
    ]  # fmt: skip
    return [rank.communicate(timeout=60)[0] for rank in ranks]


def test_another_launcher_starts_it(tmp_path: Path) -> None:
    """The settings of pycomm are heeded."""
    program = compiled(EXAMPLES / "launched.c", tmp_path)
    said = by_torchrun(program, *[{"PYCOMM_ALGO": "allreduce:ring"}] * 3)
    assert sorted("".join(said).splitlines()) == SAID


def test_encryption_is_heeded(tmp_path: Path) -> None:
    program = compiled(EXAMPLES / "launched.c", tmp_path)
    tcp = {"PYCOMM_TRANSPORTS": "tcp"}
    sealed = tcp | {"PYCOMM_ENCRYPT": "1"}
    assert sorted("".join(by_torchrun(program, sealed, sealed, sealed)).splitlines()) == SAID
    said = by_torchrun(program, tcp, sealed)  # who connects finds out, and the other may hear first that it has ended
    assert any("PYCOMM_ENCRYPT" in words for words in said), said
    assert all("PYCOMM_ENCRYPT" in words or " is lost: " in words for words in said), said


def test_a_death_is_told_by_name(tmp_path: Path) -> None:
    """Also to a rank that had nothing to do with the dead one, and has no connection to it."""
    program = compiled(DIES, tmp_path)
    done = subprocess.run([*RUN, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3  # of the dead one, which was the first
    said = sorted(done.stdout.splitlines())
    assert [line.partition(" is lost: ")[0] for line in said] == [
        "rank 0: status 3: rank 1",
        "rank 2: status 3: rank 1",
    ]


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    program = compiled(EXAMPLES / "launched.c", tmp_path)
    for variables, text in (
        ({"PYCOMM_PYTHON": "/nowhere/python"}, "cannot start /nowhere/python -m pycomm.helper"),
        ({"PYCOMM_PYTHON": sys.executable, "RANK": "1"}, "WORLD_SIZE"),
        ({"PYCOMM_PYTHON": sys.executable, "PYCOMM_TRANSPORTS": "mpi"}, "pcm_mpi_world"),
        ({"PYCOMM_PYTHON": sys.executable, "PYCOMM_ALGO": "allreduce:nonsense"}, "nonsense"),
    ):
        done = subprocess.run([program], env=os.environ | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and text in done.stderr, done.stderr
