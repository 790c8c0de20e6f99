"""The pen that an algorithm holds: a view of the ranks and chunks as one rank sees them, on which it writes its steps.

An algorithm is a function of one view `v`. It writes rounds, and in them steps:

    with v.round():
        v.send(chunk=v.rank, to=v.rank + 1)
        v.recv(chunk=v.rank - 1, frm=v.rank - 1)

Ranks are taken modulo `v.size` and chunks modulo `v.chunks`. A chunk may also be a sequence of chunks, which then
travel as one message; in an all-to-all a chunk is a pair (source, destination). What a step reads is what the chunk
held when the round began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument, ScheduleError
from .contract import contract
from .registry import Algorithm, Groups, find
from .schedule import COPY, END, MORE, NONE, RECV, REDUCE, REDUCE_FROM, SEND, STEP, SWAP, Ids, Schedule, Steps


class Temp(NamedTuple):
    """A temporary, made by `View.temp`: as long as the chunk (or chunks) that it is like."""

    ids: Ids


Chunk = int | tuple[int, int] | Sequence[int] | Sequence[tuple[int, int]] | npt.NDArray[np.integer] | Temp
Writer = Callable[[], None]


class _Message(NamedTuple):
    kind: int
    peer: int
    chunks: Ids
    srcs: Ids
    rank: int  # this rank's number in the view that wrote it, and the peer's:
    other: int  # they decide which operand of a reduction stands left


class Pen:
    """The rounds that have been written so far, as lists of messages; all views of one emission share it."""

    def __init__(self) -> None:
        self.rounds: list[list[Any]] = []
        self.open: list[Any] | None = None

    def record(self, part: Writer) -> list[list[Any]]:
        """Return the rounds that `part` writes, which are not kept."""
        if self.open is not None:
            raise ScheduleError("a part was composed inside of a round: rounds do not nest")
        kept, self.rounds = self.rounds, []
        try:
            part()
            return self.rounds
        finally:
            self.rounds = kept


class _Pen(Pen):
    """The pen of one rank, which numbers temporaries."""

    def __init__(self, rank: int, nplaced: int) -> None:
        super().__init__()
        self.rank = rank
        self.nplaced = nplaced
        self.temps: list[int] = []

    def write(self, message: _Message) -> None:
        if self.open is None:
            raise ScheduleError("a step was written outside of a round: put it in a `with v.round():`")
        if message.peer == self.rank:
            raise ScheduleError(f"rank {self.rank} was made to send to, or to receive from, itself: use v.copy")
        if len(message.srcs) != len(message.chunks):
            raise ScheduleError(f"{len(message.srcs)} chunks cannot be copied or combined into {len(message.chunks)}")
        if len(message.chunks):
            self.open.append(message)

    def steps(self) -> Steps:
        rounds = [messages for messages in self.rounds if messages]
        messages = list(chain.from_iterable(rounds))
        lengths = np.array([len(m.chunks) for m in messages], np.int64)
        steps = np.zeros(int(lengths.sum()), STEP)
        if not messages:
            return steps
        steps["kind"] = np.repeat([m.kind for m in messages], lengths)
        steps["peer"] = np.repeat(np.array([m.peer for m in messages], np.uint32), lengths)
        steps["chunk"] = np.concatenate([m.chunks for m in messages])
        steps["src"] = np.concatenate([m.srcs for m in messages])
        remote = (steps["kind"] != COPY) & (steps["kind"] != REDUCE)
        last = np.cumsum(lengths) - 1
        steps["flags"][remote] = MORE
        steps["flags"][last] = 0
        round_lengths = [sum(len(m.chunks) for m in messages) for messages in rounds]
        steps["flags"][np.cumsum(round_lengths) - 1] |= END
        steps["flags"][np.concatenate(list(self.swaps(messages)))] |= SWAP
        return steps

    def temporaries(self, like: Ids) -> Ids:
        first = self.nplaced + len(self.temps)
        self.temps += [self.temps[i - self.nplaced] if i >= self.nplaced else i for i in like.tolist()]
        return np.arange(first, self.nplaced + len(self.temps), dtype=np.uint32)

    def swaps(self, messages: list[_Message]) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield for each message which of its steps carry SWAP, so that ranks which exchange compute the same.

        The operand of the lower rank stands left. A rank stands for every chunk that holds a part of its own; what a
        temporary holds of others is stood for by the lowest rank that it was received from.
        """
        foreign: dict[int, int] = {}  # temporaries with nothing of this rank's own: the rank that stands for them
        for m in messages:
            swap = np.full(len(m.chunks), m.kind == REDUCE_FROM and m.other < m.rank)
            local = m.kind in (COPY, REDUCE)
            if m.kind != SEND and (m.chunks.max() >= self.nplaced or (local and m.srcs.max() >= self.nplaced)):
                for i, (chunk, src) in enumerate(zip(m.chunks.tolist(), m.srcs.tolist(), strict=True)):
                    stands = foreign.get(chunk, m.rank)
                    comes = foreign.get(src, m.rank) if local else m.other
                    if m.kind in (REDUCE_FROM, REDUCE):
                        swap[i] = comes < stands
                        comes = m.rank if m.rank in (stands, comes) else min(stands, comes)
                    foreign.pop(chunk, None)
                    if chunk >= self.nplaced and comes != m.rank:
                        foreign[chunk] = comes
            yield swap


class View:
    """One rank's view of a collective.

    Attributes:
        rank, size: this rank, and how many there are.
        root: the root, in rooted collectives.
        chunks: how many chunks there are (in an all-to-all: of pairs).
        groups: nested tuples of ranks that are near each other, innermost last; None if the caller gave none.
    """

    def __init__(
        self, pen: Any, rank: Any, size: int, root: int, chunks: int, paired: bool, groups: Groups | None = None
    ) -> None:
        """Make the first view of an emission, which is what `emit` does; algorithms make more with `sub`."""
        self.rank: int = rank
        self.size = size
        self.root = root
        self.chunks = chunks
        self.groups = groups
        self._pen = pen
        self._paired = paired
        self._ranks: Sequence[int] | None = None  # in a sub-view: what its ranks are in the whole collective,
        self._table: Sequence[Ids] | None = None  # and what each of its chunks stands for

    @contextmanager
    def round(self) -> Iterator[None]:
        """Group the steps written inside into a round; a round without steps leaves no trace."""
        pen = self._pen
        if pen.open is not None:
            raise ScheduleError("a round was opened inside of a round: rounds do not nest")
        pen.open = []
        try:
            yield
            pen.rounds.append(pen.open)  # even if it is empty: `together` counts rounds
        finally:
            pen.open = None

    def send(self, chunk: Chunk, to: int) -> None:
        """Send a chunk, or several as one message."""
        self._message(SEND, chunk, to)

    def recv(self, chunk: Chunk, frm: int) -> None:
        """Receive into a chunk, or into several from one message."""
        self._message(RECV, chunk, frm)

    def reduce(self, chunk: Chunk, frm: int) -> None:
        """Receive and combine with what the chunk holds; several of one round into one chunk are combined in order."""
        self._message(REDUCE_FROM, chunk, frm)

    def copy(self, src: Chunk, dst: Chunk) -> None:
        """Copy one chunk into another."""
        self._local(COPY, src, dst)

    def combine(self, src: Chunk, dst: Chunk) -> None:
        """Combine one chunk into another."""
        self._local(REDUCE, src, dst)

    def temp(self, like: Chunk) -> Temp:
        """Return a temporary as long as `like`; it holds nothing yet."""
        return Temp(self._pen.temporaries(self._ids(like)))

    def sub(
        self,
        ranks: Sequence[int],
        chunks: Sequence[Sequence[int] | npt.NDArray[np.integer]] | None = None,
        root: int = 0,
    ) -> View:
        """Return a view of some of the ranks (this one among them), renumbered 0, 1, ...

        Args:
            ranks: ranks of this view; number i of the sub-view is `ranks[i]`.
            chunks: for each chunk of the sub-view the chunks of this view that it stands for, which may be none;
                pairs are numbered source * len(ranks) + destination. Default: the same chunks.
            root: the root, as a number of the sub-view.
        """
        ranks = [rank % self.size for rank in ranks]
        if self.rank not in ranks or len(set(ranks)) != len(ranks):
            raise ScheduleError(f"a sub-view's ranks must be distinct and must hold rank {self.rank}; they are {ranks}")
        table = self._table if chunks is None else [self._resolve(np.asarray(c, np.int64)) for c in chunks]
        count = self.chunks if chunks is None else len(chunks)
        view = View(self._pen, ranks.index(self.rank), len(ranks), root, count, self._paired)
        view._ranks = [self._peer(rank) for rank in ranks]
        view._table = table
        return view

    def backwards(self, part: Writer, *, reducing: bool = True) -> None:
        """Write the time reversal of what `part` writes: the last round first, each send a receive and vice versa.

        The reversal of an all-gather is a reduce-scatter, of a broadcast a reduce and, without `reducing`, of a
        scatter a gather.
        """
        take = REDUCE_FROM if reducing else RECV
        for messages in reversed(self._pen.record(part)):
            for m in messages:
                if m.kind not in (SEND, RECV):
                    raise ScheduleError("only a part that sends and receives, and does nothing else, runs backwards")
            self._pen.rounds.append([m._replace(kind=take if m.kind == SEND else SEND) for m in reversed(messages)])

    def together(self, *parts: Writer) -> None:
        """Write several parts side by side: their first rounds as one round, then their second ones, ..."""
        for rounds in zip_longest(*[self._pen.record(part) for part in parts], fillvalue=()):
            self._pen.rounds.append(list(chain.from_iterable(rounds)))

    def within(self, groups: Groups) -> tuple[int, Any]:
        """Return which of several groups (nested tuples of ranks, or ranks) this rank is in, and that group."""
        for number, group in enumerate(groups):
            if self.rank in leaves(group):
                return number, group
        raise ScheduleError(f"rank {self.rank} is in none of the groups")

    def place(self, ranks: Sequence[int]) -> int:
        """Return at which place in `ranks` this rank stands."""
        return ranks.index(self.rank)

    def at(self, values: Sequence[Any] | npt.NDArray[np.integer], place: int) -> Any:
        """Return what stands at a place in `values`, which are ranks, or chunks for each place.

        It is `values[place]`, but that ranks at different places go on together where all ranks are run at once.
        """
        return values[place]

    def _local(self, kind: int, src: Chunk, dst: Chunk) -> None:
        self._pen.write(_Message(kind, NONE, self._ids(dst), self._ids(src), self.rank, self.rank))

    def _message(self, kind: int, chunk: Chunk, peer: int) -> None:
        ids = self._ids(chunk)
        other = int(peer) % self.size
        self._pen.write(_Message(kind, self._peer(other), ids, np.full(len(ids), NONE, np.uint32), self.rank, other))

    def _peer(self, rank: int) -> int:
        return self._ranks[rank] if self._ranks else rank

    def _ids(self, chunk: Chunk) -> Ids:
        if isinstance(chunk, Temp):
            return chunk.ids
        index = np.asarray(chunk, np.int64)
        if self._paired:
            pairs = index.reshape(-1, 2) % self.size
            index = pairs[:, 0] * self.size + pairs[:, 1]
        return self._resolve(index)

    def _resolve(self, index: npt.NDArray[np.int64]) -> Ids:
        index = index.reshape(-1) % self.chunks
        if self._table is None:
            return index.astype(np.uint32)
        return np.concatenate([np.empty(0, np.uint32), *(self._table[i] for i in index.tolist())])


def emit(
    algorithm: str | Callable[[Any], None],
    collective: str,
    *,
    size: int,
    rank: int,
    root: int = 0,
    groups: Groups | None = None,
) -> Schedule:
    """Return one rank's schedule.

    Args:
        algorithm: a name ("ring", "hierarchical(direct, ring)") or a function of one view.
        collective: what it is to do, e.g. "allreduce".
        size, rank: the number of ranks, and whose schedule it is.
        root: the root of a rooted collective.
        groups: nested sequences of ranks that are near each other, for the algorithms that use them:
            [[0, 1], [2, 3]] is two hosts, [[[0, 1], [2, 3]], [[4], [5, 6]]] two racks of two hosts each.

    Raises:
        InvalidArgument: there is no such collective or algorithm, or a number is out of range.
        ScheduleError: the algorithm wrote something that has no meaning.
    """
    task = task_of(algorithm, collective, size, root, groups)
    if not 0 <= rank < size:
        raise InvalidArgument(f"rank is {rank} and must be between 0 and {size - 1}")
    return _emit(task, rank)


class Task(NamedTuple):
    """What is to be emitted, with root and groups only as far as they matter."""

    algorithm: Algorithm
    collective: str
    size: int
    root: int
    groups: Groups | None

    def numbering(self) -> tuple[int, int]:
        """Return how many pieces a block is cut into, and how many chunks there are."""
        cut = self.algorithm.cut(self.size, self.groups)
        nplaced = contract(self.collective).nblocks(self.size) * cut
        if nplaced >= NONE // 2:
            what = f"{self.collective} on {self.size} ranks, {cut} pieces a block"
            raise InvalidArgument(f"{what}: too many chunks to be numbered")
        return cut, nplaced

    def schedule(self, rank: int) -> Schedule:
        """Return one rank's schedule."""
        algorithm, collective, size, root, groups = self
        cut, nplaced = self.numbering()
        pen = _Pen(rank, nplaced)
        algorithm.write(View(pen, rank, size, root, nplaced, contract(collective).blocks == "pair", groups))
        steps = pen.steps()
        steps.flags.writeable = False
        return Schedule(algorithm.name, collective, size, rank, root, cut, steps, np.array(pen.temps, np.uint32))


def task_of(
    algorithm: str | Callable[[Any], None], collective: str, size: int, root: int, groups: Groups | None
) -> Task:
    """Check what `emit` was asked for."""
    promise = contract(collective)
    if not 0 < size <= 1 << 20:
        raise InvalidArgument(f"size is {size} and must be between 1 and {1 << 20}")
    if not 0 <= root < size:
        raise InvalidArgument(f"root is {root} and must be between 0 and {size - 1}")
    found = find(collective, algorithm)
    nested: Groups | None = None
    if found.grouped:
        nested = _nested(groups or ())
        if sorted(leaves(nested)) != list(range(size)):
            raise InvalidArgument(f"{found.name} needs groups that name each of the {size} ranks once, not {groups!r}")
    return Task(found, collective, size, root if promise.rooted else 0, nested)


_emit = lru_cache(maxsize=256)(Task.schedule)


def _nested(groups: Any) -> Groups:
    """Return groups as nested tuples in which the members of each are all ranks, or all groups."""
    if not len(groups):
        raise InvalidArgument("groups are needed, none of them empty: [[0, 1], [2, 3]] is two groups of two ranks")
    members = [_nested(member) if isinstance(member, (Sequence, np.ndarray)) else int(member) for member in groups]
    if len(members) == 1 and isinstance(members[0], tuple):
        return members[0]
    if any(isinstance(member, tuple) for member in members):
        members = [member if isinstance(member, tuple) else Group((member,)) for member in members]
    return Group(members)


class Group(tuple[Any, ...]):
    """A group of ranks, or of smaller groups. Large ones are asked the same again and again, and compute it once."""

    @cached_property
    def leaves(self) -> tuple[Any, ...]:
        """Its ranks, in order."""
        return tuple(chain.from_iterable(map(leaves, self))) if isinstance(self[0], tuple) else self

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def leaves(group: Groups | int) -> Groups:
    """Return the ranks of a group, in order."""
    if not isinstance(group, tuple):
        return (group,)
    return group.leaves if isinstance(group, Group) else Group(group).leaves
