"""`pycomm.init()` under torchrun and the mpiexec of Open MPI, MPICH and Intel MPI, with nothing configured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

KINDS = ("torchrun", "openmpi", "mpich", "impi")
# As which pycomm recognises each: MPICH and Intel MPI both speak PMI.
RECOGNISED = {"torchrun": "torchrun", "openmpi": "openmpi", "mpich": "pmi", "impi": "pmi"}
CORES = 2
PATIENCE = 100.0

MEET = """
import sys
from pathlib import Path
import numpy as np
import pycomm
from pycomm.environment import recognise
comm = pycomm.init(timeout=30)
name = np.frombuffer(sys.argv[2].encode(), np.uint8)
names = np.empty(comm.size * name.size, np.uint8)
comm.Allgather(name, names)
total = np.empty(1000)
comm.Allreduce(np.full(1000, comm.rank + 1.0), total)
comm.Barrier()
assert (total == comm.size * (comm.size + 1) / 2).all(), total
said = f"{recognise().launcher} {comm.size} {names.tobytes().decode()}"
Path(sys.argv[1], str(comm.rank)).write_text(said)
"""

LOSE_RANK_1 = """
import os, signal, sys
from pathlib import Path
import numpy as np
import pycomm
comm = pycomm.init(timeout=30)
comm.Barrier()
try:
    for turn in range(1_000_000):
        if comm.rank == 1 and turn == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.Allreduce(np.ones(3), np.empty(3))
except pycomm.PeerLost as lost:
    Path(sys.argv[1], str(comm.rank)).write_text(f"lost {lost.rank}")
"""


@pytest.fixture(autouse=True)
def few_cores() -> Iterator[None]:
    """Two cores, so that there are more ranks than cores on every machine."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    yield
    os.sched_setaffinity(0, before)


def start(kind: str, ranks: int, *words: str) -> subprocess.Popen[str]:
    """Start a job as its launcher's users do, or skip the test because there is no such launcher."""
    if kind == "torchrun":
        if RIVALS["gloo"].find() is None:
            pytest.skip("there is no torchrun: torch is not installed (pip install torch)")
        command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--no-python"]
        command += ["--nproc-per-node", str(ranks), *words]
        extra: dict[str, str] = {}
    else:
        rival = RIVALS[kind]
        place = rival.find()
        if place is None:
            pytest.skip(rival.missing)
        [(command, extra)] = rival.launch(place, ranks, list(words))
    return subprocess.Popen(
        command,
        env=os.environ | extra,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(job: subprocess.Popen[str]) -> None:
    """Wait for the end of a job, which must be a good one; a job that does not end is killed, with its ranks."""
    try:
        out, _ = job.communicate(timeout=PATIENCE)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
    assert job.returncode == 0, out


def said(where: Path) -> dict[int, str]:
    """What each rank wrote, by rank."""
    return {int(path.name): path.read_text() for path in where.iterdir()}


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rank.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("ranks", [2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_meet_and_reduce(kind: str, ranks: int, tmp_path: Path) -> None:
    where = tmp_path / "said"
    where.mkdir()
    finish(start(kind, ranks, sys.executable, script(tmp_path, MEET), str(where), "x"))
    assert said(where) == dict.fromkeys(range(ranks), f"{RECOGNISED[kind]} {ranks} {'x' * ranks}")


@pytest.mark.parametrize("kind", KINDS)
def test_two_jobs_at_once_do_not_meet_each_other(kind: str, tmp_path: Path) -> None:
    path = script(tmp_path, MEET)
    jobs = {}
    for name in "ab":
        (tmp_path / name).mkdir()
        jobs[name] = start(kind, 3, sys.executable, path, str(tmp_path / name), name)
    for job in jobs.values():
        finish(job)
    for name in jobs:
        assert said(tmp_path / name) == dict.fromkeys(range(3), f"{RECOGNISED[kind]} 3 {name * 3}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_rank_is_named_to_all_others(kind: str, tmp_path: Path) -> None:
    where = tmp_path / "said"
    where.mkdir()
    # The shell hides the death from the launcher, which would kill the others before they can say anything.
    hidden = ["sh", "-c", '"$@"; exit 0', "sh", sys.executable, script(tmp_path, LOSE_RANK_1), str(where)]
    finish(start(kind, 3, *hidden))
    assert said(where) == {0: "lost 1", 2: "lost 1"}
