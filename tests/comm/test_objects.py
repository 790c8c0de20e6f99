"""Objects instead of buffers, messages of unknown length, and ops of a user's own, over every transport."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from conformance import TRANSPORTS, on_processes, on_ranks

import pycomm
from pycomm import ANY_SOURCE, ANY_TAG, InvalidArgument, Op, Request, Status

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)
SIZES = (0, 10, 4000, 20_000, 300_000)  # elements: within an envelope, announced, many fragments


def array(seed: int, n: int) -> np.ndarray:
    return (np.arange(n) * 7 + seed) % 1001


def test_objects_of_any_length_in_any_order(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        other = 1 - comm.rank
        receives = [comm.irecv(source=other, tag=tag) for tag in range(len(SIZES))]
        sends = [comm.isend((tag, array(tag, n)), other, tag) for tag, n in reversed(list(enumerate(SIZES)))]
        for tag, (got, content) in enumerate(Request.waitall(receives)):
            assert got == tag
            np.testing.assert_array_equal(content, array(tag, SIZES[tag]))
            content[:] = 0  # it is the receiver's own
        Request.waitall(sends)
        status = Status()
        if comm.rank == 0:
            for n in SIZES:
                comm.ssend({"n": n, "rows": [array(1, n), b"x" * n]}, 1, 5)
        else:
            for n in SIZES:
                message = comm.mprobe(ANY_SOURCE, ANY_TAG, status)
                assert (status.source, status.tag) == (0, 5)
                content = message.recv()
                assert content["n"] == n and content["rows"][1] == b"x" * n
                np.testing.assert_array_equal(content["rows"][0], array(1, n))
                with pytest.raises(InvalidArgument, match="has been received"):
                    message.recv()

    on_ranks(transport, 2, rank)


def test_what_was_probed_is_what_is_received(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        status = Status()
        assert not comm.Iprobe(ANY_SOURCE, ANY_TAG) and comm.Improbe() is None
        comm.Barrier()
        if comm.rank:
            for tag, n in enumerate(SIZES):
                comm.Send(array(comm.rank, n), 0, tag)
            return
        for _ in range((comm.size - 1) * len(SIZES)):
            comm.Probe(ANY_SOURCE, ANY_TAG, status)
            seen, n = (status.source, status.tag), status.nbytes // 8
            assert n == SIZES[status.tag] and comm.Iprobe(*seen)
            got = np.empty(n, np.int64)
            comm.Recv(got, *seen, status)
            assert (status.source, status.tag, status.nbytes) == (*seen, 8 * n)
            np.testing.assert_array_equal(got, array(status.source, n))

    on_ranks(transport, 3, rank)


def test_a_message_of_another_kind_is_refused_and_nothing_else(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            comm.Send(np.arange(5.0), 1, 1)
            comm.Send(np.arange(5.0), 1, 2)
            comm.send("fine", 1, 3)
            return
        with pytest.raises(pycomm.Mismatch, match="rank 0 has sent an array of float64 with tag 1"):
            comm.recv(source=0, tag=1)
        message = comm.Mprobe(0, 2)
        with pytest.raises(pycomm.Mismatch, match="float64 with tag 2, which is received as int32"):
            message.Recv(np.empty(10, np.int32))
        with pytest.raises(pycomm.Truncated, match="40 bytes from rank 0"):
            message.Recv(np.empty(4))
        message.Recv(got := np.empty(6))
        assert got[:5].tolist() == [0, 1, 2, 3, 4]
        assert comm.recv() == "fine"

    on_ranks(transport, 2, rank)


def test_collectives_of_objects(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        me, size = comm.rank, comm.size
        for n in SIZES:
            for root in (0, size - 1):
                got = comm.bcast(array(root, n) if me == root else None, root)
                np.testing.assert_array_equal(got, array(root, n))
                everyone = comm.gather(array(me, n + me), root)
                assert (everyone is not None) == (me == root)
                parts = comm.scatter([array(r, n + r) for r in range(size)] if me == root else None, root)
                np.testing.assert_array_equal(parts, array(me, n + me))
            for r, content in enumerate(comm.allgather(array(me, n + me))):
                np.testing.assert_array_equal(content, array(r, n + r))
            for r, content in enumerate(comm.alltoall([array(me * 10 + r, n // (r + 1)) for r in range(size)])):
                np.testing.assert_array_equal(content, array(r * 10 + me, n // (me + 1)))
        words = comm.allreduce(f"{me}", lambda x, y: f"({x}{y})")
        assert words == "((01)2)" and comm.scan(f"{me}") == "012"[: me + 1]
        assert comm.exscan(f"{me}") == ("012"[:me] or None)
        with pytest.raises(InvalidArgument, match="2 objects and must have 3"):
            comm.alltoall([1, 2])
        with pytest.raises(InvalidArgument, match="AVG is for arrays"):
            pycomm.AVG(1, 2)

    on_ranks(transport, 3, rank)


def test_an_op_that_does_not_commute_runs_in_rank_order(transport: str) -> None:
    """Of two words a reduction makes one, as digits; also into a strided buffer, and given as a C function."""
    shape = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.c_void_p)

    def join(left: Any, right: Any, datatype: Any) -> None:
        x, y = (np.frombuffer(memory, np.int64) for memory in (left, right))
        y[:] = x * 10 ** np.maximum(1, np.ceil(np.log10(y + 1)).astype(int)) + y

    @shape
    def join_in_c(left: int, right: int, count: Any, nothing: int | None) -> None:
        memories = [(ctypes.c_int64 * count[0]).from_address(address) for address in (left, right)]
        join(memoryview(memories[0]).cast("B"), memoryview(memories[1]).cast("B"), None)

    def rank(comm: pycomm.Comm) -> None:
        for op in (Op.Create(join), Op.Create(ctypes.cast(join_in_c, ctypes.c_void_p).value or 0)):
            out = np.zeros((2, 4), np.int64)
            comm.Allreduce(np.array([comm.rank + 1, 5]), out[:, 1], op)
            assert out[:, 1].tolist() == [12345, 55555] and not out[:, [0, 2, 3]].any()
            comm.Iscan(np.array([comm.rank + 1, 5]), out[:, 2], op).Wait()
            assert out[:, 2].tolist() == [int("12345"[: comm.rank + 1]), int("55555"[: comm.rank + 1])]
            block = np.zeros(1, np.int64)
            comm.Reduce_scatter_block(np.arange(5) + 1, block, op)
            assert block[0] == int(f"{comm.rank + 1}" * 5)
            buffer = np.array([comm.rank + 1])
            comm.Reduce(pycomm.IN_PLACE if comm.rank == 3 else buffer, buffer if comm.rank == 3 else None, op, 3)
            assert buffer[0] == (12345 if comm.rank == 3 else comm.rank + 1)
        with pytest.raises(InvalidArgument, match="leave algorithm= and slices= out"):
            comm.Allreduce(buffer, buffer.copy(), op, algorithm="ring")

    on_ranks(transport, 5, rank)


def test_strided_buffers_are_read_and_written_where_they_lie(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        me, size, n = comm.rank, comm.size, 5000
        field = np.full((n, 4), -1.0)
        field[:, 2] = me
        comm.Allreduce(field[:, 2], field[:, 1])
        comm.Iallreduce(pycomm.IN_PLACE, field[:, 2], pycomm.MAX).Wait()
        assert (field[:, 1] == 3).all() and (field[:, 2] == 2).all() and (field[:, [0, 3]] == -1).all()
        gathered = np.zeros((n, 2 * size), np.int32)
        comm.Allgather(np.full(n, me, np.int32), gathered[:, ::2].T)
        assert (gathered[:, ::2].T.reshape(size, -1) == np.arange(size)[:, None]).all() and not gathered[:, 1::2].any()
        receive = comm.Irecv(field[::2, 0], (me - 1) % size, 4)
        comm.Send(field[1::2, 3] * me, (me + 1) % size, 4)
        receive.Wait()
        assert (field[::2, 0] == -((me - 1) % size)).all() and (field[1::2, 0] == -1).all()
        fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        comm.Bcast(fortran if me == 0 else (got := np.zeros((2, 3), order="F")))
        assert me == 0 or (got == fortran).all()
        counts = [r + 1 for r in range(size)]
        apart = np.zeros((sum(counts), 2))
        comm.Allgatherv(np.full(me + 1, float(me)), [apart[:, 1], counts])
        assert apart[:, 1].tolist() == np.repeat(np.arange(3.0), counts).tolist() and not apart[:, 0].any()

    on_ranks(transport, 3, rank)


def test_between_processes(transport: str) -> None:
    if "inproc" in transport:
        pytest.skip("inproc is for the threads of one process")

    def rank(comm: pycomm.Comm) -> None:
        assert comm.allgather((comm.rank, np.ones(3)))[2][0] == 2
        request = comm.irecv(source=ANY_SOURCE)
        comm.ssend(np.zeros(100_000), (comm.rank + 1) % comm.size)
        assert request.wait().size == 100_000

    on_processes(transport, 3, rank)
