"""A library made of threads and numpy: the independent answer that the cases' expectations are held against."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


class _Meeting:
    """Where the ranks of one fake job leave arrays for each other."""

    def __init__(self, size: int) -> None:
        self.table: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=30)


class FakeLibrary:
    """One rank; `spoil` makes its Allreduce forget rank 0's contribution."""

    name = "fake"
    version = "fake 1"
    in_place = "in place"

    def __init__(self, meeting: _Meeting, rank: int, size: int, spoil: bool = False) -> None:
        self._meeting, self.rank, self.size, self._spoil = meeting, rank, size, spoil
        self.ops = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum, "avg": "avg"}

    def bind(self, method: str, *args: Any, **keywords: Any) -> Any:
        return functools.partial(getattr(self, method), *args, **keywords)

    def begin(self, method: str, *args: Any, **keywords: Any) -> Any:
        """Nothing goes on by itself here: the whole call is made by who waits."""
        return lambda: self.bind(method, *args, **keywords)

    def unsupported(self, case: Any, dtype: str, op: str, in_place: bool) -> str | None:
        return None

    def barrier(self) -> None:
        self._meeting.barrier.wait()

    def _all(self, value: Any) -> list[Any]:
        """What every rank brings, copied."""
        self._meeting.table[self.rank] = None if value is None else np.array(value)
        self.barrier()
        everybody = list(self._meeting.table)
        self.barrier()
        return everybody

    def _fold(self, arrays: list[Any], op: Any) -> Any:
        wide = [a.astype(np.float64) for a in arrays]
        total = functools.reduce(np.add if op == "avg" else op, wide)
        return (total / self.size if op == "avg" else total).astype(arrays[0].dtype)

    def Allreduce(self, send: Any, recv: Any, op: Any) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        recv[...] = self._fold(everybody[1:] if self._spoil else everybody, op)

    def Reduce(self, send: Any, recv: Any, op: Any, root: int) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        assert (recv is not None) == (self.rank == root)
        if recv is not None:
            recv[...] = self._fold(everybody, op)

    def Bcast(self, buffer: Any, root: int) -> None:
        buffer[...] = self._all(buffer)[root]

    def Allgather(self, send: Any, recv: Any) -> None:
        own = np.split(recv, self.size)[self.rank] if send is self.in_place else send
        recv[...] = np.concatenate(self._all(own))

    def Allgatherv(self, send: Any, spec: Any) -> None:
        recv, (counts, offsets) = spec
        own = recv[offsets[self.rank] :][: counts[self.rank]] if send is self.in_place else send
        for part, count, offset in zip(self._all(own), counts, offsets, strict=True):
            assert len(part) == count
            recv[offset : offset + count] = part

    def Reduce_scatter_block(self, send: Any, recv: Any, op: Any) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        mine = np.split(self._fold(everybody, op), self.size)[self.rank]
        recv[: len(mine)] = mine

    def Gather(self, send: Any, recv: Any, root: int) -> None:
        own = np.split(recv, self.size)[self.rank] if send is self.in_place else send
        everybody = self._all(own)
        if self.rank == root:
            recv[...] = np.concatenate(everybody)

    def Scatter(self, send: Any, recv: Any, root: int) -> None:
        parts = np.split(self._all(send)[root], self.size)
        if recv is not self.in_place:
            recv[...] = parts[self.rank]

    def Alltoall(self, send: Any, recv: Any) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        recv[...] = np.concatenate([np.split(theirs, self.size)[self.rank] for theirs in everybody])

    def Alltoallv(self, send: Any, recv: Any) -> None:
        (source, (counts, offsets)), (target, (in_counts, in_offsets)) = send, recv
        layouts = self._all(np.array([counts, offsets]))
        for peer, theirs in enumerate(self._all(source)):
            count, offset = layouts[peer][0][self.rank], layouts[peer][1][self.rank]
            assert count == in_counts[peer]
            target[in_offsets[peer] : in_offsets[peer] + count] = theirs[offset : offset + count]

    def Scan(self, send: Any, recv: Any, op: Any) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        recv[...] = self._fold(everybody[: self.rank + 1], op)

    def Exscan(self, send: Any, recv: Any, op: Any) -> None:
        everybody = self._all(recv if send is self.in_place else send)
        if self.rank:
            recv[...] = self._fold(everybody[: self.rank], op)

    def Barrier(self) -> None:
        self.barrier()

    def Sendrecv(self, send: Any, dest: int, recvbuf: Any, source: int) -> None:
        assert (dest - 1) % self.size == self.rank == (source + 1) % self.size
        recvbuf[...] = self._all(send)[source]

    def allgather(self, values: Any) -> Any:
        return np.stack(self._all(values))

    def broadcast(self, data: bytes | None) -> bytes:
        """As the adapters do it: rank 0's bytes for everybody."""
        found = self._all(None if data is None else np.frombuffer(data, np.uint8))[0]
        return bytes(found)

    def close(self) -> None:
        """Nothing to leave."""


def on_ranks(size: int, work: Any, spoil: bool = False) -> list[Any]:
    """`work(library)` on every rank of a fake job, each in its thread; the results by rank."""
    meeting = _Meeting(size)
    libraries = [FakeLibrary(meeting, rank, size, spoil) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return [future.result(60) for future in [pool.submit(work, library) for library in libraries]]
