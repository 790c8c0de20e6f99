"""What every transport must do alike: a case of a collective, its inputs, numpy's result, the call, the checks."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import pycomm
from pycomm.core import transports

INPROC, SHM, TCP = "inproc", "shm", "tcp"
# chaos wraps another transport and delays, splits and reorders what it carries
CHAOS = ("chaos:seed=3;deny=0.1;short=0.2;delay_us=50;inner=inproc",) if "chaos" in transports() else ()
TRANSPORTS = (INPROC, SHM, TCP, *CHAOS)
PATIENCE = 10.0  # seconds: far beyond any honest wait, and short of pytest's own limit
GUARD = 16  # elements before and behind an output that nobody may touch

REDUCING = ("allreduce", "reduce", "reduce_scatter", "scan", "exscan")
ROOTED = ("reduce", "broadcast", "gather", "scatter")
COLLECTIVES = (*REDUCING, "broadcast", "allgather", "gather", "scatter", "alltoall")
_BRINGS_ALL = ("reduce_scatter", "scatter", "alltoall")
_GETS_ALL = ("allgather", "gather", "alltoall")


def on_ranks(transport: str, size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run function(comm, *args) on ranks that are threads, with a deadline that turns a hang into an error."""

    def patient(comm: pycomm.Comm) -> Any:
        comm.set_timeout(PATIENCE)
        return function(comm, *args)

    return pycomm.run_threads(size, patient, transports=transport)


def on_processes(
    transport: str, size: int, function: Callable[..., Any], *args: Any, timeout: float = 60.0
) -> list[Any]:
    """Run function(comm, *args) on ranks that are processes of this host."""
    from pycomm.job.launch import run_ranks

    def rank() -> Any:
        comm = pycomm.init()
        comm.set_timeout(PATIENCE)
        return function(comm, *args)

    return run_ranks(size, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=timeout)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Return whether something becomes true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@dataclass(frozen=True)
class Case:
    """One call of one collective by all ranks; count is in elements a block."""

    collective: str
    count: int
    dtype: Any = np.float32
    op: int = pycomm.SUM
    root: int = 0
    in_place: bool = False
    waits: bool = True
    how: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)


def bring(case: Case, size: int) -> list[np.ndarray]:
    """Return every rank's input: small whole numbers, whose sums and products are exact in any dtype and any order."""
    n = case.count * (size if case.collective in _BRINGS_ALL else 1)
    dtype = np.dtype(case.dtype)
    at = np.arange(n, dtype=np.int64)
    inputs = []
    for r in range(size):
        values = (at * 7 + r * 13) % 5  # sums of up to 13 of them are whole numbers below 64
        if dtype.itemsize == 1 and is_narrow(dtype):  # a float8 is exact only up to 8: four ranks bring ones
            values = ((at + r) % size < 4).astype(np.int64)
        if case.op == pycomm.PROD:
            values = 1 + ((at + r) % size < 2)
        if dtype.kind == "b":
            values = (at + r) % 3 == 0
        array = values.astype(np.float32).astype(dtype) if is_narrow(dtype) else values.astype(dtype)
        if dtype.kind == "c" and case.op != pycomm.PROD:
            array = array + 1j * ((at + r) % 3).astype(dtype)
        inputs.append(array.astype(dtype))
    return inputs


def is_narrow(dtype: Any) -> bool:
    """Return whether a dtype is one of ml_dtypes', which numpy computes with only by way of float32."""
    return np.dtype(dtype).isbuiltin != 1


def combine(op: int, arrays: list[np.ndarray]) -> np.ndarray:
    """Reduce arrays by the documented meaning of an op."""
    dtype = arrays[0].dtype
    if is_narrow(dtype):
        return combine(op, [a.astype(np.float32) for a in arrays]).astype(dtype)
    with np.errstate(over="ignore"):
        match op:
            case pycomm.SUM:
                total = np.logical_or.reduce(arrays) if dtype.kind == "b" else np.add.reduce(arrays, dtype=dtype)
            case pycomm.PROD:
                total = np.logical_and.reduce(arrays) if dtype.kind == "b" else np.multiply.reduce(arrays, dtype=dtype)
            case pycomm.AVG:
                total = np.add.reduce(arrays, dtype=dtype)
                if dtype.kind in "iu":  # towards zero, where numpy's // is downwards
                    total = (
                        np.sign(total) * (np.abs(total) // len(arrays)) if dtype.kind == "i" else total // len(arrays)
                    )
                else:
                    total = total / len(arrays)
            case pycomm.MIN:
                total = np.minimum.reduce(arrays)
            case pycomm.MAX:
                total = np.maximum.reduce(arrays)
            case pycomm.LAND | pycomm.LOR | pycomm.LXOR if len(arrays) == 1:
                total = arrays[0]  # nothing was combined
            case pycomm.LAND:
                total = np.logical_and.reduce([a != 0 for a in arrays])
            case pycomm.LOR:
                total = np.logical_or.reduce([a != 0 for a in arrays])
            case pycomm.LXOR:
                total = np.logical_xor.reduce([a != 0 for a in arrays])
            case pycomm.BAND:
                total = np.bitwise_and.reduce(arrays)
            case pycomm.BOR:
                total = np.bitwise_or.reduce(arrays)
            case _:
                total = np.bitwise_xor.reduce(arrays)
    return np.asarray(total).astype(dtype)


def expect(case: Case, inputs: list[np.ndarray], rank: int) -> np.ndarray | None:
    """Return what a rank's output must hold; None if it gets nothing."""
    n = case.count
    match case.collective:
        case "allreduce":
            return combine(case.op, inputs)
        case "reduce":
            return combine(case.op, inputs) if rank == case.root else None
        case "reduce_scatter":
            return combine(case.op, inputs)[rank * n : rank * n + n]
        case "scan":
            return combine(case.op, inputs[: rank + 1])
        case "exscan":
            return combine(case.op, inputs[:rank]) if rank else None
        case "broadcast":
            return inputs[case.root]
        case "allgather":
            return np.concatenate(inputs)
        case "gather":
            return np.concatenate(inputs) if rank == case.root else None
        case "scatter":
            return inputs[case.root][rank * n : rank * n + n]
        case _:
            return np.concatenate([given[rank * n : rank * n + n] for given in inputs])


class Output:
    """An output buffer with guards around it."""

    def __init__(self, n: int, dtype: Any) -> None:
        self._whole = np.frombuffer(b"\xa5" * ((n + 2 * GUARD) * np.dtype(dtype).itemsize), np.uint8).copy()
        self._edge = GUARD * np.dtype(dtype).itemsize
        self.array = self._whole.view(np.uint8)[self._edge : self._whole.size - self._edge].view(dtype)

    def untouched_around(self) -> bool:
        return bool(
            (self._whole[: self._edge] == 0xA5).all() and (self._whole[self._whole.size - self._edge :] == 0xA5).all()
        )

    def untouched(self) -> bool:
        return bool((self._whole == 0xA5).all())


def perform(comm: pycomm.Comm, case: Case) -> np.ndarray | None:
    """Make the call on this rank, check everything that numpy can tell about it, and return what the rank got."""
    return begin(comm, case)()


def begin(comm: pycomm.Comm, case: Case) -> Callable[[], np.ndarray | None]:
    """Make the call, or only start it if it does not wait; what is returned ends it, checks and returns as perform."""
    inputs = bring(case, comm.size)
    mine = inputs[comm.rank].copy()
    wanted = expect(case, inputs, comm.rank)
    n = case.count * (comm.size if case.collective in _GETS_ALL else 1)
    out = Output(max(n, mine.size) if case.in_place else n, case.dtype)
    request, got = _call(comm, case, mine, out)
    what = f"{case} on rank {comm.rank} of {comm.size}"

    def end() -> np.ndarray | None:
        if request is not None:
            request.Wait()
        assert out.untouched_around(), f"{what} wrote beyond its output"
        if case.collective != "broadcast":
            assert same(mine, inputs[comm.rank]), f"{what} wrote to its input"
        if wanted is None:
            assert out.untouched() or case.in_place, f"{what} wrote to a buffer that it should ignore"
            return None
        assert same(got, wanted), (
            f"{what}: got {got.ravel()[:8]}..., wanted {wanted.ravel()[:8]}..., {_differences(got, wanted)}"
        )
        return got

    return end


def _call(comm: pycomm.Comm, case: Case, mine: np.ndarray, out: Output) -> tuple[pycomm.Request | None, np.ndarray]:
    """Return the request, if the call is only started, and where its result will be."""
    how, op, root, here = case.how, case.op, case.root, comm.rank == case.root
    send: Any = mine
    result = recv = out.array
    n = case.count
    if case.in_place:
        send = pycomm.IN_PLACE
        match case.collective:
            case "allreduce" | "scan" | "exscan" | "reduce_scatter" | "alltoall":
                recv[: mine.size] = mine
            case "reduce":
                recv[:] = mine
                send = send if here else mine
            case "allgather":
                recv[comm.rank * n : comm.rank * n + n] = mine
            case "gather":
                if here:
                    recv[root * n : root * n + n] = mine
                else:
                    send = mine
    if case.collective in ("reduce", "gather") and not here:
        recv = None
    match case.collective:
        case "broadcast":
            result[:] = mine if here else result
            return _make(comm, "bcast", case, (result, root), how, result)
        case "scatter":
            stays = case.in_place and here
            got = mine[root * n : root * n + n] if stays else result[:n]
            return _make(
                comm, "scatter", case, (mine if here else None, pycomm.IN_PLACE if stays else got, root), how, got
            )
        case "reduce":
            return _make(comm, "reduce", case, (send, recv, op, root), how, result)
        case "gather":
            return _make(comm, "gather", case, (send, recv, root), how, result)
        case "allgather" | "alltoall":
            return _make(comm, case.collective, case, (send, recv), how, result)
        case "reduce_scatter":
            return _make(comm, "reduce_scatter_block", case, (send, recv, op), how, result[:n])
        case _:
            return _make(comm, case.collective, case, (send, recv, op), how, result)


def _make(
    comm: pycomm.Comm, name: str, case: Case, arguments: tuple[Any, ...], how: Any, got: np.ndarray
) -> tuple[pycomm.Request | None, np.ndarray]:
    if not case.waits:
        return getattr(comm, "I" + name)(*arguments, **how), got
    getattr(comm, name.capitalize())(*arguments, **how)
    return None, got


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays hold the same bits."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _differences(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{a.shape} and not {b.dtype}{b.shape}"
    size = a.dtype.itemsize
    wrong = np.flatnonzero((a.view(np.uint8).reshape(-1, size) != b.view(np.uint8).reshape(-1, size)).any(1))
    return f"{wrong.size} of {a.size} elements differ, from {wrong[:3]} on"


def fingerprint(array: np.ndarray | None) -> int:
    """Return a number that tells results apart, so that ranks can compare them."""
    return 0 if array is None else zlib.crc32(array.tobytes())


def descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
