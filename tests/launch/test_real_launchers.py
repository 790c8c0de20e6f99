"""`pycomm.init()` under torchrun, Slurm's srun, and Open MPI's, MPICH's and Intel MPI's mpiexec, all as they come."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm

from pycomm.perf.rivals import RIVALS

# As which pycomm recognises the launchers: MPICH, Intel MPI and, if asked to, Slurm speak PMI. (Debian's Slurm cannot
# load its plugin for PMIx.)
RECOGNISED = {
    "torchrun": "torchrun", "openmpi": "openmpi", "mpich": "pmi", "impi": "pmi",
    "srun": "slurm", "srun --mpi=pmi2": "pmi",
}  # fmt: skip
PROGRAM = Path(__file__).parents[2] / "examples" / "c" / "launched.c"
CORES = 2
PATIENCE = 100.0

MEET = """
import sys
from pathlib import Path
import numpy as np
import pycomm
from pycomm.job.environment import recognise
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


@pytest.fixture(scope="module")
def slurm_configuration() -> Iterator[Path]:
    """A Slurm, started by the first test that asks for it."""
    if reason := slurm.missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            configuration = stack.enter_context(slurm.running())
        except slurm.Unable as why:
            pytest.skip(f"Slurm cannot run here: {why}")
        yield configuration


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=RECOGNISED)
def kind(request: pytest.FixtureRequest) -> str:
    """A launcher."""
    return str(request.param)


@pytest.fixture
def start(kind: str, request: pytest.FixtureRequest) -> Start:
    """What starts a job, start(ranks, *words), as users of the launcher do; skips the test if there is none."""
    extra: dict[str, str] = {}
    if kind == "torchrun":
        if RIVALS["gloo"].find() is None:
            pytest.skip("there is no torchrun: torch is not installed (pip install torch)")
        torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--no-python"]

        def command(ranks: int, words: list[str]) -> list[str]:
            return [*torchrun, "--nproc-per-node", str(ranks), *words]
    elif kind.startswith("srun"):
        extra = {"SLURM_CONF": str(request.getfixturevalue("slurm_configuration"))}

        def command(ranks: int, words: list[str]) -> list[str]:
            return [*kind.split(), "-n", str(ranks), *words]
    else:
        rival = RIVALS[kind]
        place = rival.find()
        if place is None:
            pytest.skip(rival.missing)
        extra = rival.launch(place, 1, [])[0][1]

        def command(ranks: int, words: list[str]) -> list[str]:
            return rival.launch(place, ranks, words)[0][0]

    def begin(ranks: int, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(ranks, list(words)),
            env=os.environ | extra,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return begin


def finish(job: subprocess.Popen[str]) -> str:
    """Wait for the end of a job, which must be a good one; a job that does not end is killed, with its ranks.

    Returns:
        what it has printed.
    """
    try:
        out, _ = job.communicate(timeout=PATIENCE)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
    assert job.returncode == 0, out
    return out


def said(where: Path) -> dict[int, str]:
    """What each rank wrote, by rank."""
    return {int(path.name): path.read_text() for path in where.iterdir()}


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rank.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("ranks", [2, 7])
def test_ranks_meet_and_reduce(kind: str, start: Start, ranks: int, tmp_path: Path) -> None:
    where = tmp_path / "said"
    where.mkdir()
    finish(start(ranks, sys.executable, script(tmp_path, MEET), str(where), "x"))
    assert said(where) == dict.fromkeys(range(ranks), f"{RECOGNISED[kind]} {ranks} {'x' * ranks}")


def test_ranks_of_a_program_in_c_meet(start: Start, tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("there is no cc")
    pycomm = [sys.executable, "-P", "-m", "pycomm", "info", "--compile"]
    flags = shlex.split(subprocess.run(pycomm, capture_output=True, text=True, check=True).stdout)
    program = tmp_path / "launched"
    subprocess.run(["cc", PROGRAM, "-pthread", *flags, "-o", program], timeout=PATIENCE, check=True)
    lines = finish(start(3, "env", f"PYCOMM_PYTHON={sys.executable}", str(program))).splitlines()
    assert {"all: 3 ranks, right", "even: 2 ranks, right", "odd: 1 ranks, right"} <= set(lines)


def test_two_jobs_at_once_do_not_meet_each_other(kind: str, start: Start, tmp_path: Path) -> None:
    path = script(tmp_path, MEET)
    jobs = {}
    for name in "ab":
        (tmp_path / name).mkdir()
        jobs[name] = start(3, sys.executable, path, str(tmp_path / name), name)
    for job in jobs.values():
        finish(job)
    for name in jobs:
        assert said(tmp_path / name) == dict.fromkeys(range(3), f"{RECOGNISED[kind]} 3 {name * 3}")


def test_a_killed_rank_is_named_to_all_others(start: Start, tmp_path: Path) -> None:
    where = tmp_path / "said"
    where.mkdir()
    # The shell hides the death from the launcher, which would kill the others before they can say anything.
    hidden = ["sh", "-c", '"$@"; exit 0', "sh", sys.executable, script(tmp_path, LOSE_RANK_1), str(where)]
    finish(start(3, *hidden))
    assert said(where) == {0: "lost 1", 2: "lost 1"}
