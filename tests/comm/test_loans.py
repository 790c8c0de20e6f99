"""Long messages, which the receiver reads where they lie: right to the last byte, never after they were taken back."""

from __future__ import annotations

import time

import numpy as np
import pytest
from conformance import INPROC, SHM, on_processes, on_ranks

import pycomm

LONG = 300_001  # elements of float64: more than one gulp, and no multiple of anything
LENDING = (INPROC, SHM)


def values(rank: int, count: int = LONG) -> np.ndarray:
    return np.arange(count) % 1009 + 1000.0 * rank


def everything(comm: pycomm.Comm) -> None:
    size, rank = comm.size, comm.rank
    everybody = [values(r) for r in range(size)]
    total = np.add.reduce(everybody)
    for algorithm in ("ring", "two_shot", "doubling", "double_tree"):
        for slices in (1, 3):
            out = np.full(LONG, -1.0)
            comm.Allreduce(values(rank), out, algorithm=algorithm, slices=slices)
            np.testing.assert_array_equal(out, total)
            out = values(rank)
            comm.Allreduce(pycomm.IN_PLACE, out, algorithm=algorithm, slices=slices)
            np.testing.assert_array_equal(out, total)
    out = values(rank)
    comm.Bcast(out, size - 1)
    np.testing.assert_array_equal(out, everybody[-1])
    gathered = np.empty(size * LONG)
    comm.Allgather(values(rank), gathered)
    np.testing.assert_array_equal(gathered, np.concatenate(everybody))
    mine = np.empty(LONG)
    comm.Reduce_scatter_block(gathered * (rank + 1), mine)
    np.testing.assert_array_equal(mine, everybody[rank] * (size * (size + 1) // 2))
    exchanged = np.empty(size * LONG)
    comm.Alltoall(np.concatenate([values(rank) + 0.5 * r for r in range(size)]), exchanged)
    np.testing.assert_array_equal(exchanged, np.concatenate([block + 0.5 * rank for block in everybody]))
    counts = [LONG if (rank + r) % 2 else 3 for r in range(size)]
    uneven = np.empty(sum(counts))
    comm.Alltoallv([np.concatenate([values(rank, n) for n in counts]), counts], [uneven, counts])
    np.testing.assert_array_equal(uneven, np.concatenate([values(r, n) for r, n in enumerate(counts)]))
    incoming = comm.Irecv(mine, (rank - 1) % size, 5)
    comm.Send(values(rank), (rank + 1) % size, 5)
    incoming.Wait()
    np.testing.assert_array_equal(mine, everybody[(rank - 1) % size])


@pytest.mark.parametrize("size", (2, 3, 4))
@pytest.mark.parametrize("transport", LENDING)
def test_results(transport: str, size: int) -> None:
    on_ranks(transport, size, everything)


def test_results_between_processes() -> None:
    on_processes(SHM, 3, everything)


def test_more_at_once_than_a_lane_holds() -> None:
    def rank(comm: pycomm.Comm) -> None:
        peer, buffers = 1 - comm.rank, [np.empty(LONG) for _ in range(20)]
        incoming = [comm.Irecv(buffer, peer, tag) for tag, buffer in enumerate(buffers)]
        outgoing = [comm.Isend(values(10 * comm.rank + tag), peer, tag) for tag in reversed(range(20))]
        pycomm.Request.Waitall(incoming + outgoing)
        for tag, buffer in enumerate(buffers):
            np.testing.assert_array_equal(buffer, values(10 * peer + tag))

    on_processes(SHM, 2, rank)


@pytest.mark.parametrize("call", ("broadcast", "allreduce"))
def test_a_sender_that_gives_up_is_not_read_afterwards(call: str) -> None:
    """Its buffer is its own again: a receiver that comes too late hears why, and does not get what is there by then."""

    def rank(comm: pycomm.Comm) -> str:
        buffer, out = values(comm.rank), np.empty(LONG)

        def run(timeout: float) -> None:
            if call == "broadcast":
                comm.Bcast(buffer, 0, timeout=timeout)
            else:
                comm.Allreduce(buffer, out, timeout=timeout)

        run(10)
        buffer[:] = values(0)
        comm.Barrier()
        if comm.rank == 0:
            with pytest.raises(pycomm.DeadlineExceeded) as error:
                run(0.3)
            buffer[:] = np.nan
            time.sleep(1)
        else:
            time.sleep(0.8)
            with pytest.raises(pycomm.DeadlineExceeded) as error:
                run(5)
        return str(error.value)

    gave_up, heard = on_processes(SHM, 2, rank)
    assert "gave up after 0.3 s" in gave_up and heard == gave_up


def test_a_receive_that_is_too_short_lets_the_sender_go_on() -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            comm.Send(values(0), 1)
            comm.Send(values(7), 1)
            return
        with pytest.raises(pycomm.Truncated):
            comm.Recv(np.empty(10), 0)
        out = np.empty(LONG)
        comm.Recv(out, 0)
        np.testing.assert_array_equal(out, values(7))

    on_processes(SHM, 2, rank)


def leave(comm: pycomm.Comm) -> None:
    for _ in range(60):
        own = comm.Split(0)
        assert own is not None
        data = values(0)
        if own.rank:
            own.Recv(data, 0)
        else:
            own.Send(data, 1)
        own.Free()
        comm.Barrier()


@pytest.mark.parametrize("transport", LENDING)
def test_who_has_read_a_loan_may_leave_at_once(transport: str) -> None:
    on_ranks(transport, 2, leave)
