"""The flight recorder: a communicator's latest collectives, with what was called, how it is run and how it ended."""

from __future__ import annotations

import time

import numpy as np
import pytest

import pycomm


def test_calls_are_recorded() -> None:
    def rank(comm: pycomm.Comm) -> None:
        part = comm.Split(0)
        assert part is not None
        started = time.monotonic()
        x = np.ones(100, np.float32)
        comm.Allreduce(pycomm.IN_PLACE, x, algorithm="ring")
        part.Barrier()
        counts = [1, 3]
        comm.Allgatherv(np.ones(counts[comm.rank], np.int8), [np.empty(4, np.int8), counts])
        first, last = comm.trace()[-2:]
        assert first["call"] == "allreduce(float32, count 100, SUM)"
        assert (first["collective"], first["dtype"], first["count"]) == ("allreduce", "float32", 100)
        assert (first["algorithm"], first["state"]) == ("ring", "done")
        assert last["operation"] == first["operation"] + 1 and last["record"] == first["record"] + 2
        assert last["collective"] == "allgather" and last["count"] is None
        assert 0 < first["duration_us"] * 1e-6 < first["age_s"] < time.monotonic() - started
        assert [record["collective"] for record in part.trace()] == ["barrier"]

    pycomm.run_threads(2, rank)


def test_a_failed_call_says_so() -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            with pytest.raises(pycomm.DeadlineExceeded):
                comm.Barrier(timeout=0.1)
            assert comm.trace()[-1]["state"] == "failed"

    pycomm.run_threads(2, rank)
