"""Ctrl-C: a blocked call raises KeyboardInterrupt at once, and what it had begun does no harm."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from conformance import PATIENCE

import pycomm
from pycomm.job.launch import spawn


@pytest.mark.parametrize("transport", ("shm", "tcp"))
@pytest.mark.parametrize("call", ("quick", "slow", "barrier", "request", "receive"))
def test_a_blocked_call_is_interrupted(transport: str, call: str) -> None:
    def rank() -> object:
        comm = pycomm.init(timeout=PATIENCE)
        comm.Allreduce(np.ones(50), np.empty(50))
        late = np.zeros(1)
        if comm.rank:
            comm.Recv(late, 0, 1)  # until rank 0 has been interrupted
        else:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            began = time.monotonic()
            try:
                match call:
                    case "quick":
                        comm.Allreduce(np.ones(50), np.empty(50))
                    case "slow":
                        comm.Allreduce(np.ones(50), np.empty(50), algorithm="ring")
                    case "barrier":
                        comm.Barrier()
                    case "request":
                        comm.Iallreduce(np.ones(50), np.empty(50)).Wait()
                    case "receive":
                        comm.Recv(np.empty(50), 1, 2)
            except KeyboardInterrupt:
                seconds = time.monotonic() - began
            else:
                return "was not interrupted"
            comm.Send(late, 1, 1)
        # the interrupted call goes on; its partner is the same call of the other rank, and then all is as it was
        if comm.rank:
            match call:
                case "quick" | "request":
                    comm.Allreduce(np.ones(50), np.empty(50))
                case "slow":
                    comm.Allreduce(np.ones(50), np.empty(50), algorithm="ring")
                case "barrier":
                    comm.Barrier()
                case "receive":
                    comm.Send(np.empty(50), 0, 2)
        for i in range(20):
            total = np.empty(1000)
            comm.Allreduce(np.full(1000, float(i)), total)
            assert (total == 2 * i).all()
        return seconds if comm.rank == 0 else None

    outcomes = spawn(2, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0)
    assert [o.error for o in outcomes] == [None, None]
    assert isinstance(outcomes[0].value, float) and outcomes[0].value < 2.0, outcomes[0].value


def test_handlers_that_return_leave_the_call_alone() -> None:
    def rank() -> int:
        comm = pycomm.init(timeout=PATIENCE)
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        comm.Barrier()
        if comm.rank:
            time.sleep(1.0)
        else:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        total = np.empty(10)
        comm.Allreduce(np.ones(10), total)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert (total == 2).all()
        comm.Barrier()
        return len(seen)

    outcomes = spawn(2, rank, env={"PYCOMM_TRANSPORTS": "shm"}, timeout=40.0)
    assert [o.error for o in outcomes] == [None, None]
    assert outcomes[0].value >= 3
