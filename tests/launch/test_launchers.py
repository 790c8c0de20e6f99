"""With nothing configured, ranks that a foreign launcher started on one host meet; jobs do not disturb each other."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pycomm import environment
from pycomm.rendezvous import Rendezvous
job = environment.join(timeout=30)
rendezvous = Rendezvous(job, timeout=30)
names = rendezvous.exchange(sys.argv[1].encode())
ids = rendezvous.exchange(b"%d" % job.job_id)
rendezvous.close()
assert names == [sys.argv[1].encode()] * job.size, names
assert set(ids) == {b"%d" % job.job_id}, ids
assert job.published is None or not job.published.exists()
print(f"{job.launcher} {job.rank}/{job.size} {job.local_rank}/{job.local_size}\\n", end="")
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words that run a rank, whose argument is the name of its job."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    path = tmp_path / "rank.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def output(words: list[str], **env: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return sorted(line for line in done.stdout.splitlines() if "/" in line)


def lines(launcher: str, size: int) -> list[str]:
    return [f"{launcher} {rank}/{size} {rank}/{size}" for rank in range(size)]


# Stands in for a launcher: starts ranks with given variables, every second one behind a shell, and waits for them.
LAUNCHER = """
import os, subprocess, sys
size, rank_variable, size_variable, *words = sys.argv[1:]
ranks = []
for rank in range(int(size)):
    local = {"MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": size}
    env = {**os.environ, **local, rank_variable: str(rank), size_variable: size}
    shell = ["sh", "-c", '"$@"; exit $?', "sh"] if rank % 2 else []
    ranks.append(subprocess.Popen([*shell, *words], env=env))
sys.exit(max(rank.wait() for rank in ranks))
"""


def stand_in(size: int, *words: str) -> list[str]:
    return [sys.executable, "-c", LAUNCHER, str(size), "PMI_RANK", "PMI_SIZE", *words]


def test_ranks_of_an_unconfigured_launcher_meet(script: list[str], tmp_path: Path) -> None:
    assert output(stand_in(5, *script, "job")) == lines("pmi", 5)
    assert list((tmp_path / "pycomm").iterdir()) == []


def test_several_jobs_on_one_host_at_once(script: list[str]) -> None:
    jobs = [
        subprocess.Popen(stand_in(3, *script, f"job {k}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for k in range(4)
    ]
    for job in jobs:
        out, err = job.communicate(timeout=100)
        assert (job.returncode, sorted(out.splitlines())) == (0, lines("pmi", 3)), err


def test_ranks_that_share_a_secret_meet_over_tcp(script: list[str], tmp_path: Path) -> None:
    from launch_helpers import free_port

    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    env = {"PYCOMM_RENDEZVOUS": f"tcp://localhost:{free_port()}", "PYCOMM_SECRET_FILE": str(secret)}
    assert output(stand_in(3, *script, "job"), **env) == lines("pmi", 3)


def launcher_of(kind: str) -> list[str]:
    """Return the words of a real launcher of this kind, or skip the test."""
    if kind == "torchrun":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("torch is not installed")
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node"]
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("no mpiexec on this machine")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30).stdout
    if kind == "openmpi":
        if "Open MPI" not in version:
            pytest.skip("mpiexec is not Open MPI's")
        return [found, "--oversubscribe", "-n"]
    if "HYDRA" not in version and "Intel" not in version:
        pytest.skip("mpiexec is not MPICH's or Intel's")
    return [found, "-n"]


@pytest.mark.parametrize(("kind", "name"), [("torchrun", "torchrun"), ("openmpi", "openmpi"), ("hydra", "pmi")])
def test_a_real_launcher(script: list[str], kind: str, name: str) -> None:
    words = launcher_of(kind)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    printed = [line.split() for line in output([*words, "3", *script, "job"], **root)]
    assert [line[:2] for line in printed] == [[name, f"{rank}/3"] for rank in range(3)]
    # Open MPI numbers the ranks of a host in an order of its own.
    assert sorted(line[2] for line in printed) == ["0/3", "1/3", "2/3"]
