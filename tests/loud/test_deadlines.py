"""A wait that takes too long ends in an error that says who was waited for, in which round, and how far it had come."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from conformance import PATIENCE, TRANSPORTS, on_ranks

import pycomm

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def test_a_collective_names_peer_round_and_bytes(transport: str) -> None:
    def rank(comm: pycomm.Comm, over: threading.Barrier) -> None:
        comm.Barrier()
        if comm.rank == 1:
            over.wait(PATIENCE)
            with pytest.raises(pycomm.DeadlineExceeded, match="rank [02] gave up after 0.3 s"):
                for _ in range(2):  # the others had sent their parts of the first before they gave up
                    comm.Allreduce(np.ones(1000, np.float32), np.empty(1000, np.float32), algorithm="direct")
            return
        with pytest.raises(pycomm.DeadlineExceeded) as caught:
            comm.Allreduce(np.ones(1000, np.float32), np.empty(1000, np.float32), algorithm="direct", timeout=0.3)
        over.wait(PATIENCE)  # for both: what rank 1 sends then would save whoever has yet to give up
        words = str(caught.value)
        for word in (
            "gave up after 0.3 s",
            "allreduce(float32, count 1000, SUM)",
            "operation 1",
            "round 1 of",
            "bytes have arrived",
        ):
            assert word in words, words
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(pycomm.DeadlineExceeded, match="gave up after 0.3 s"):
            comm.Barrier()

    on_ranks(transport, 3, rank, threading.Barrier(3))


def test_the_peer_that_is_waited_for(transport: str) -> None:
    def rank(comm: pycomm.Comm, over: threading.Event) -> None:
        comm.Barrier()
        if comm.rank == 1:
            over.wait(PATIENCE)
            return
        with pytest.raises(pycomm.DeadlineExceeded, match="for rank 1: 0 of 8 bytes have arrived") as caught:
            comm.Bcast(np.zeros(1), 1, timeout=0.2)
        over.set()
        assert caught.value.rank == 1

    on_ranks(transport, 2, rank, threading.Event())


def test_messages(transport: str) -> None:
    def rank(comm: pycomm.Comm, over: threading.Barrier) -> None:
        for split in range(3):
            own = comm.Split(0)
            assert own is not None
            own.Barrier()
            if comm.rank == 0:
                if split == 0:
                    with pytest.raises(pycomm.DeadlineExceeded, match="receive from rank 1 with tag 7 waits") as caught:
                        own.Recv(np.zeros(3), 1, 7, timeout=0.2)
                    assert caught.value.rank == 1
                elif split == 1:
                    with pytest.raises(pycomm.DeadlineExceeded, match="receive from any rank"):
                        own.Recv(np.zeros(3), timeout=0.2)
                else:
                    with pytest.raises(
                        pycomm.DeadlineExceeded, match="send to rank 1 with tag 9 waits: 0 of 800000 bytes"
                    ):
                        own.Send(np.zeros(100_000), 1, 9, timeout=0.2)
            over.wait()

    on_ranks(transport, 2, rank, threading.Barrier(2))


def test_of_a_request_that_nobody_waits_for(transport: str) -> None:
    """The library's own thread keeps the time."""

    def rank(comm: pycomm.Comm, over: threading.Barrier) -> None:
        comm.Barrier()
        if comm.rank == 0:
            request = comm.Ibarrier(timeout=0.2)
            time.sleep(1.0)
            with pytest.raises(pycomm.DeadlineExceeded, match="gave up after 0.2 s"):
                request.Wait(timeout=0.001)
        over.wait()

    on_ranks(transport, 2, rank, threading.Barrier(2))


def test_of_the_communicator(transport: str) -> None:
    def rank(comm: pycomm.Comm, over: threading.Barrier) -> None:
        comm.set_timeout(0.2)
        own = comm.Split(0)  # which inherits it
        assert own is not None
        own.Barrier()
        if comm.rank == 0:
            with pytest.raises(pycomm.DeadlineExceeded, match="gave up after 0.2 s"):
                own.Barrier()
        over.wait()

    on_ranks(transport, 2, rank, threading.Barrier(2))


def test_a_wait_behind_others(transport: str) -> None:
    """Ten operations that cannot start: the last one's deadline is kept, though it has no lane yet."""

    def rank(comm: pycomm.Comm, over: threading.Barrier) -> None:
        comm.Barrier()
        if comm.rank == 0:
            requests = [comm.Iallreduce(np.ones(10), np.ones(10)) for _ in range(12)]
            last = comm.Iallreduce(np.ones(10), np.ones(10), timeout=0.3)
            with pytest.raises(pycomm.DeadlineExceeded):
                last.Wait()
            for request in requests:
                with pytest.raises(pycomm.DeadlineExceeded):
                    request.Wait()
        over.wait()

    on_ranks(transport, 2, rank, threading.Barrier(2))


def test_timeouts_that_cannot_be(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for seconds in (0, -1, float("nan")):
            with pytest.raises(pycomm.InvalidArgument, match="timeout"):
                comm.Barrier(timeout=seconds)
            with pytest.raises(pycomm.InvalidArgument, match="timeout"):
                comm.Send(np.zeros(1), comm.rank, timeout=seconds)
            with pytest.raises(pycomm.InvalidArgument, match="timeout"):
                comm.set_timeout(seconds)
        with pytest.raises(pycomm.InvalidArgument, match="no keyword 'timout'"):
            comm.Barrier(timout=3)
        comm.Barrier()

    on_ranks(transport, 2, rank)
