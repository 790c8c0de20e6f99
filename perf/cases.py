"""The collectives that perf measures, one record each: who sends and receives how much, what must come out, the call.

To add a collective, add a record to `CASES`. A record never sees a library: `bind` is given one whose methods are
spelled as mpi4py's upper-case methods on numpy arrays, which is also how pycomm spells them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pycomm.errors import InvalidArgument
from pycomm.schedules.contract import contract

from .inputs import Inputs

Array = np.ndarray[Any, np.dtype[Any]]


class Binder(Protocol):
    """What a case needs of a library: its in-place marker, its reductions, and a call made ready to be timed."""

    in_place: Any
    ops: dict[str, Any]

    def bind(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """The call `comm.method(*args, **keywords)`, ready to be made again and again."""


@dataclass(frozen=True)
class Shape:
    """One rank's view of one measured call; `count` is nccl-tests' count, in elements."""

    rank: int
    size: int
    count: int
    root: int = 0
    op: str = "sum"
    in_place: bool = False

    @property
    def is_root(self) -> bool:
        """Whether this rank is the root."""
        return self.rank == self.root

    def seen_by(self, rank: int) -> Shape:
        """The same call from another rank."""
        return replace(self, rank=rank)


Elements = Callable[[Shape], int]
Bind = Callable[[Binder, Shape, Any, Any], Callable[[], Any]]


def _none(s: Shape) -> int:
    return 0


def _count(s: Shape) -> int:
    return s.count


def _all(s: Shape) -> int:
    return s.count * s.size


def _own_block(s: Shape) -> int:
    return s.count * s.rank


@dataclass(frozen=True)
class Case:
    """One collective. All amounts are elements, as functions of a rank's `Shape`.

    Attributes:
        name: what the user types; `program` is nccl-tests' name for it.
        parts: how many counts make up the size S that nccl-tests prints, for `n` ranks.
        sends, receives: this rank's input and output.
        busbw: the factor from algorithm to bus bandwidth for `n` ranks, derived in perf/README.md.
        expect: what this rank must hold afterwards, given everybody's inputs.
        bind: the call, given a library, the shape, and the input and output arrays (parts of one buffer in place).
        input_at, output_at: where they lie in that one buffer; None when the collective has no in-place form.
        reduces, rooted: whether an op, a root, mean anything to it.
    """

    name: str
    program: str
    parts: Callable[[int], int]
    sends: Elements
    receives: Elements
    busbw: Callable[[int], float]
    expect: Callable[[Shape, Inputs], Array]
    bind: Bind
    input_at: Elements | None = None
    output_at: Elements | None = None
    reduces: bool = False
    rooted: bool = False

    @property
    def moves_data(self) -> bool:
        """False for a barrier, which has no size to sweep."""
        return self.parts(1) > 0

    def count(self, nbytes: int, itemsize: int, ranks: int) -> int:
        """nccl-tests' count for about `nbytes` bytes; at least one element where there is data at all."""
        return max(1, nbytes // itemsize // self.parts(ranks)) if self.moves_data else 0

    def nbytes(self, count: int, itemsize: int, ranks: int) -> int:
        """The size S that `count` stands for, in bytes."""
        return count * itemsize * self.parts(ranks)

    def least_traffic(self, count: int, itemsize: int, ranks: int) -> int:
        """Bytes that all ranks together read and write at the very least: each input once, each output once."""
        shapes = (Shape(rank, ranks, count) for rank in range(ranks))
        return itemsize * sum(self.sends(s) + self.receives(s) for s in shapes)


def _one(n: int) -> int:
    return 1


def _n(n: int) -> int:
    return n


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def _whole(n: int) -> float:
    return 1.0


# ---- uneven counts: rank r's part is r + 1 units; between r and q it is (r + q) mod n + 1 units ----


def _offsets(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def gatherv_counts(s: Shape) -> list[int]:
    """Elements that each rank contributes to an allgatherv: rank r, r + 1 units."""
    return [s.count * (rank + 1) for rank in range(s.size)]


def alltoallv_counts(s: Shape) -> list[int]:
    """Elements that this rank exchanges with each other (as much as it gets back): (rank + peer) mod n + 1 units."""
    return [s.count * ((s.rank + peer) % s.size + 1) for peer in range(s.size)]


# ---- the calls ----


def _input(lib: Binder, s: Shape, send: Any, *, here: bool = True) -> Any:
    return lib.in_place if s.in_place and here else send


def _allreduce(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Allreduce", _input(lib, s, send), recv, op=lib.ops[s.op])


def _reduce(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    output = recv if s.is_root else None
    return lib.bind("Reduce", _input(lib, s, send, here=s.is_root), output, op=lib.ops[s.op], root=s.root)


def _broadcast(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Bcast", send if s.is_root else recv, root=s.root)


def _allgather(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Allgather", _input(lib, s, send), recv)


def _allgatherv(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    counts = gatherv_counts(s)
    return lib.bind("Allgatherv", _input(lib, s, send), [recv, (counts, _offsets(counts))])


def _reduce_scatter(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    if s.in_place:  # mpi: the whole buffer is given as the output, and the result lies at its start
        return lib.bind("Reduce_scatter_block", lib.in_place, send, op=lib.ops[s.op])
    return lib.bind("Reduce_scatter_block", send, recv, op=lib.ops[s.op])


def _gather(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Gather", _input(lib, s, send, here=s.is_root), recv if s.is_root else None, root=s.root)


def _scatter(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    output = lib.in_place if s.in_place and s.is_root else recv
    return lib.bind("Scatter", send if s.is_root else None, output, root=s.root)


def _alltoall(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Alltoall", _input(lib, s, send), recv)


def _alltoallv(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    layout = (alltoallv_counts(s), _offsets(alltoallv_counts(s)))
    return lib.bind("Alltoallv", [send, layout], [recv, layout])


def _scan(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Scan", _input(lib, s, send), recv, op=lib.ops[s.op])


def _exscan(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    if s.rank == 0 and not s.in_place:  # rank 0's output is undefined, yet a place for it must be given
        return lib.bind("Exscan", send, np.empty_like(send), op=lib.ops[s.op])
    return lib.bind("Exscan", _input(lib, s, send), recv if s.rank else send, op=lib.ops[s.op])


def _barrier(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    return lib.bind("Barrier")


def _sendrecv(lib: Binder, s: Shape, send: Any, recv: Any) -> Callable[[], Any]:
    right, left = (s.rank + 1) % s.size, (s.rank - 1) % s.size
    return lib.bind("Sendrecv", send, dest=right, recvbuf=recv, source=left)


# ---- what must come out ----


def _alltoallv_expected(s: Shape, inputs: Inputs) -> Array:
    blocks = []
    for peer in range(s.size):
        theirs = alltoallv_counts(s.seen_by(peer))
        blocks.append(inputs.of(peer, _offsets(theirs)[s.rank], theirs[s.rank]))
    return np.concatenate(blocks)


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="allreduce",
            program="all_reduce_perf",
            parts=_one,
            sends=_count,
            receives=_count,
            busbw=contract("allreduce").bus_factor,
            expect=lambda s, inputs: inputs.reduced(s.op, s.size, 0, s.count),
            bind=_allreduce,
            input_at=_none,
            output_at=_none,
            reduces=True,
        ),
        Case(
            name="reduce",
            program="reduce_perf",
            parts=_one,
            sends=_count,
            receives=lambda s: s.count if s.is_root else 0,
            busbw=contract("reduce").bus_factor,
            expect=lambda s, inputs: inputs.reduced(s.op, s.size, 0, s.count if s.is_root else 0),
            bind=_reduce,
            input_at=_none,
            output_at=_none,
            reduces=True,
            rooted=True,
        ),
        Case(
            name="broadcast",
            program="broadcast_perf",
            parts=_one,
            sends=lambda s: s.count if s.is_root else 0,
            receives=lambda s: 0 if s.is_root else s.count,
            busbw=contract("broadcast").bus_factor,
            expect=lambda s, inputs: inputs.of(s.root, 0, 0 if s.is_root else s.count),
            bind=_broadcast,
            rooted=True,
        ),
        Case(
            name="allgather",
            program="all_gather_perf",
            parts=_n,
            sends=_count,
            receives=_all,
            busbw=contract("allgather").bus_factor,
            expect=lambda s, inputs: np.concatenate([inputs.of(r, 0, s.count) for r in range(s.size)]),
            bind=_allgather,
            input_at=_own_block,
            output_at=_none,
        ),
        Case(
            name="allgatherv",
            program="all_gatherv_perf",
            parts=_triangle,
            sends=lambda s: gatherv_counts(s)[s.rank],
            receives=lambda s: sum(gatherv_counts(s)),
            busbw=contract("allgather").bus_factor,
            expect=lambda s, inputs: np.concatenate([inputs.of(r, 0, c) for r, c in enumerate(gatherv_counts(s))]),
            bind=_allgatherv,
            input_at=lambda s: sum(gatherv_counts(s)[: s.rank]),
            output_at=_none,
        ),
        Case(
            name="reduce_scatter",
            program="reduce_scatter_perf",
            parts=_n,
            sends=_all,
            receives=_count,
            busbw=contract("reduce_scatter").bus_factor,
            expect=lambda s, inputs: inputs.reduced(s.op, s.size, s.rank * s.count, s.count),
            bind=_reduce_scatter,
            input_at=_none,
            output_at=_none,
            reduces=True,
        ),
        Case(
            name="gather",
            program="gather_perf",
            parts=_n,
            sends=_count,
            receives=lambda s: _all(s) if s.is_root else 0,
            busbw=contract("gather").bus_factor,
            expect=lambda s, inputs: np.concatenate(
                [inputs.of(r, 0, s.count if s.is_root else 0) for r in range(s.size)]
            ),
            bind=_gather,
            input_at=lambda s: _own_block(s) if s.is_root else 0,
            output_at=_none,
            rooted=True,
        ),
        Case(
            name="scatter",
            program="scatter_perf",
            parts=_n,
            sends=lambda s: _all(s) if s.is_root else 0,
            receives=_count,
            busbw=contract("scatter").bus_factor,
            expect=lambda s, inputs: inputs.of(s.root, s.rank * s.count, s.count),
            bind=_scatter,
            input_at=_none,
            output_at=lambda s: _own_block(s) if s.is_root else 0,
            rooted=True,
        ),
        Case(
            name="alltoall",
            program="alltoall_perf",
            parts=_n,
            sends=_all,
            receives=_all,
            busbw=contract("alltoall").bus_factor,
            expect=lambda s, inputs: np.concatenate(
                [inputs.of(peer, s.rank * s.count, s.count) for peer in range(s.size)]
            ),
            bind=_alltoall,
            input_at=_none,
            output_at=_none,
        ),
        Case(
            name="alltoallv",
            program="alltoallv_perf",
            parts=_triangle,
            sends=lambda s: sum(alltoallv_counts(s)),
            receives=lambda s: sum(alltoallv_counts(s)),
            busbw=contract("alltoall").bus_factor,
            expect=_alltoallv_expected,
            bind=_alltoallv,
        ),
        Case(
            name="scan",
            program="scan_perf",
            parts=_one,
            sends=_count,
            receives=_count,
            busbw=contract("scan").bus_factor,
            expect=lambda s, inputs: inputs.reduced(s.op, s.rank + 1, 0, s.count),
            bind=_scan,
            input_at=_none,
            output_at=_none,
            reduces=True,
        ),
        Case(
            name="exscan",
            program="exscan_perf",
            parts=_one,
            sends=_count,
            receives=lambda s: s.count if s.rank else 0,
            busbw=contract("exscan").bus_factor,
            expect=lambda s, inputs: inputs.reduced(s.op, s.rank, 0, s.count if s.rank else 0),
            bind=_exscan,
            input_at=_none,
            output_at=_none,
            reduces=True,
        ),
        Case(
            name="barrier",
            program="barrier_perf",
            parts=lambda n: 0,
            sends=_none,
            receives=_none,
            busbw=contract("barrier").bus_factor,
            expect=lambda s, inputs: inputs.of(s.rank, 0, 0),
            bind=_barrier,
        ),
        Case(
            name="sendrecv",
            program="sendrecv_perf",
            parts=_one,
            sends=_count,
            receives=_count,
            busbw=_whole,
            expect=lambda s, inputs: inputs.of((s.rank - 1) % s.size, 0, s.count),
            bind=_sendrecv,
        ),
    )
}


def find(name: str) -> Case:
    """The case that a user's word names: `allreduce`, `all_reduce` and `all_reduce_perf` are the same.

    Raises:
        InvalidArgument: there is no such collective; the message lists those there are.
    """
    word = name.lower().removesuffix("_perf")
    for case in CASES.values():
        if word in (case.name, case.program.removesuffix("_perf")):
            return case
    if word == "bcast":
        return CASES["broadcast"]
    raise InvalidArgument(f"perf knows no collective {name!r}: choose from {', '.join(CASES)}, all")
