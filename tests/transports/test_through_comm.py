"""Transports under the whole library: collectives over tcp, and over transports that chaos makes awkward."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pycomm import Comm, run_threads

AWKWARD = "chaos:seed={};delay_us=100;deny=0.2;short=0.5;inner={}"


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("transport", ["tcp", *(AWKWARD.format(n, t) for n, t in enumerate(("inproc", "shm", "tcp")))])
def test_collectives(transport: str, size: int) -> None:
    def rank(comm: Comm) -> None:
        for count in (1, 1000, 300_000):
            mine = np.arange(count, dtype=np.float64) * (comm.rank + 1)
            total = np.empty_like(mine)
            comm.Allreduce(mine, total)
            assert np.array_equal(total, np.arange(count) * (size * (size + 1) / 2))
            parts = np.empty((size, count))
            comm.Allgather(mine, parts)
            assert np.array_equal(parts, np.outer(np.arange(1, size + 1), np.arange(count)))
            comm.Bcast(mine, root=size - 1)
            assert np.array_equal(mine, np.arange(count) * size)
        comm.Barrier()

    run_threads(size, rank, transports=transport, secret=b"a secret of some length")


def test_what_was_sent_arrives_while_the_sender_computes() -> None:
    """More than the kernel takes at once, to a receiver who is late: the sender has left the library by then."""
    sent, received = threading.Event(), threading.Event()

    def rank(comm: Comm) -> None:
        data = np.full(1 << 18, 1 - comm.rank, dtype=np.float32)
        comm.Barrier()
        if comm.rank == 1:
            sent.wait(5)
        for _ in range(6):
            comm.Bcast(data, root=0, timeout=20)
        assert data.all()
        if comm.rank == 0:
            sent.set()
            assert received.wait(30)
        received.set()

    run_threads(2, rank, transports="tcp")
