"""Programs for mpi4py, run on pycomm as they are: they print what they print on mpi4py with an MPI.

What that is stands beside each program, recorded with Open MPI and 4 ranks; where an MPI is installed it is compared
again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

PROGRAMS = Path(__file__).parent / "programs"
NAMES = sorted(path.stem for path in PROGRAMS.glob("*.py"))
RUN = [sys.executable, "-P", "-m", "pycomm", "run", "-n", "4", "--timeout", "60"]


def output(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(name: str) -> str:
    return (PROGRAMS / f"{name}.txt").read_text()


@pytest.fixture
def every(tmp_path: Path) -> Path:
    """All programs as one, since a job takes some time to start."""
    program = tmp_path / "every.py"
    program.write_text(
        "import runpy, sys\n"
        "from mpi4py import MPI\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"  # in the order of time, whichever rank prints
        f"for name in {NAMES!r}:\n"
        "    if MPI.COMM_WORLD.rank == 0: print('program', name)\n"
        f"    runpy.run_path({str(PROGRAMS)!r} + f'/{{name}}.py', run_name='__main__')\n"
        "    MPI.COMM_WORLD.Barrier()\n"
    )
    return program


EVERY = "".join(f"program {name}\n{recorded(name)}" for name in NAMES)


def test_unchanged(every: Path):
    assert output(*RUN, "-m", "pycomm.mpi4py", every) == EVERY


def test_with_another_import(tmp_path: Path):
    program = (PROGRAMS / "workers.py").read_text()
    changed = program.replace("from mpi4py import MPI", "from pycomm import MPI")
    assert changed != program
    (tmp_path / "workers.py").write_text(changed)
    assert output(*RUN, tmp_path / "workers.py") == recorded("workers")


def test_alone():
    """Without a launcher: a job of one rank."""
    program = PROGRAMS / "conjugate_gradient.py"
    assert output(sys.executable, "-m", "pycomm.mpi4py", program) == recorded("conjugate_gradient")


def test_ranks_may_end_early(tmp_path: Path):
    """Who receives from anybody connects to ranks that have nothing more to do; a failure does not wait for them."""
    program = tmp_path / "early.py"
    program.write_text(
        "import sys, time\n"
        "from mpi4py import MPI\n"
        "comm = MPI.COMM_WORLD\n"
        "if comm.rank == 0:\n"
        "    time.sleep(0.5)\n"
        "    print(comm.recv(), comm.recv(source=MPI.ANY_SOURCE))\n"
        "elif comm.rank == 1:\n"
        "    comm.send(1, 0)\n"
        "    comm.send(2, 0)\n"
        "    if len(sys.argv) > 1: sys.exit(3)\n"
        "if len(sys.argv) > 1 and comm.rank == 0: comm.recv(source=1)\n"
    )
    command = [*RUN, "-m", "pycomm.mpi4py", program]
    assert output(*command) == "1 2\n"
    done = subprocess.run([*command, "fail"], capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 3) and "PeerLost" in done.stderr


def test_mpi4py_prints_what_was_recorded(every: Path):
    rival = next((rival for name in ("openmpi", "mpich") if (rival := RIVALS[name]).find()), None)
    if rival is None:
        pytest.skip("no MPI is installed")
    place = rival.find()
    assert place is not None
    [(command, variables)] = rival.launch(place, 4, [sys.executable, str(every)])
    assert output(*command, env=variables) == EVERY
