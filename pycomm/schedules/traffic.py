"""What all ranks do in a collective, without the numbers of chunks: the messages that the simulator prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import chain
from math import prod
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument, ScheduleError
from .contract import contract
from .ranks import Path, Ranks, Vector, each_path
from .registry import Groups
from .schedule import COPY, END, MORE, STEP, Schedule
from .view import Chunk, Group, Pen, Task, Temp, View, leaves, task_of

Offsets = npt.NDArray[np.int64]

_GLANCE = 64  # ranks


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
        algorithm, collective, size, root, groups: as of `pycomm.schedules.view.emit`.

    Raises:
        InvalidArgument, ScheduleError: as `pycomm.schedules.view.emit` does.
    """
    return _traffic(task_of(algorithm, collective, size, root, groups))


@lru_cache(maxsize=8)
def _traffic(task: Task) -> Traffic:
    cut, nchunks = task.numbering()

    def run(path: Path) -> list[_Part]:
        if len(path.ranks) == 1:
            return [_alone(task.schedule(int(path.ranks[0])))]
        pen = Pen()
        task.algorithm.write(_Together(pen, path, task, nchunks))
        return _together(path, pen.rounds)

    parts = list(chain.from_iterable(each_path(task.size, run)))
    blank = Schedule(task.algorithm.name, task.collective, task.size, 0, task.root, cut, np.empty(0, STEP))
    about = blank.name, task.collective, task.size, task.root, float(blank.share)
    period = _period(parts, task.size)
    return Traffic(*about, period, *_assembled(parts, task.size, period))


class _Row(NamedTuple):
    """A message, or local work, of all ranks of a path."""

    kind: int
    far: int | Vector  # from each rank up to its peer; a plain number if it is the same for all
    chunks: int | Vector

    def of(self, i: int) -> _Row:
        """Return the row of one of the ranks."""
        far = self.far if isinstance(self.far, int) else int(self.far[i])
        return _Row(self.kind, far, self.chunks if isinstance(self.chunks, int) else int(self.chunks[i]))


class _Part(NamedTuple):
    """What the ranks of one path do."""

    ranks: Vector
    lengths: npt.NDArray[np.int64]  # operations of each round
    kind: npt.NDArray[np.uint8]  # of each operation
    far: npt.NDArray[np.int32]  # (ranks, operations), or one row for all
    chunks: npt.NDArray[np.int32]  # (ranks, operations), or one row for all

    def of(self, n: int) -> _Part:
        """Return the same of the first n of its ranks alone."""
        far, chunks = (table[:n] if len(table) == len(self.ranks) else table for table in (self.far, self.chunks))
        return self._replace(ranks=self.ranks[:n], far=far, chunks=chunks)


class _Together(View):
    """The view of all ranks of a path; of chunks only their number matters.

    What is wrong is told without a sentence: each rank by itself then meets the same, and tells it (see `each_path`).
    """

    def __init__(self, pen: Pen, path: Path, task: Task, chunks: int) -> None:
        paired = contract(task.collective).blocks == "pair"
        super().__init__(pen, path.rank, task.size, task.root, chunks, paired, task.groups)
        self._path = path
        self._map: Vector | None = None  # in a sub-view: its ranks in the whole, a row for all or one for each rank
        self._lengths: int | Vector = 1  # how many chunks of the whole each chunk stands for

    def temp(self, like: Chunk) -> Temp:
        count = self._count(like)
        return Temp(np.broadcast_to(np.uint32(0), count if isinstance(count, int) else self._path.agree(count)))

    def sub(self, ranks: Sequence[int], chunks: Sequence[Any] | None = None, root: int = 0) -> View:
        members = _columns(ranks) % self.size
        ordered = np.sort(members, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ScheduleError
        place = self._path.number(_Table(members, None).places(self._own(), self.size))
        view = _Together.__new__(_Together)
        View.__init__(view, self._pen, place, members.shape[1], root, self.chunks, self._paired)
        view._path, view._lengths = self._path, self._lengths
        view._map = self._whole(members)
        if chunks is not None:
            view.chunks = len(chunks)
            view._lengths = _alike([self._count_of(c, paired=False) for c in chunks])
        return view

    def within(self, groups: Groups) -> tuple[int, Any]:
        table, column, kinds = (_kept_grid if groups is self.groups else _grid)(groups)
        numbers = column[table.places(self._own(), self.size)]
        number = self._path.number(numbers)
        if isinstance(number, int):
            return number, groups[number]
        kind = self._path.agree(kinds[numbers])  # groups of one shape are one group of vectors
        alike = np.flatnonzero(kinds == kind)
        near = table.part(kinds[column] == kind, len(alike), np.searchsorted(alike, numbers))
        return number, near.shaped(groups[alike[0]], self._path)

    def place(self, ranks: Sequence[int]) -> int:
        place: int = self._path.number(_table(ranks).places(self._own(), self.size))
        return place

    def at(self, values: Sequence[Any] | npt.NDArray[np.integer], place: int) -> Any:
        if not isinstance(place, Ranks):
            return values[place]
        if isinstance(values[0], Ranks | int | np.integer):
            return self._path.number(_table(values).at(place.values))
        count = self._path.agree(np.array([len(each) for each in values])[place.values])
        return Ranks(self._path, lambda: np.array([values[i] for i in place.values]), self.chunks, (count,))

    def _own(self) -> Vector:
        if isinstance(self.rank, Ranks):
            return self.rank.values
        return np.full(len(self._path.ranks), self.rank)

    def _whole(self, ranks: Vector) -> Vector:
        """Return what ranks of this view are in the whole: rows for all, or one for each rank."""
        if self._map is None:
            return ranks
        row = np.arange(len(self._map))[:, None] if len(self._map) > 1 else 0
        whole: Vector = self._map[row, ranks]
        return whole

    def _local(self, kind: int, src: Chunk, dst: Chunk) -> None:
        count = self._count(dst)
        if np.any(self._count(src) != count):
            raise ScheduleError
        self._write(_Row(kind, 0, count))

    def _message(self, kind: int, chunk: Chunk, peer: Any) -> None:
        count = self._count(chunk)
        far = self._far(peer)
        if far == 0 if isinstance(far, int) else (far == 0).any():
            raise ScheduleError  # to itself
        self._write(_Row(kind, far, count))

    def _far(self, peer: Any) -> int | Vector:
        if self._map is None and isinstance(peer, Ranks) and peer.shift is not None:
            return peer.shift % self.size
        whole = self._whole(_columns(peer) % self.size)[:, 0]
        return _plain((whole - self._path.ranks) % self._path.size)

    def _write(self, row: _Row) -> None:
        if self._pen.open is None:
            raise ScheduleError
        if not isinstance(row.chunks, int) or row.chunks:
            self._pen.open.append(row)

    def _count(self, chunk: Chunk) -> Any:
        """Return of how many chunks of the whole a chunk, or several, consists."""
        return len(chunk.ids) if isinstance(chunk, Temp) else self._count_of(chunk, self._paired)

    def _count_of(self, chunk: Any, paired: bool) -> Any:
        lengths = self._lengths
        if isinstance(lengths, int):
            return lengths * (_number(chunk) // 2 if paired else _number(chunk))
        index = _columns(chunk)
        if paired:
            index = index % self.size
            index = index[:, ::2] * self.size + index[:, 1::2]
        count = lengths[index % self.chunks].sum(axis=1)
        return _plain(count)


def _plain(values: Vector) -> int | Vector:
    """Return values as one number, if they are all the same."""
    return int(values[0]) if (values == values[0]).all() else values


class _Table(NamedTuple):
    """What each rank of a path calls a group: rows of ranks, and which of them is whose."""

    rows: Vector
    which: Vector | None  # None: there is one row for all, or one for each

    def part(self, columns: npt.NDArray[np.bool_], groups: int, number: Vector) -> _Table:
        """Return some columns, which are as many groups of one size, but for each rank the one group alone."""
        parts = self.rows[:, columns].reshape(len(self.rows), groups, -1)
        if self.which is None and len(self.rows) > 1:
            return _Table(parts[np.arange(len(parts)), number], None)
        first = 0 if self.which is None else self.which * groups
        return _Table(parts.reshape(-1, parts.shape[2]), first + number)

    def at(self, place: int | Vector) -> Vector:
        """Return which rank stands at a place, for each rank."""
        which = self.which
        if which is None:
            which = np.arange(len(self.rows)) if len(self.rows) > 1 else np.zeros(1, np.int64)
        ranks: Vector = self.rows[which, place]
        return ranks

    def whole(self) -> Vector:
        """Return one row for all ranks, or one for each."""
        return self.rows if self.which is None else self.rows[self.which]

    def places(self, own: Vector, size: int) -> Vector:
        """Return at which place of its row each rank stands."""
        if self.which is None and len(self.rows) > 1:
            here = self.rows == own[:, None]
            places = np.where(here.any(axis=1), here.argmax(axis=1), -1)
            good = places >= 0
        else:
            at = np.full(size, -1)
            at[self.rows[:, ::-1]] = np.arange(self.rows.shape[1])[::-1]  # what is there twice is at the first
            places = at[own]
            good = self.at(places) == own
        if not good.all():
            raise ScheduleError
        return places

    def shaped(self, like: Groups, path: Path) -> Groups:
        """Return a group like another, of numbers that are these ranks."""
        bound = int(np.abs(self.rows).max(initial=0))
        numbers = [Ranks(path, partial(self.at, k), bound) for k in range(self.rows.shape[1])]

        def build(like: Groups | int, at: int) -> Any:
            if not isinstance(like, tuple):
                return numbers[at]
            ends = np.cumsum([at, *(len(leaves(each)) for each in like)]).tolist()
            group = _Rows(map(build, like, ends))
            group.table = self._replace(rows=self.rows[:, at : ends[-1]])
            return group

        return cast(Groups, build(like, 0))


class _Rows(Group):
    """A group of numbers with many values, that knows them all."""

    table: _Table

    @cached_property
    def leaves(self) -> Groups:
        if not isinstance(self[0], tuple):
            return self
        flat = _Rows(super().leaves)
        flat.table = self.table
        return flat


def _table(ranks: Any) -> _Table:
    return ranks.table if isinstance(ranks, _Rows) else _Table(_columns(ranks), None)


def _shape(group: Groups | int) -> Any:
    if not isinstance(group, tuple):
        return ()
    return tuple(map(_shape, group)) if isinstance(group[0], tuple) else len(group)


def _grid(groups: Groups) -> tuple[_Table, Vector, Vector]:
    """Return the ranks of groups, which group each column is of, and numbers that tell their shapes apart."""
    members = [leaves(group) for group in groups]
    column = np.repeat(np.arange(len(members)), [len(ranks) for ranks in members])
    shapes: dict[Any, int] = {}
    kinds = np.array([shapes.setdefault(_shape(group), len(shapes)) for group in groups])
    return _table(leaves(groups) if isinstance(groups, _Rows) else list(chain.from_iterable(members))), column, kinds


_kept_grid = lru_cache(maxsize=2)(_grid)  # for the groups of a whole collective, which each path asks for


def _alike(counts: list[Any]) -> int | Vector:
    if not all(isinstance(count, int) for count in counts):
        raise ScheduleError
    return counts[0] if len(set(counts)) == 1 else np.array(counts, np.int64)


def _number(chunk: Any) -> int:
    """Return how many numbers there are in what stands for chunks."""
    if isinstance(chunk, Ranks):
        return prod(chunk.shape)
    if isinstance(chunk, np.ndarray):
        return chunk.size
    if isinstance(chunk, range):
        return len(chunk)
    if isinstance(chunk, Sequence):
        if set(map(type, chunk)) <= {int}:
            return len(chunk)
        return sum(1 if type(each) is int else _number(each) for each in chunk)
    return 1


def _columns(numbers: Any) -> Vector:
    """Return numbers, or arrays or sequences of them, as rows: one for all ranks, or one for each of a path."""
    if isinstance(numbers, Ranks):
        return numbers.values.reshape(len(numbers.values), -1)
    if isinstance(numbers, _Rows):
        return numbers.table.whole()
    if isinstance(numbers, list | tuple) and not all(type(each) is int for each in numbers):
        parts = [_columns(each) for each in numbers]
        ends = np.cumsum([part.shape[1] for part in parts]).tolist()
        rows = np.empty((max(map(len, parts)), ends[-1]), np.int64)
        for part, end in zip(parts, ends, strict=True):
            rows[:, end - part.shape[1] : end] = part
        return rows
    return np.asarray(numbers, np.int64).reshape(1, -1)


def _together(path: Path, rounds: list[list[_Row]]) -> list[_Part]:
    """Return what has been written for all ranks of a path; by rank, if some have messages that others have not."""
    counts = [row.chunks for ops in rounds for row in ops if not isinstance(row.chunks, int)]
    if all(each.all() for each in counts):
        return [_part(path.ranks, rounds)]
    return [
        _part(path.ranks[i : i + 1], [[own for row in ops if (own := row.of(i)).chunks] for ops in rounds])
        for i in range(len(path.ranks))
    ]


def _part(ranks: Vector, rounds: list[list[_Row]]) -> _Part:
    merged = [ops for ops in map(_merged, rounds) if ops]
    rows = list(chain.from_iterable(merged))
    return _Part(
        ranks,
        np.array([len(ops) for ops in merged], np.int64),
        np.array([row.kind for row in rows], np.uint8),
        _stacked([row.far for row in rows], len(ranks)),
        _stacked([row.chunks for row in rows], len(ranks)),
    )


def _stacked(values: list[int | Vector], n: int) -> npt.NDArray[np.int32]:
    if all(isinstance(each, int) for each in values):
        return np.array([values], np.int32)
    out = np.empty((len(values), n), np.int32)
    for row, each in zip(out, values, strict=True):
        row[:] = each
    return out.T


def _merged(ops: list[_Row]) -> list[_Row]:
    """Make rows of the local work of a round."""
    out: list[_Row] = []
    for row in ops:
        if out and row.kind >= COPY and out[-1].kind == row.kind:
            out[-1] = row._replace(chunks=out[-1].chunks + row.chunks)
        else:
            out.append(row)
    return out


def _alone(schedule: Schedule) -> _Part:
    """Return what one rank does."""
    steps = schedule.steps
    kind, ends = steps["kind"], steps["flags"] & END != 0
    goes_on = steps["flags"] & MORE != 0
    goes_on[:-1] |= (kind[:-1] >= COPY) & (kind[:-1] == kind[1:]) & ~ends[:-1]
    last = np.flatnonzero(~goes_on)
    kinds = kind[last]
    far = steps["peer"][last].astype(np.int32) - schedule.rank
    lengths = np.diff(np.flatnonzero(ends[last]), prepend=-1)
    chunks = np.diff(last, prepend=-1).astype(np.int32)
    return _Part(np.array([schedule.rank]), lengths, kinds, far[None], chunks[None])


def _period(parts: list[_Part], size: int) -> int:
    """Return the smallest period that is seen: each rank took the way of the rank so many before it, to the same."""
    way, place = np.empty(size, np.int64), np.empty(size, np.int64)
    for number, part in enumerate(parts):
        way[part.ranks], place[part.ranks] = number, np.arange(len(part.ranks))
    tables = [(part.ranks, table) for part in parts for table in (part.far, part.chunks) if len(table) > 1]

    def holds(p: int) -> bool:
        if not np.array_equal(way[p:], way[:-p]):
            return False
        for ranks, table in tables:
            ranks = ranks[np.searchsorted(ranks, p) :]
            for some in (ranks[:_GLANCE], ranks):  # most periods that are none are so soon
                if not np.array_equal(table[place[some]], table[place[some - p]]):
                    return False
        return True

    return next(p for p in range(1, size + 1) if size % p == 0 and (p == size or holds(p)))


def _assembled(parts: list[_Part], size: int, period: int) -> tuple[Offsets, Offsets, Any, Any, Any]:
    """Return rounds, ops, kind, peer and chunks of a Traffic."""
    parts = [part.of(int(np.searchsorted(part.ranks, period))) for part in parts]
    nrounds, nops = np.empty(period, np.int64), np.empty(period, np.int64)
    for part in parts:
        nrounds[part.ranks], nops[part.ranks] = len(part.lengths), len(part.kind)
    rounds, start = _offsets(nrounds), _offsets(nops)
    lengths = np.empty(rounds[-1], np.int64)
    kind = np.empty(start[-1], np.uint8)
    peer, chunks = np.empty(start[-1], np.int32), np.empty(start[-1], np.int32)
    for part in parts:
        ranks = part.ranks[:, None]
        lengths[rounds[ranks] + np.arange(len(part.lengths))] = part.lengths
        at = start[ranks] + np.arange(len(part.kind))
        kind[at], chunks[at] = part.kind, part.chunks
        peer[at] = np.where(part.kind < COPY, (ranks.astype(np.int32) + part.far) % size, -1)
    arrays = rounds, _offsets(lengths), kind, peer, chunks
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _offsets(lengths: npt.NDArray[Any]) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _tiled(offsets: Offsets, times: int) -> Offsets:
    """Repeat what the offsets delimit."""
    return _offsets(np.tile(np.diff(offsets), times))
