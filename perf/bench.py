"""The loop that measures one call of one rank, the same for every library.

Each iteration: the library's own barrier, a clock reading, the call, a clock reading; then the input just used is
rewritten. The calls go round several copies of the buffers which together overflow the last-level cache (for messages
that are not tiny), so that no iteration finds what the one before it left there.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from .cases import CASES, Binder, Case, Shape
from .inputs import Inputs, dtype_of
from .overlap import Start, Starter, Starting, Work, behind, to_the_end
from .sizes import parse_size

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_COPIES = 64
_POISON = 0xAA  # no input or result of inputs.py has this in all of its bytes


class Library(Binder, Starter, Protocol):
    """A library joined to its job, as one rank sees it."""

    name: str
    version: str
    rank: int
    size: int

    def unsupported(self, case: Case, dtype: str, op: str, in_place: bool) -> str | None:
        """Why this library cannot make such a call, the same on every rank, or None if it can."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def allgather(self, values: Array) -> Array:
        """The float64 `values` of all ranks; shape (size, len(values))."""

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes, on every rank."""

    def close(self) -> None:
        """Leave the job."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure: a collective at a size.

    Attributes:
        count: nccl-tests' count in elements.
        memory: bytes that this rank's buffers may take (one copy is always made).
        overlap: whether calls are started, and measured with computing too.
    """

    collective: str
    count: int
    dtype: str
    op: str
    root: int
    in_place: bool
    memory: int
    overlap: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one rank saw in one round.

    Attributes:
        times: nanoseconds of each timed call; shape (iterations,).
        wall: nanoseconds that one iteration takes with its barrier and rewriting, on average.
        wrong: wrong elements of this rank's output, or None if it was not looked at.
        overlapped: nanoseconds of computing alone, and of calls with it; shape (2, iterations). None: not asked for.
    """

    times: Array
    wall: float
    wrong: int | None
    overlapped: Array | None = None


def last_level_cache() -> int:
    """Bytes of the largest cache of CPU 0, or 32 MiB where the system does not say."""
    sizes = [parse_size(p.read_text()) for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=32 << 20)


def copies(nbytes: int, ranks: int, memory: int) -> int:
    """Copies of buffers of `nbytes` to rotate among: over all ranks, twice the last-level cache, if memory allows."""
    nbytes = max(nbytes, 64)
    wanted = -(-2 * last_level_cache() // (nbytes * ranks))
    return max(1, min(max(2, wanted), _MOST_COPIES, memory // nbytes))


class Bench:
    """One rank's prepared calls for one cell, measured in as many rounds as are asked for."""

    def __init__(self, library: Library, cell: Cell) -> None:
        case = CASES[cell.collective]
        shape = Shape(library.rank, library.size, cell.count, cell.root, cell.op, cell.in_place)
        inputs = Inputs(cell.dtype, cell.op, library.size)
        dtype = dtype_of(cell.dtype)
        sends, receives = case.sends(shape), case.receives(shape)
        self._library = library
        self._pattern = inputs.of(library.rank, 0, sends)
        self._expect: Callable[[], Array] = lambda: case.expect(shape, inputs)
        self._sends: list[Array] = []
        self._receives: list[Array] = []
        self._calls: list[Callable[[], Any]] = []
        self._starts: list[Start] = []
        self._work = Work() if cell.overlap else None
        # Every rank makes as many copies as the busiest one, so that all of them rotate in step.
        busiest = max(case.sends(s) + case.receives(s) for s in map(shape.seen_by, {0, cell.root, library.size - 1}))
        for _ in range(copies(busiest * dtype.itemsize, library.size, cell.memory)):
            if cell.in_place:
                assert case.input_at is not None and case.output_at is not None
                input_at, output_at = case.input_at(shape), case.output_at(shape)
                buffer = np.empty(max(input_at + sends, output_at + receives), dtype)
                send, recv = buffer[input_at : input_at + sends], buffer[output_at : output_at + receives]
            else:
                send, recv = np.empty(sends, dtype), np.empty(receives, dtype)
            recv.view(np.uint8).fill(0)  # touched once, so that no timed call meets a page fault
            send[...] = self._pattern
            self._sends.append(send)
            self._receives.append(recv)
            if cell.overlap:
                self._starts.append(case.bind(Starting(library), shape, send, recv))
                self._calls.append(functools.partial(to_the_end, self._starts[-1]))
            else:
                self._calls.append(case.bind(library, shape, send, recv))

    def round(self, warmup: int, iterations: int, check: bool) -> Outcome:
        """Call `warmup` times unmeasured, `iterations` times measured, then once more checked if `check`."""
        barrier, calls, now = self._library.barrier, self._calls, perf_counter_ns
        times = np.empty(iterations, np.int64)
        ends = np.empty(iterations + 1, np.int64)
        for i in range(warmup):
            self._call_once(i % len(calls))
        gc_was_on = gc.isenabled()
        gc.disable()
        ends[0] = now()
        for i in range(iterations):
            k = i % len(calls)
            call = calls[k]
            barrier()
            before = now()
            call()
            times[i] = now() - before
            self._sends[k][...] = self._pattern
            ends[i + 1] = now()
        overlapped = self._overlap(times) if self._work else None
        wall = (now() - ends[0]) / iterations
        if gc_was_on:
            gc.enable()
        return Outcome(times, float(wall), self._wrong() if check else None, overlapped)

    def _overlap(self, pure: Array) -> Array:
        """Call with computing that takes as long as the calls alone have taken, the same on all ranks."""
        assert self._work is not None
        self._work.calibrate(float(self._library.allgather(np.array([np.median(pure)])).mean()))
        pairs = np.empty((2, len(pure)), np.int64)
        for i in range(len(pure)):
            k = i % len(self._starts)
            pairs[:, i] = behind(self._work, self._starts[k], self._library.barrier)
            self._sends[k][...] = self._pattern
        return pairs

    def _call_once(self, k: int) -> None:
        self._library.barrier()
        self._calls[k]()
        self._sends[k][...] = self._pattern

    def _wrong(self) -> int:
        """Call once into a poisoned output and count the elements that are not bit for bit what they should be."""
        send, recv = self._sends[-1], self._receives[-1]
        recv.view(np.uint8).fill(_POISON)
        send[...] = self._pattern
        self._library.barrier()
        self._calls[-1]()
        expected = self._expect()
        bits = getattr(np, f"uint{8 * recv.dtype.itemsize}")
        wrong = int(np.count_nonzero(recv.view(bits) != expected.view(bits)))
        send[...] = self._pattern
        return wrong
