"""What all ranks do in a collective, without the numbers of chunks: the messages that the simulator prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument
from .registry import Algorithm, Groups
from .schedule import COPY, END, MORE, Schedule
from .view import asked, emit

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """The rounds of all ranks, as arrays.

    Attributes:
        name, collective, size, root: what this is; `size` ranks.
        share: the size of one chunk as a part of n, the bytes of a rank's full vector (see `Schedule.share`).
        period: the rounds of ranks 0 to period - 1 are here; rank r does what rank r - period does, with all peers
            shifted by `period`. `size` where ranks differ.
        rounds: rank r has the rounds rounds[r] to rounds[r + 1] - 1 (length period + 1).
        ops: round k has the operations ops[k] to ops[k + 1] - 1.
        kind: of each operation: SEND, RECV, REDUCE_FROM (messages), COPY, REDUCE (rows of local work).
        peer: the other rank of a message, -1 for local work.
        chunks: how many chunks a message has, or a row of local work: consecutive COPY or REDUCE steps of a round.
    """

    name: str
    collective: str
    size: int
    root: int
    share: float
    period: int
    rounds: Offsets
    ops: Offsets
    kind: npt.NDArray[np.uint8]
    peer: npt.NDArray[np.int32]
    chunks: npt.NDArray[np.int32]

    def expand(self, period: int) -> Traffic:
        """Return the same with a longer period, which must be a multiple of this one and divide the size."""
        if period % self.period or self.size % period:
            raise InvalidArgument(f"period {self.period} of {self.size} ranks cannot be expanded to {period}")
        times = period // self.period
        if times == 1:
            return self
        shift = np.repeat(np.arange(0, period, self.period, dtype=np.int32), len(self.peer))
        peer = np.tile(self.peer, times)
        return replace(
            self,
            period=period,
            rounds=_tiled(self.rounds, times),
            ops=_tiled(self.ops, times),
            kind=np.tile(self.kind, times),
            peer=np.where(peer < 0, peer, (peer + shift) % self.size),
            chunks=np.tile(self.chunks, times),
        )


def traffic(
    algorithm: str | Callable[[Any], None],
    collective: str,
    *,
    size: int,
    root: int = 0,
    groups: Groups | None = None,
) -> Traffic:
    """Return what all ranks do.

    Args:
        algorithm, collective, size, root, groups: as of `pycomm.view.emit`.

    Raises:
        InvalidArgument, ScheduleError: as `pycomm.view.emit` does.
    """
    return _traffic(collective, size, *asked(algorithm, collective, size, root, groups))


@lru_cache(maxsize=8)
def _traffic(collective: str, size: int, algorithm: Algorithm, root: int, groups: Groups | None) -> Traffic:
    asked_for = algorithm.name if algorithm.grouped else algorithm.write
    schedules = [emit(asked_for, collective, size=size, rank=r, root=root, groups=groups) for r in range(size)]
    rows = [_rows(schedule) for schedule in schedules]
    lengths = np.concatenate([row[0] for row in rows])
    return Traffic(
        schedules[0].name,
        collective,
        size,
        root,
        float(schedules[0].share),
        size,
        _offsets(np.array([len(row[0]) for row in rows])),
        _offsets(lengths),
        *(np.concatenate([row[k] for row in rows]) for k in (1, 2, 3)),
    )


def _rows(schedule: Schedule) -> tuple[Any, Any, Any, Any]:
    """Return how many operations each round of a rank has, and their kinds, peers and numbers of chunks."""
    steps = schedule.steps
    kind, ends = steps["kind"], steps["flags"] & END != 0
    goes_on = steps["flags"] & MORE != 0
    goes_on[:-1] |= (kind[:-1] >= COPY) & (kind[:-1] == kind[1:]) & ~ends[:-1]
    last = np.flatnonzero(~goes_on)
    peer = steps["peer"][last].astype(np.int64)
    peer[kind[last] >= COPY] = -1
    lengths = np.diff(np.flatnonzero(ends[last]), prepend=-1)
    return lengths, kind[last], peer.astype(np.int32), np.diff(last, prepend=-1).astype(np.int32)


def _offsets(lengths: npt.NDArray[Any]) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _tiled(offsets: Offsets, times: int) -> Offsets:
    """Repeat what the offsets delimit."""
    return _offsets(np.tile(np.diff(offsets), times))
