"""Times chosen ways of running collectives on the ranks of a communicator, so that models can be fitted and judged."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..communicator.comm import MAX, Comm
from ..data.buffer import IN_PLACE, Array
from ..errors import InvalidArgument
from ..schedules.contract import contract
from ..selection.candidates import Choice

_BATCHES = 8  # a slow phase of the machine shall spoil a batch of all cases, not all batches of one
_FEWEST = 3  # batches, where time is short
_MOST_CALLS = 40  # in a batch
_LONG = 2e-3  # s; a call that takes longer needs none before it that is not timed
_BESIDES = 20e-6  # s that go with a call: the barrier, the input
_LINE = 16  # elements in a cache line
_METHODS = {
    "allreduce": "Allreduce",
    "allgather": "Allgather",
    "reduce_scatter": "Reduce_scatter_block",
    "alltoall": "Alltoall",
    "broadcast": "Bcast",
}
COLLECTIVES = tuple(_METHODS)

Times = npt.NDArray[np.float64]


class Case(NamedTuple):
    """One thing to time.

    Attributes:
        collective: one of COLLECTIVES.
        nbytes: the full vector of a rank, as `select.choose` counts it; rounded down to what the ranks can share.
        choice: how it is run.
    """

    collective: str
    nbytes: int
    choice: Choice


@dataclass(frozen=True)
class Measurement:
    """What a case took.

    Attributes:
        collective, algorithm, slices, window: what was called, and how it ran.
        nbytes: the full vector of a rank.
        size: ranks.
        transport: "shm", "tcp", or "mixed" where both were used.
        seconds: the median of the batches' medians, of the longest that a rank spent in a call that all began at once.
        spread: the distance of the batches' quartiles, as a part of `seconds`.
        repeats: timed calls.
        hosts: how many hosts the ranks were on.
        asked: `nbytes` before it was rounded to what the ranks can share.
    """

    collective: str
    algorithm: str
    slices: int
    window: int
    nbytes: int
    size: int
    transport: str
    seconds: float
    spread: float
    repeats: int
    hosts: int
    asked: int

    @property
    def choice(self) -> Choice:
        """Return how the calls ran."""
        return Choice(self.algorithm, self.slices, self.window)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for a line of JSON."""
        return asdict(self)


def measure(comm: Comm, cases: Sequence[Case], seconds: float) -> list[Measurement]:
    """Time all cases, in batches that go round all of them; every rank of `comm` must call this, and gets the result.

    A call is timed as `pycomm perf` does it: after a barrier, into buffers that are not in the last-level cache while
    the input has just been written. The time of a call is that of its slowest rank.

    Args:
        comm: the ranks; nothing else may run on them.
        cases: the same on all ranks.
        seconds: how long this may take, about; a case gets three timed calls at least.

    Raises:
        InvalidArgument: a case names a collective that is not in COLLECTIVES, or no algorithm.
    """
    if not cases:
        return []
    began = perf_counter()
    bench = _Bench(comm, cases)
    once = np.full(len(cases), 1.0)
    for _ in range(2):  # the first emits, binds and connects
        once = np.concatenate(bench.batch([1] * len(cases), once < 0))
    left = max(0.0, seconds - bench.slowest(perf_counter() - began))
    each = left / len(cases) / _BATCHES
    warm = once < _LONG
    calls = [int(max(1, min(_MOST_CALLS, each / c - w))) for c, w in zip(once + _BESIDES, warm, strict=True)]
    batches = _BATCHES if left > 0 else _FEWEST
    rounds = [bench.batch(calls, warm) for _ in range(batches)]
    transport, hosts = _transport(comm), 1 if comm.groups is None else len(comm.groups)
    found = []
    for i, (case, asked) in enumerate(zip(bench.cases, cases, strict=True)):
        medians = np.array([np.median(batch[i]) for batch in rounds])
        low, middle, high = np.percentile(medians, [25, 50, 75])
        found.append(
            Measurement(
                case.collective, case.choice.algorithm, case.choice.slices, case.choice.window, case.nbytes, comm.size,
                transport, float(middle), float((high - low) / middle), batches * calls[i], hosts,
                asked.nbytes,
            )
        )  # fmt: skip
    return found


class _Bench:
    """Buffers, and the calls into them."""

    def __init__(self, comm: Comm, cases: Sequence[Case]) -> None:
        unknown = sorted({case.collective for case in cases} - set(COLLECTIVES))
        if unknown:
            raise InvalidArgument(f"{unknown[0]} cannot be tuned; these can: {', '.join(COLLECTIVES)}")
        self._comm = comm
        self.cases = [case._replace(nbytes=4 * _elements(case, comm.size)) for case in cases]
        most = max(case.nbytes for case in self.cases) // 4
        pool = max(2 * most, 2 * _cache() // 4 // comm.size // 2)
        # Both are written: pages that were never touched would cost the first calls that meet them.
        self._source, self._target = np.ones(pool, np.float32), np.ones(pool, np.float32)
        self._at = 0

    def slowest(self, seconds: float) -> float:
        """Return what the slowest rank says, which all ranks then go by."""
        said = np.array([seconds])
        self._comm.Allreduce(IN_PLACE, said, MAX)
        return float(said[0])

    def batch(self, calls: Sequence[int], warm: Sequence[bool] | npt.NDArray[np.bool_]) -> list[Times]:
        """Make calls[i] timed calls of each case i, after one that is not timed where warm[i].

        Returns the slowest rank's seconds in each call, for each case.
        """
        own = np.concatenate([self._times(*one) for one in zip(self.cases, calls, warm, strict=True)])
        slowest = np.empty_like(own)
        self._comm.Allreduce(own, slowest, MAX)
        return np.split(slowest, np.cumsum(calls)[:-1])

    def _times(self, case: Case, calls: int, warm: bool) -> Times:
        comm, barrier, now = self._comm, self._comm.Barrier, perf_counter_ns
        own, out = self._buffers(case)
        comm.adopt(case.collective, own, out, case.choice)
        times = np.empty(calls)
        call = getattr(comm, _METHODS[case.collective])
        was_on = gc.isenabled()
        gc.disable()
        for i in range(-1 if warm else 0, calls):
            own, out = self._buffers(case)
            if own is not None:
                own[...] = 1
            buffers = (out,) if case.collective == "broadcast" else (own, out)
            barrier()
            before = now()
            call(*buffers)
            times[i] = now() - before  # of the call that is not timed: written over
        if was_on:
            gc.enable()
        return times * 1e-9

    def _buffers(self, case: Case) -> tuple[Array | None, Array]:
        """Return the next two buffers for a case (no input: None), as `Comm.adopt` takes them."""
        whole = case.nbytes // 4
        part = whole // self._comm.size
        kind = case.collective
        own, out = (part if kind == "allgather" else whole), (part if kind == "reduce_scatter" else whole)
        if self._at + whole > len(self._source):
            self._at = 0
        at, self._at = self._at, self._at + -(-whole // _LINE) * _LINE
        target = self._target[at : at + out]
        if kind == "broadcast":
            return (target if self._comm.rank == 0 else None), target
        return self._source[at : at + own], target


def _elements(case: Case, size: int) -> int:
    """Return how many elements the full vector has, so that all blocks are equal and there is one at least."""
    blocks = 1 if contract(case.collective).blocks == "one" else size
    return max(1, case.nbytes // 4 // blocks) * blocks


def _cache() -> int:
    """Return the bytes of the largest cache of processor 0, or 32 MiB where the system does not say."""
    files = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(file.read_text().strip().rstrip("K")) << 10 for file in files), default=32 << 20)


def _transport(comm: Comm) -> str:
    """Return how the ranks reach each other; the same on all of them."""
    seen = {comm.transport(rank) for rank in range(comm.size) if rank != comm.rank}
    flags = np.array(["shm" in seen, "tcp" in seen], np.int32)
    comm.Allreduce(IN_PLACE, flags, MAX)
    return {(True, True): "mixed", (False, True): "tcp"}.get((bool(flags[0]), bool(flags[1])), "shm")
