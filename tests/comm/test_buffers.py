"""What may be given as a buffer, and what is said of what may not."""

from __future__ import annotations

import array
import ctypes

import ml_dtypes
import numpy as np
import pytest
from conformance import on_ranks

import pycomm
from pycomm import IN_PLACE, InvalidArgument


class Capsule:
    """An object of another library: it has DLPack, and nothing else."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    def __dlpack__(self, **how: object) -> object:
        return self._data.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()


def alone(function: object) -> None:
    on_ranks("inproc", 1, function)  # type: ignore[arg-type]


def test_anything_with_memory() -> None:
    def rank(comm: pycomm.Comm) -> None:
        total = comm.size * (comm.size + 1) // 2
        me = comm.rank + 1
        for give, take in (
            (lambda: np.full(4, me, np.int32), lambda: np.zeros(4, np.int32)),
            (lambda: Capsule(np.full(4, me, np.int32)), lambda: Capsule(np.zeros(4, np.int32))),
            (lambda: memoryview(np.full(4, me, np.int32)), lambda: memoryview(np.zeros(4, np.int32))),
            (lambda: array.array("i", [me] * 4), lambda: array.array("i", [0] * 4)),
            (lambda: (ctypes.c_int * 4)(*[me] * 4), lambda: (ctypes.c_int * 4)()),
            (lambda: bytes([me] * 4), lambda: bytearray(4)),
            (lambda: [np.full(9, me, np.int32), 4], lambda: [np.zeros(7, np.int32), 4]),
            (lambda: (bytearray([me] * 9), 4), lambda: (bytearray(4), 4)),
            (lambda: np.full((2, 2), me, np.int16), lambda: np.zeros((4, 1), np.int16)),
            (lambda: np.array(me, np.float64), lambda: np.zeros((), np.float64)),
            (lambda: np.float64(me), lambda: np.zeros(1)),
        ):
            out = take()
            comm.Allreduce(give(), out)
            inner = out[0] if isinstance(out, list | tuple) else out._data if isinstance(out, Capsule) else out
            values = np.asarray(inner).reshape(-1)
            assert (values[:4] == total).all() and (values[4:] == 0).all(), type(out)
            request = comm.Iallreduce(give(), out)
            request.Wait()
        got = bytearray(3)
        comm.Bcast(got if comm.rank else bytearray(b"abc"), 0)
        assert comm.rank == 0 or got == b"abc"

    on_ranks("inproc", 3, rank)


def test_sendbuf_may_be_read_only() -> None:
    def rank(comm: pycomm.Comm) -> None:
        frozen = np.ones(5)
        frozen.flags.writeable = False
        out = np.zeros(5)
        comm.Allreduce(frozen, out)
        comm.Reduce(frozen, out if comm.rank == 0 else None)
        comm.Bcast(frozen if comm.rank == 0 else out, 0)
        comm.Scatter(frozen[: comm.size] if comm.rank == 0 else None, out[:1])
        with pytest.raises(InvalidArgument, match="buf is read-only"):
            comm.Bcast(frozen, 1 - comm.rank)
        comm.Barrier()

    on_ranks("inproc", 2, rank)


REFUSED = {
    "a number": (lambda: 3.0, "is a float: give a numpy array"),
    "None": (lambda: None, "is a NoneType: give a numpy array"),
    "a list of numbers": (lambda: [1.0, 2.0, 3.0], "is a list of 3: give"),
    "text": (lambda: "abc", "is a str: give"),
    "read-only": (lambda: bytes(32), "is read-only"),
    "big-endian": (lambda: np.zeros(4, ">f8"), "dtype >f8 cannot be communicated"),
    "objects": (lambda: np.zeros(4, object), "dtype object cannot be communicated"),
    "strings": (lambda: np.zeros(4, "U3"), "dtype <U3 cannot be communicated"),
    "dates": (lambda: np.zeros(4, "M8[s]"), r"dtype datetime64\[s\] cannot be communicated"),
    "records": (lambda: np.zeros(4, [("a", "f8")]), "cannot be communicated"),
    "long double": (lambda: np.zeros(4, np.longdouble), "cannot be communicated"),
    "int4": (lambda: np.zeros(4, ml_dtypes.int4), "cannot be communicated"),
    "count too large": (lambda: [np.zeros(4), 5], "says 5 elements.* and has 4"),
    "count negative": (lambda: [np.zeros(4), -1], "says -1 elements"),
    "count not a number": (lambda: [np.zeros(4), "x"], "count"),
    "count not whole": (lambda: [np.zeros(4), 2.5], "count"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    make, words = REFUSED[what]

    def rank(comm: pycomm.Comm) -> None:
        calls = [lambda x: comm.Allreduce(IN_PLACE, x), lambda x: comm.Iallgather(IN_PLACE, x),
                 lambda x: comm.Recv(x, 0), lambda x: comm.Bcast(x, 1)]  # fmt: skip
        if what != "read-only":
            calls += [
                lambda x: comm.Allreduce(x, np.zeros(4)),
                lambda x: comm.Send(x, 0),
                lambda x: comm.Gather(x, None, 1),
            ]
        for call in calls if comm.rank == 0 else ():
            with pytest.raises(InvalidArgument, match=words):
                call(make())
        comm.Barrier()

    on_ranks("inproc", 2, rank)


def test_sizes_that_do_not_fit() -> None:
    def rank(comm: pycomm.Comm) -> None:
        z = np.zeros
        for call in (
            lambda: comm.Allreduce(z(3), z(4)),
            lambda: comm.Scan(z(3), z(2)),
            lambda: comm.Reduce(z(3), z(4), root=comm.rank),
            lambda: comm.Allgather(z(3), z(5)),
            lambda: comm.Allgather(IN_PLACE, z(5)),
            lambda: comm.Gather(z(3), z(7), comm.rank),
            lambda: comm.Scatter(z(5), z(2), comm.rank),
            lambda: comm.Scatter(z(5), IN_PLACE, comm.rank),
            lambda: comm.Alltoall(z(4), z(6)),
            lambda: comm.Alltoall(z(3), z(3)),
            lambda: comm.Reduce_scatter_block(z(5), z(2)),
            lambda: comm.Reduce_scatter_block(IN_PLACE, z(5)),
        ):
            with pytest.raises(InvalidArgument, match="elements"):
                call()
        with pytest.raises(InvalidArgument, match="sendbuf has dtype float64 and recvbuf float32"):
            comm.Allreduce(z(3), z(3, np.float32))
        for root in (-1, 2, 1 << 40):
            with pytest.raises(InvalidArgument, match="root is .* 0 to 1"):
                comm.Bcast(z(3), root)
        comm.Barrier()

    on_ranks("inproc", 2, rank)


def test_missing_buffers() -> None:
    """None means "not on this rank"; where there must be one, it is refused, even once the call is known."""

    def rank(comm: pycomm.Comm) -> None:
        x, y = np.zeros(4), np.zeros(4)
        for _ in range(2):
            comm.Allreduce(x, y)
            comm.Allgather(x[:2], y)
            comm.Alltoall(x, y)
            comm.Scan(x, y)
            comm.Gather(x[:2], y)
            comm.Scatter(x, y[:2])
            comm.Gatherv(x[:2], [y, [2, 2]])
            comm.Scatterv([x, [2, 2]], y[:2])
            comm.Allgatherv(x[:2], [y, [2, 2]])
            comm.Alltoallv([x, [2, 2]], [y, [2, 2]])
        for call in (comm.Allreduce, comm.Allgather, comm.Alltoall, comm.Scan, comm.Reduce_scatter_block):
            for pair in ((None, y), (x, None), (None, None)):
                with pytest.raises(InvalidArgument):
                    call(*pair)
        with pytest.raises(InvalidArgument):
            comm.Bcast(None, comm.rank)
        with pytest.raises(InvalidArgument):
            comm.Reduce(x, None, root=comm.rank)
        with pytest.raises(InvalidArgument):
            comm.Reduce(None, y, root=0)
        with pytest.raises(InvalidArgument):
            comm.Gather(None, y, root=comm.rank)
        with pytest.raises(InvalidArgument):
            comm.Scatter(x, None, root=comm.rank)
        comm.Barrier()

    on_ranks("inproc", 2, rank)


def test_buffers_that_overlap() -> None:
    def rank(comm: pycomm.Comm) -> None:
        data = np.zeros(8)
        for call in (
            lambda: comm.Allreduce(data[:5], data[3:]),
            lambda: comm.Allgather(data[4:], data),
            lambda: comm.Allgather(data[:4], data),
            lambda: comm.Iallgather(data[:4], data),
            lambda: comm.Gather(data[:4], data, comm.rank),
            lambda: comm.Alltoall(data[:6], data[2:]),
            lambda: comm.Reduce_scatter_block(data, data[:4]),
            lambda: comm.Scatter(data, data[:4], comm.rank),
            lambda: comm.Allgatherv(data[:4], [data, [4, 4]]),
        ):
            for _ in range(2):
                with pytest.raises(InvalidArgument, match="overlap"):
                    call()
        comm.Allreduce(data, data)  # the same buffer is what IN_PLACE means
        comm.Barrier()

    on_ranks("inproc", 2, rank)


def test_other_arguments() -> None:
    def rank(comm: pycomm.Comm) -> None:
        x = np.zeros(4)
        for how, words in (
            ({"algorithm": "rign"}, "no algorithm 'rign'; it has: .*ring"),
            ({"algorithm": 3}, "algorithm is 3"),
            ({"slices": 0}, "slices is 0"),
            ({"slices": -3}, "slices is -3"),
            ({"algoritm": "ring"}, "no keyword 'algoritm'"),
        ):
            with pytest.raises(InvalidArgument, match=words):
                comm.Allreduce(x, x, **how)
        with pytest.raises(InvalidArgument, match="sendbuf cannot be IN_PLACE here"):
            comm.Gather(IN_PLACE, None, 1 - comm.rank)
        comm.Barrier()

    on_ranks("inproc", 2, rank)
