"""The doctor in real jobs: what it says of sound ones, of slow and broken networks, of limits, of clocks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pycomm.doctor import pairs
from pycomm.doctor.job import examine
from pycomm.doctor.own import look
from pycomm.job.environment import recognise
from pycomm.job.launch import run_ranks

LAB = """
[[host]]
count = 2
nics = ["100Mbit"]
processors = 1

[[host]]
name = "slow"
nics = ["10Mbit"]
processors = 1
"""


def run(*words: str | Path, limits: Callable[[], None] = lambda: None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pycomm", *map(str, words)], env=os.environ | env, preexec_fn=limits,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_job_of_three_ranks(transport: str) -> None:
    done = run("run", "-n", "3", "-m", "pycomm", "doctor", PYCOMM_TRANSPORTS=transport)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " > " in line and line.startswith("    ")]
    assert [(row[0], row[2], row[3]) for row in rows] == [(a, b, transport) for a, b in ("01", "02", "12")]
    assert all(float(row[4]) > 0 and float(row[6]) > 0 and float(row[8]) > 0 for row in rows)
    way = "127.0.0.1 (lo) > 127.0.0.1 (lo): one host" if transport == "tcp" else "memory of one host"
    assert done.stdout.count(way) == 3
    assert done.stdout.splitlines()[-1].endswith("of which none would break a job")


def test_alone_it_starts_ranks_of_its_own_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("doctor", "-n", "2", "--plot", tmp_path / "pairs.svg")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 ranks on 1 host\n")
    assert "rate from row to column, Gbit/s" in (tmp_path / "pairs.svg").read_text()


def test_limits_that_are_lowered_are_named() -> None:
    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))

    done = run("run", "-n", "3", "-m", "pycomm", "doctor", limits=limits)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: ranks 0-2 on " in done.stdout and " may open 100 files and sockets" in done.stdout
    assert " may lock 4096 bytes of memory" in done.stdout


def test_a_limit_that_breaks_a_job_is_an_error_in_it_and_before_it() -> None:
    """Ranks whose memory cannot be shared still tell of it."""

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    said = "may write files of 1048576 bytes"
    done = run("run", "-n", "3", "-m", "pycomm", "doctor", limits=limits)
    assert done.returncode == 1 and said in done.stdout, done.stdout + done.stderr
    assert "rank 1 and rank 2 do not reach each other: memory to share with it could not be made" in done.stdout
    alone = run("doctor", "-n", "3", limits=limits)
    assert alone.returncode == 1 and alone.stdout.startswith("error: ") and said in alone.stdout


def test_what_keeps_a_rank_from_joining_is_said() -> None:
    done = run("run", "-n", "2", "-m", "pycomm", "doctor", PYCOMM_TRANSPORTS="nothing")
    assert done.returncode == 1
    assert "error: rank 0 cannot join: there is no transport called nothing" in done.stdout


def test_clocks_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def rank() -> float:
        place = recognise()
        monkeypatch.setattr(pairs, "clock", lambda: 1000.0 + 5 * place.rank)
        _, facts = examine(look(place.size), 30.0)
        return next(pair.ahead for pair in facts.pairs if (pair.a, pair.b) == (0, 2))

    assert run_ranks(3, rank) == [10.0] * 3


@pytest.mark.usefixtures("possible")
def test_a_slow_host_and_a_way_that_is_closed(tmp_path: Path) -> None:
    """Of three hosts one has a card of a tenth of the rate, and one has no way to it."""
    (tmp_path / "lab.toml").write_text(LAB)
    ssh, command = Path(sys.executable).with_name("pycomm-lab-ssh"), f"{sys.executable} -P -m pycomm"
    script = f"{ssh} host1 ip route add unreachable 10.77.0.3/32; exec {command} run -n 3 -m pycomm doctor"
    done = run("lab", tmp_path / "lab.toml", "--", "sh", "-c", script)
    told = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    closed, slow = (next(line for line in told if line.startswith(kind)) for kind in ("error: ", "warning: host"))
    assert "rank 1 (host1) and rank 2 (slow) do not reach each other: no message came through" in closed
    assert "host slow is slow: rank 0 (host0) and rank 2 (slow) pass" in slow and "eth0 on slow" in slow
    assert any("10.77.0.1 (eth0) > 10.77.0.2 (eth0): different hosts" in line for line in told)
    assert sum("eth0: 10.77.0." in line and line.endswith(": used") for line in told) == 3
