"""The command on pycomm itself: launched by perf, and by others with perf inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pycomm.perf.rivals import RIVALS

COMMAND = [sys.executable, "-P", "-m", "pycomm"]
SMALL = ["-b", "8", "-e", "4K", "-f", "512", "--iters", "6"]


def _run(*words, env=None):
    return subprocess.run([*words], capture_output=True, text=True, timeout=100, check=False, env=env)


def test_a_failure_of_pycomm_is_told_and_leaves_with_1():
    done = _run(*COMMAND, "perf", "allreduce", "-n", "2", *SMALL, "--algorithm", "no-such-algorithm")
    assert done.returncode == 1
    assert "# FAILED: pycomm is left out from here on" in done.stdout
    assert "no-such-algorithm" in done.stdout


def test_transport_algorithm_and_slices_are_passed_on(tmp_path):
    files = ["-J", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    choice = ["--transport", "tcp", "--algorithm", "ring", "--slices", "2"]
    done = _run(*COMMAND, "perf", "allreduce", "-n", "3", *SMALL, *files, *choice)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [(r["bytes"], r["in_place"]) for r in rows] == [(8, False), (8, True), (4096, False), (4096, True)]
    assert {(r["transport"], r["algorithm"], r["wrong"], r["ranks"]) for r in rows} == {("tcp", "ring", 0, 3)}
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert "# Out of bounds values : 0 OK" in done.stdout.splitlines()


def test_perf_within_pycomm_run():
    done = _run(*COMMAND, "run", "-n", "2", "-m", "pycomm", "perf", "alltoallv", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("#  Rank") for line in done.stdout.splitlines()) == 2
    assert done.stdout.count("alltoallv_perf") == 2


@pytest.mark.parametrize("name", ["mpich", "openmpi", "impi"])
def test_perf_within_mpiexec_beside_its_mpi(name):
    place = RIVALS[name].find()
    if place is None:
        pytest.skip(RIVALS[name].missing)
    [(command, extra)] = RIVALS[name].launch(place, 2, [*COMMAND, "perf", "allreduce", *SMALL, "--vs", "mpi"])
    done = _run(*command, env=os.environ | extra)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [line[-1] for line in table] == ["pycomm", "mpi"] * 2
    assert any("geometric mean" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(("name", "says"), [("openmpi", "takes it for rank 0 of 1"), ("", "set MPI4PY_LIBMPI")])
def test_perf_within_mpiexec_beside_another_mpi_or_none(name, says, tmp_path):
    place, other = RIVALS["mpich"].find(), RIVALS["openmpi"].find()
    if place is None or other is None:
        pytest.skip(RIVALS["mpich" if place is None else "openmpi"].missing)
    [(command, extra)] = RIVALS["mpich"].launch(place, 2, [*COMMAND, "perf", "allreduce", *SMALL, "--vs", "mpi"])
    [(_, library)] = RIVALS["openmpi"].launch(other, 2, []) if name else [([], {"MPI4PY_LIBMPI": str(tmp_path)})]
    done = _run(*command, env=os.environ | extra | library)
    assert done.returncode != 0
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_perf_within_torchrun_beside_gloo():
    if RIVALS["gloo"].find() is None:
        pytest.skip(RIVALS["gloo"].missing)
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = _run(*torchrun, "--no-python", *COMMAND, "perf", "allreduce", *SMALL, "--vs", "gloo")
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [line[-1] for line in table] == ["pycomm", "gloo"] * 2
