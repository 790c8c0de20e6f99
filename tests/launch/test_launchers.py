"""With nothing configured, ranks that a stand-in for a foreign launcher started on one host meet, job by job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pycomm.job import environment
from pycomm.job.rendezvous import Rendezvous
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
def script(tmp_path: Path) -> list[str]:
    """Return the words that run a rank, whose argument is the name of its job."""
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
