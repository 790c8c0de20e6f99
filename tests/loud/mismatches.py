"""Everything that two ranks may disagree on in a call, and what comes of it: `mismatches.py` prints the matrix.

In each case rank 1 makes another call than the others do. What every rank is told is counted: a typed error that names
the disagreement; nothing, although the ranks went on for a thousand calls; or that a call has waited for too long.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "comm"))
from conformance import INPROC, SHM, TCP

import pycomm
from pycomm import MPI

Call = Callable[[pycomm.Comm], Any]
KINDS = ("op", "dtype", "count", "reduction", "root", "order")
TYPED, SILENT, HANGS = "typed", "silent", "hangs"
PATIENCE = 10.0  # seconds
SIZE = 3


def ones(n: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(n, dtype)


def calls(n: int = 8, dtype: Any = np.float32, op: int = pycomm.SUM, root: int = 0) -> dict[str, Call]:
    """Return one call of each collective; n: of elements of a block, and of rank 1's block where blocks are uneven."""

    def x(c: pycomm.Comm, blocks: int = 1) -> np.ndarray:
        return ones(n * blocks, dtype)

    def uneven(c: pycomm.Comm) -> list[int]:
        return [5, n, *[3] * (c.size - 2)]

    def all_uneven(c: pycomm.Comm) -> list[Any]:
        return [ones(sum(uneven(c)), dtype), uneven(c)]

    def own(c: pycomm.Comm) -> np.ndarray:
        return ones(uneven(c)[c.rank], dtype)

    def pairs(c: pycomm.Comm) -> list[Any]:
        """What goes between rank 1 and the others is of length n."""
        counts = [n if 1 in (c.rank, r) else 4 for r in range(c.size)]
        return [ones(sum(counts), dtype), counts]

    def mixed(c: pycomm.Comm) -> list[Any]:
        data, counts = pairs(c)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]) * data.itemsize
        kind = MPI.FLOAT if data.itemsize == 4 else MPI.DOUBLE
        return [data, (counts, [*map(int, starts)]), [kind] * c.size]

    return {
        "allreduce": lambda c: c.Allreduce(x(c), x(c), op),
        "reduce": lambda c: c.Reduce(x(c), x(c), op, root),
        "scan": lambda c: c.Scan(x(c), x(c), op),
        "exscan": lambda c: c.Exscan(x(c), x(c), op),
        "reduce_scatter_block": lambda c: c.Reduce_scatter_block(x(c, c.size), x(c), op),
        "reduce_scatter": lambda c: c.Reduce_scatter(all_uneven(c)[0], own(c), uneven(c), op),
        "broadcast": lambda c: c.Bcast(x(c), root),
        "gather": lambda c: c.Gather(x(c), x(c, c.size), root),
        "gatherv": lambda c: c.Gatherv(own(c), all_uneven(c), root),
        "scatter": lambda c: c.Scatter(x(c, c.size), x(c), root),
        "scatterv": lambda c: c.Scatterv(all_uneven(c), own(c), root),
        "allgather": lambda c: c.Allgather(x(c), x(c, c.size)),
        "allgatherv": lambda c: c.Allgatherv(own(c), all_uneven(c)),
        "alltoall": lambda c: c.Alltoall(x(c, c.size), x(c, c.size)),
        "alltoallv": lambda c: c.Alltoallv(pairs(c), pairs(c)),
        "alltoallw": lambda c: c.Alltoallw(mixed(c), mixed(c)),
        "barrier": lambda c: c.Barrier(),
        "send, recv": _message(n, dtype),
    }


def _message(n: int, dtype: Any) -> Call:
    """Rank 0 sends to rank 1, whose receive is another; there must be room, so a longer one is sent."""

    def call(c: pycomm.Comm) -> None:
        if c.rank == 0:
            c.Send(ones(n, dtype), 1, 7)
        elif c.rank == 1:
            c.Recv(ones(n, dtype), 0, 7)

    return call


_REDUCING = ("allreduce", "reduce", "scan", "exscan", "reduce_scatter_block", "reduce_scatter")
_ROOTED = ("reduce", "broadcast", "gather", "gatherv", "scatter", "scatterv")


def cases() -> Iterator[tuple[str, str, Call, Call]]:
    """Yield (collective, what is different, the call of all but rank 1, that of rank 1)."""
    usual = calls()
    shorter, wider, others = calls(n=6), calls(dtype=np.float64), calls(op=pycomm.MAX)
    moved = calls(root=1)
    names = list(usual)
    collectives = names[:-1]
    for i, name in enumerate(collectives):
        yield name, "op", usual[name], usual[collectives[(i + 1) % len(collectives)]]
        yield name, "order", _both(usual[name], usual["allreduce" if name == "barrier" else "barrier"]), _both(
            usual["allreduce" if name == "barrier" else "barrier"], usual[name])  # fmt: skip
    for name in names:
        if name != "barrier":
            yield name, "dtype", usual[name], wider[name]
            yield name, "count", usual[name], shorter[name]
        if name in _REDUCING:
            yield name, "reduction", usual[name], others[name]
        if name in _ROOTED:
            yield name, "root", usual[name], moved[name]


def _both(first: Call, second: Call) -> Call:
    def call(c: pycomm.Comm) -> None:
        first(c)
        second(c)

    return call


def told(transport: str, usual: Call, odd: Call) -> list[tuple[str, str]]:
    """Run one case; return, by rank, what it was told: TYPED, SILENT or HANGS, and the words."""

    def rank(comm: pycomm.Comm) -> tuple[str, str]:
        comm.set_timeout(PATIENCE)
        x, total = ones(8), ones(8)
        try:
            comm.Barrier()
            (odd if comm.rank == 1 else usual)(comm)
            for _ in range(1000):
                comm.Allreduce(x, total)
        except pycomm.Truncated as error:  # of a message: the sender's own call was right
            comm.Abort(str(error))
            return TYPED, str(error)
        except (pycomm.Mismatch, pycomm.Aborted) as error:
            return TYPED, str(error)
        except pycomm.DeadlineExceeded as error:
            return HANGS, str(error)
        return SILENT, ""

    return pycomm.run_threads(SIZE, rank, transports=transport)


def main() -> int:
    """Print the matrix, a row for each collective: how many of all ranks were told, over all transports."""
    transports = (INPROC, SHM, TCP)
    cells: dict[tuple[str, str], Counter[str]] = {}
    for collective, kind, usual, odd in cases():
        cells[collective, kind] = Counter(what for transport in transports for what, _ in told(transport, usual, odd))
    print(f"ranks told of a disagreement, of {SIZE} over each of {', '.join(transports)}")
    print(f"{'':22}" + "".join(f"{kind:>11}" for kind in KINDS))
    for name in calls():
        row = (cells.get((name, kind)) for kind in KINDS)
        print(f"{name:22}" + "".join(f"{f'{c[TYPED]}/{c.total()}' if c else '':>11}" for c in row))
    total = sum(cells.values(), Counter[str]())
    print(f"{total[TYPED]} typed errors, {total[SILENT]} silent, {total[HANGS]} hangs")
    return int(total[TYPED] < total.total())


if __name__ == "__main__":
    sys.exit(main())
