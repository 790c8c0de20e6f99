"""`spawn` and `run_ranks` run functions and commands as ranks, and bring back values, errors, codes and signals."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from launch_helpers import my_rank

from pycomm.errors import DeadlineExceeded, InvalidArgument, Mismatch, PeerLost
from pycomm.job import environment
from pycomm.job.launch import Outcome, run_ranks, spawn
from pycomm.job.rendezvous import Rendezvous


class Odd(Exception):
    """An error that cannot be pickled back, because its constructor takes two arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_values_come_back_by_rank() -> None:
    offset = 10
    assert run_ranks(3, lambda factor: (my_rank() + offset) * factor, 2) == [20, 22, 24]


def test_the_environment_of_a_rank() -> None:
    def rank() -> tuple[int, int, int, str, str]:
        job = environment.join()
        return job.rank, job.size, job.local_size, job.launcher, os.environ["EXTRA"]

    assert run_ranks(2, rank, env={"EXTRA": "x"}) == [(0, 2, 2, "pycomm", "x"), (1, 2, 2, "pycomm", "x")]
    assert "PYCOMM_RANK" not in os.environ


def test_an_error_comes_back_with_its_type_and_traceback() -> None:
    def rank() -> None:
        if my_rank() == 1:
            raise Mismatch("different counts", rank=0)

    with pytest.raises(Mismatch, match="different counts") as caught:
        run_ranks(2, rank)
    assert "raised in rank 1" in caught.value.__notes__[0]
    assert "test_spawn.py" in caught.value.__notes__[0]


def test_the_cause_comes_back_rather_than_its_consequences() -> None:
    def rank() -> None:
        rendezvous = Rendezvous(environment.join())
        if my_rank() == 2:
            time.sleep(0.2)
            raise ValueError("the cause")
        rendezvous.exchange(b"")

    with pytest.raises(ValueError, match="the cause"):
        run_ranks(3, rank)


def test_an_error_that_cannot_be_pickled_is_described() -> None:
    def rank() -> None:
        raise Odd(1, 2)

    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        run_ranks(1, rank)
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        run_ranks(1, lambda: lambda: None)


def test_exit_codes_and_signals() -> None:
    def rank() -> None:
        if my_rank() == 1:
            sys.exit(3)
        if my_rank() == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if my_rank() == 3:
            sys.exit("a message")

    codes = [outcome.code for outcome in spawn(4, rank)]
    assert codes == [0, 3, -signal.SIGKILL, 1]
    with pytest.raises(PeerLost, match=r"rank 0 was killed by signal 9 \(SIGKILL\)"):
        run_ranks(1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PeerLost, match="rank 0 exited with code 4"):
        run_ranks(1, lambda: sys.exit(4))


def test_a_command() -> None:
    assert spawn(2, ["sh", "-c", "exit $PYCOMM_RANK"]) == [Outcome(0, 0), Outcome(1, 1)]


def test_ranks_that_hang_are_ended_at_the_timeout_and_named() -> None:
    def rank() -> None:
        if my_rank() != 1:
            time.sleep(60)

    with pytest.raises(DeadlineExceeded, match=r"3 ranks did not end within 0.3 s; had to be terminated: 0, 2"):
        spawn(3, rank, timeout=0.3, grace=0.2)


def test_a_rank_that_ignores_sigterm_is_killed() -> None:
    def rank() -> None:
        if my_rank() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(gate[1], b"x")
            time.sleep(60)
        os.read(gate[0], 1)
        sys.exit(5)

    gate = os.pipe()
    codes = [outcome.code for outcome in spawn(2, rank, grace=0.1)]
    assert codes == [-signal.SIGKILL, 5]


def test_standard_input_is_empty_except_in_rank_0() -> None:
    assert run_ranks(3, lambda: Path("/proc/self/fd/0").samefile(os.devnull))[1:] == [True, True]


def test_no_process_and_no_descriptor_is_left() -> None:
    def everything() -> set[Path]:
        return set(Path("/proc/self/fd").iterdir())

    run_ranks(2, my_rank)
    before = everything()
    for _ in range(3):
        run_ranks(3, my_rank)
        spawn(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert everything() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_many_jobs_at_once() -> None:
    def rank() -> list[bytes]:
        rendezvous = Rendezvous(environment.join())
        return rendezvous.exchange(os.environ["NAME"].encode())

    def job() -> list[list[bytes]]:
        return run_ranks(3, rank, env={"NAME": os.environ["PYCOMM_RANK"]})

    expected = [[[b"%d" % k] * 3] * 3 for k in range(4)]
    assert run_ranks(4, job) == expected


def test_a_job_needs_a_rank() -> None:
    with pytest.raises(InvalidArgument, match="1 rank or more"):
        run_ranks(0, my_rank)
