"""Many ranks need many descriptors: the usual limit is raised where that is allowed, and named where it is not."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import numpy as np
import pytest

import pycomm
from pycomm.errors import PeerLost, SystemRefused
from pycomm.job.launch import run_ranks


@contextlib.contextmanager
def soft_limit(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def talk_to_everybody(comm: pycomm.Comm) -> list[int]:
    sent, received = np.full(comm.size, comm.rank), np.empty(comm.size, int)
    comm.Alltoall(sent, received, algorithm="pairwise")
    return list(map(int, received))


def test_a_low_soft_limit_is_raised() -> None:
    with soft_limit(open_descriptors() + 8):
        assert run_ranks(16, lambda: talk_to_everybody(pycomm.init())) == [list(range(16))] * 16


def test_a_hub_that_may_not_open_enough_says_so() -> None:
    def launch() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
        with pytest.raises(SystemRefused, match="hub of 30 ranks opens 144 descriptors and may open 60"):
            run_ranks(30, int)

    run_ranks(1, launch)


@pytest.mark.parametrize("collective", [False, True], ids=["messages", "a collective"])
def test_memory_that_may_not_be_made_is_said(collective: bool) -> None:
    """Shared memory counts as a file, whose size is limited."""

    def rank() -> str:
        comm = pycomm.init(timeout=10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        data = np.ones(1)
        with pytest.raises(PeerLost) as told:
            if collective:
                comm.Allreduce(data, data)
            elif comm.rank:
                comm.Send(data, 0)
            else:
                comm.Recv(data, 1)
        return str(told.value)

    assert any("could not be made: File too large (raise ulimit -f)" in told for told in run_ranks(2, rank))
