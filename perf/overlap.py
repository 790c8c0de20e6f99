"""What --overlap measures: how much of a call hides behind computing, as OSU's osu_iallreduce and its kin define it.

The pure time is that of starting a call and waiting for it at once. Computing is calibrated to take as long, and then
made between the two: what the call adds to it is what was not hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Start = Callable[[], Callable[[], Any]]

_BLOCK = 1024  # float64 elements: they stay in a first-level cache, so that computing takes no memory bandwidth
_TRIAL_ROWS = 500  # the least that is timed: about 0.1 ms


class Starter(Protocol):
    """What starting calls needs of a library."""

    in_place: Any
    ops: dict[str, Any]

    def begin(self, method: str, *args: Any, **keywords: Any) -> Start:
        """The call `comm.method(*args, **keywords)`, ready to be started: it then returns what waits for its end."""


class Starting:
    """A library as `cases` see it when calls are to be started: what is bound returns what waits."""

    def __init__(self, library: Starter) -> None:
        self.in_place, self.ops, self.bind = library.in_place, library.ops, library.begin


def to_the_end(start: Start) -> None:
    """Start a call and wait for it."""
    start()()


class Work:
    """Computing of a chosen length: one call into numpy's C code, in which no Python runs and nobody waits."""

    def __init__(self) -> None:
        self._block, self._sum = np.ones(_BLOCK), np.empty(_BLOCK)
        self._rows = np.empty((0, _BLOCK))
        self._nanoseconds_a_row = min(self._timed(_TRIAL_ROWS) for _ in range(20)) / _TRIAL_ROWS

    def _timed(self, rows: int) -> int:
        self._set(rows)
        before = perf_counter_ns()
        self.do()
        return perf_counter_ns() - before

    def _set(self, rows: int) -> None:
        self._rows = np.broadcast_to(self._block, (rows, _BLOCK))

    def calibrate(self, nanoseconds: float) -> None:
        """From now on take so long on a processor of one's own; it is an amount of work, not a time to pass."""
        self._set(max(1, round(nanoseconds / self._nanoseconds_a_row)))

    def do(self) -> None:
        """Compute."""
        np.add.reduce(self._rows, axis=0, out=self._sum)


def behind(work: Work, start: Start, barrier: Callable[[], Any]) -> tuple[int, int]:
    """Return the nanoseconds of computing alone, and of a call that is started before it and waited for after it."""
    barrier()
    begun = perf_counter_ns()
    work.do()
    alone = perf_counter_ns() - begun
    barrier()
    begun = perf_counter_ns()
    wait = start()
    work.do()
    wait()
    return alone, perf_counter_ns() - begun


def percent(pure: float, compute: float, total: float) -> float:
    """The share of a call's pure time that computing hides: 100 (1 - (total - compute) / pure) per cent, at least 0."""
    return max(0.0, 100.0 * (1.0 - (total - compute) / pure))
