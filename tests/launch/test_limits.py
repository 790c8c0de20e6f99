"""Many ranks need many descriptors: the usual limit is raised where that is allowed, and named where it is not."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import numpy as np
import pytest

import pycomm
from pycomm.errors import PycommError, SystemRefused
from pycomm.launch import run_ranks, spawn


def limit(soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def soft_limit(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit(soft, before[1])
    try:
        yield
    finally:
        limit(*before)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def talk_to_everybody(comm: pycomm.Comm) -> list[int]:
    sent, received = np.full(comm.size, comm.rank), np.empty(comm.size, int)
    comm.Alltoall(sent, received, algorithm="pairwise")
    return list(map(int, received))


def test_a_low_soft_limit_is_raised() -> None:
    with soft_limit(open_descriptors() + 24):
        assert run_ranks(16, lambda: talk_to_everybody(pycomm.init())) == [list(range(16))] * 16


def test_a_hub_that_may_not_open_enough_says_so() -> None:
    def launch() -> None:
        limit(60, 60)
        with pytest.raises(SystemRefused, match="hub of 30 ranks opens 90 descriptors and may open 60"):
            run_ranks(30, int)

    run_ranks(1, launch)


def test_a_rank_that_may_not_open_enough_says_so() -> None:
    def rank() -> None:
        comm = pycomm.init(timeout=20)
        comm.Barrier()
        limit(open_descriptors() + 5, open_descriptors() + 5)
        talk_to_everybody(comm)

    errors = [outcome.error for outcome in spawn(12, rank)]
    assert all(isinstance(error, PycommError) for error in errors)
    assert any("no more descriptors" in str(error) or "Too many open files" in str(error) for error in errors)
