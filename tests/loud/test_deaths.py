"""Ranks that die, leave or give up: every other rank gets an error that names them, soon, and nobody hangs."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conformance import PATIENCE, SHM, TCP, TRANSPORTS, on_ranks

import pycomm
from pycomm.job.launch import spawn

SOON = 2.0  # seconds within which survivors must know
PROCESS_TRANSPORTS = (SHM, TCP)


def survive(comm: pycomm.Comm, work: object) -> tuple[str, int, float, str]:
    """Work until an error comes; return its type, the rank that it names, when it came and what it said."""
    try:
        while True:
            work(comm)  # type: ignore[operator]
    except pycomm.PycommError as error:
        return type(error).__name__, getattr(error, "rank", -1), time.monotonic(), str(error)


@pytest.mark.parametrize("transport", PROCESS_TRANSPORTS)
@pytest.mark.parametrize("seed", range(4))
def test_sigkill_in_a_loop(transport: str, seed: int, tmp_path: Path) -> None:
    """Four ranks all-reduce, small or large, blocking or not; one is killed somewhere; all others must name it."""
    draw = random.Random(seed)
    victim, after, count = draw.randrange(4), draw.randrange(3, 40), draw.choice((1, 3000, 200_000))
    stamp = tmp_path / "killed"

    def rank() -> object:
        comm = pycomm.init(timeout=PATIENCE)
        turns = 0

        def work(c: pycomm.Comm) -> None:
            nonlocal turns
            turns += 1
            request = c.Iallreduce(np.ones(count), np.empty(count))
            if comm.rank == victim and turns == after:
                stamp.write_text(repr(time.monotonic()))
                os.kill(os.getpid(), signal.SIGKILL)
            request.Wait()
            if seed % 2:
                c.Allreduce(np.ones(count), np.empty(count))

        told = survive(comm, work)
        again = survive(comm, work)
        return told, again

    outcomes = spawn(4, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0, grace=10.0)
    killed = float(stamp.read_text())
    assert outcomes[victim].code == -signal.SIGKILL
    for outcome in outcomes:
        if outcome.rank == victim:
            continue
        assert outcome.error is None, outcome.error
        (kind, lost, when, text), (kind_again, lost_again, _, text_again) = outcome.value
        assert (kind, lost) == ("PeerLost", victim), text
        assert when - killed < SOON, f"rank {outcome.rank} knew after {when - killed:.2f} s"
        assert (kind_again, lost_again, text_again) == (kind, lost, text), "the communicator is of no further use"


@pytest.mark.parametrize("transport", PROCESS_TRANSPORTS)
@pytest.mark.parametrize("how", ("exits", "raises", "is terminated"))
def test_a_rank_leaves_while_others_wait(transport: str, how: str) -> None:
    def rank() -> object:
        comm = pycomm.init(timeout=PATIENCE)
        if comm.rank == 1:
            comm.Allreduce(np.ones(5), np.empty(5))
            if how == "raises":
                raise ZeroDivisionError("on purpose")
            if how == "is terminated":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(PATIENCE)
            return None
        began = time.monotonic()
        kind, lost, when, text = survive(comm, lambda c: c.Allreduce(np.ones(5), np.empty(5)))
        return kind, lost, when - began, text

    outcomes = spawn(3, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0, grace=10.0)
    for outcome in (outcomes[0], outcomes[2]):
        assert outcome.error is None, outcome.error
        kind, lost, seconds, text = outcome.value
        assert kind in ("PeerLost", "Aborted"), text
        if kind == "PeerLost":
            assert lost == 1, text
        assert seconds < SOON + 1


@pytest.mark.parametrize("transport", PROCESS_TRANSPORTS)
def test_a_message_from_the_dead_is_still_read(transport: str) -> None:
    def rank() -> object:
        comm = pycomm.init(timeout=PATIENCE)
        if comm.rank == 1:
            comm.Send(np.arange(1000), 0, 1)
            comm.Barrier()
            os.kill(os.getpid(), signal.SIGKILL)
        comm.Barrier()
        got = np.zeros(1000, np.int64)
        comm.Recv(got, 1, 1)
        return survive(comm, lambda c: c.Recv(got, 1, 2))[:2], int(got.sum())

    outcomes = spawn(2, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0, grace=10.0)
    value = outcomes[0].value
    # the death may be known before the message is asked for: then that is what is said
    assert value == (("PeerLost", 1), 499_500) or isinstance(outcomes[0].error, pycomm.PeerLost), outcomes[0]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("split", (False, True))
def test_a_thread_that_raises_ends_the_others(transport: str, split: bool) -> None:
    """Even before it has connected to anybody, and where the others wait in a communicator of their own."""

    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0) if split else comm
        assert own is not None
        if comm.rank == 2:
            raise ZeroDivisionError("on purpose")
        with pytest.raises(pycomm.PeerLost, match="ZeroDivisionError: on purpose") as caught:
            own.Allreduce(np.ones(3), np.empty(3))
        assert caught.value.rank == 2

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        on_ranks(transport, 4, rank)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_abort(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        with pytest.raises(pycomm.Aborted, match="rank 1 aborted the communicator: enough"):
            comm.Barrier()
            if comm.rank == 1:
                comm.Abort("enough")
            while True:
                comm.Barrier()
        with pytest.raises(pycomm.Aborted, match="enough"):
            comm.Isend(np.zeros(1), 0)

    on_ranks(transport, 3, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_requests_in_flight_fail_together(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        comm.Barrier()
        if comm.rank == 1:
            comm.Abort("enough")
            return
        requests = [comm.Irecv(np.zeros(3), 1, 5), comm.Isend(np.zeros(100_000), 1, 6)]
        try:
            requests += [comm.Iallreduce(np.ones(100), np.ones(100)) for _ in range(12)]
        except pycomm.Aborted:
            pass
        for request in requests:
            with pytest.raises(pycomm.Aborted):
                request.Wait()

    def safely(comm: pycomm.Comm) -> None:
        try:
            rank(comm)
        except pycomm.Aborted:  # the news came before the first request
            pass

    on_ranks(transport, 3, safely)
