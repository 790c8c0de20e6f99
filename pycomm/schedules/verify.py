"""The verifier: runs the schedules of all ranks together, symbolically, and raises the first thing that is wrong.

Sends are synchronous here: a send is done only when its receiver has the matching receive posted in the round that it
is in. What finishes so finishes over every transport, however little that buffers.

What a chunk holds is a row of 64-bit words: which chunk of the whole collective it is a part of, a hash of the ordered
tree of reductions that made it, and whose contributions it contains. Up to 64 ranks these are exact: the set of ranks
seen, and the set of ranks seen more than once. Beyond that they are a sum of random numbers, one a rank, and a count:
two different multisets are taken for equal with probability 2**-64. (A barrier's news are sets whatever the size.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ScheduleError
from .contract import Ranks
from .registry import Groups
from .schedule import COPY, KINDS, NONE, RECV, REDUCE, REDUCE_FROM, SEND, Ids, Op, Schedule, where
from .view import emit

Rows = npt.NDArray[np.uint64]  # (chunks, 2 + words for ONCE + as many for MANY)

PART, TREE, WHO = range(3)
NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # as PART: the chunk holds nothing yet
EXACT = 64  # ranks whose contributions are counted as sets of bits


@dataclass(frozen=True)
class Verdict:
    """What a verified collective costs.

    Attributes:
        name, collective, size: what was verified.
        rounds, steps, peers: of the rank that has most.
        hops: the longest chain of messages that each have to wait for the one before.
        messages: of all ranks together.
        sent: what the rank that sends most sends, as a multiple of n, the bytes of a rank's full vector.
        traffic: what all ranks together send, as a multiple of n.
        uneven: whether blocks may differ in length on every rank.
    """

    name: str
    collective: str
    size: int
    rounds: int
    hops: int
    steps: int
    peers: int
    messages: int
    sent: Fraction
    traffic: Fraction
    uneven: bool


class Event(NamedTuple):
    """Something that happens in a collective: a message, or (source and target the same) local operations.

    Attributes:
        hop: how many messages came before it in the longest chain that it had to wait for, and itself.
        kind: what the target does: RECV, REDUCE_FROM, COPY or REDUCE.
        chunks: as both ends name them.
    """

    hop: int
    source: int
    target: int
    kind: int
    chunks: Ids


def verify(
    algorithm: str | Callable[[Any], None],
    collective: str,
    *,
    size: int,
    root: int = 0,
    groups: Groups | None = None,
) -> Verdict:
    """Emit the schedules of all ranks and prove that together they do what the collective promises.

    Raises:
        ScheduleError: they do not; the message is one sentence that says where and why.
        InvalidArgument: see `emit`.
    """
    return check([emit(algorithm, collective, size=size, rank=rank, root=root, groups=groups) for rank in range(size)])


def check(schedules: Sequence[Schedule]) -> Verdict:
    """Prove that these schedules, one for each rank in order, do together what their collective promises."""
    return trace(schedules)[0]


def trace(schedules: Sequence[Schedule]) -> tuple[Verdict, list[Event]]:
    """Like `check`, and tell what happened, in an order in which it could happen."""
    first = schedules[0]
    for rank, schedule in enumerate(schedules):
        told = (schedule.collective, schedule.size, schedule.rank, schedule.root, schedule.cut)
        if told != (first.collective, len(schedules), rank, first.root, first.cut):
            raise ScheduleError(f"schedule {rank} is of another collective, size, rank, root or cut: {told}")
    ranks = [_Rank(schedule) for schedule in schedules]
    events = _run(ranks)
    _check_results(ranks)
    messages = [int(np.count_nonzero(_ends(s) & (s.steps["kind"] == SEND))) for s in schedules]
    sent = [int(np.count_nonzero(s.steps["kind"] == SEND)) for s in schedules]
    verdict = Verdict(
        name=first.name,
        collective=first.collective,
        size=first.size,
        rounds=max(s.nrounds for s in schedules),
        hops=max(rank.depth for rank in ranks),
        steps=max(len(s.steps) for s in schedules),
        peers=max(len(s.peers) for s in schedules),
        messages=sum(messages),
        sent=max(sent) * first.share,
        traffic=sum(sent) * first.share,
        uneven=all(s.lower().uneven for s in schedules),
    )
    return verdict, events


class _Rank:
    """One rank in the middle of its schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.rounds = list(schedule.rounds())
        self.round = -1
        self.pending = 0  # messages of this round that have not met their other end
        self.arrived: dict[int, Rows] = {}  # what each receive of this round got, by its first step
        self.read: dict[int, Rows] = {}  # what each local step of this round read
        self.depth = 0  # the longest chain of messages so far, each of which had to wait for the one before it,
        self.began = 0  # and what that was when this round began

        steps = schedule.steps
        ids = [steps["chunk"], steps["src"][steps["src"] != NONE], schedule.gets, schedule.brings]
        self.ids: Ids = np.unique(np.concatenate(ids))
        self.home = schedule.home(self.ids)
        self.local = np.searchsorted(self.ids, steps["chunk"])
        self.stamp = np.full(len(self.ids), -1)  # the last round that wrote each chunk
        self.writer = np.full(len(self.ids), -1)  # the first step of the receive of this round that writes it, so far
        self.behind: dict[int, set[int]] = {}  # for a receive, by its first step, those that must be taken before it
        self.rows = np.zeros((len(self.ids), WHO + 2 * _words(schedule)), np.uint64)
        self.rows[:, PART] = NOTHING
        own = np.searchsorted(self.ids, schedule.brings)
        self.rows[own, PART] = schedule.brings
        self.rows[own, WHO:] = _contributions(schedule, np.array([[schedule.rank]]))
        self.rows[own, TREE] = _mix(np.uint64(schedule.rank + 1) << np.uint64(32) ^ schedule.brings.astype(np.uint64))

    def at(self, op: Op) -> npt.NDArray[np.intp]:
        return self.local[op.first : op.first + len(op.chunks)]

    def names(self, op: Op) -> Ids:
        """The chunks of a message, under the names that both ends know."""
        return self.home[self.at(op)]

    def take(self, op: Op, chunks: Ids, at: npt.NDArray[np.intp], verb: str) -> Rows:
        rows = self.rows[at]
        empty = rows[:, PART] == NOTHING
        if empty.any():
            i = int(np.argmax(empty))
            raise self.error(op, f"{verb} {self.schedule.chunk_name(int(chunks[i]))}, which holds nothing yet", i)
        return rows

    def put(self, op: Op, rows: Rows) -> None:
        """Write what a step of this round received or read; in the order of the steps."""
        at = self.at(op)
        self.stamp[at] = np.arange(len(at))
        twice = self.stamp[at] != np.arange(len(at))
        if twice.any():
            raise self.error(op, "writes one message into the same chunk twice", int(np.argmax(twice)))
        self.stamp[at] = self.round
        if op.kind in (REDUCE_FROM, REDUCE):
            here = self.take(op, op.chunks, at, "reduces into")
            alien = here[:, PART] != rows[:, PART]
            if alien.any():
                i = int(np.argmax(alien))
                parts = (self.schedule.chunk_name(int(row[i, PART])) for row in (rows, here))
                raise self.error(op, "combines a part of {} with a part of {}".format(*parts), i)
            rows = _combine(self.schedule, here, rows, op.swap)
        elif self.schedule.contract.idempotent:
            known = self.rows[at, PART] != NOTHING
            rows[known] = _combine(self.schedule, self.rows[at][known], rows[known], op.swap[known])
        self.rows[at] = rows

    def expect(self, op: Op) -> None:
        """Enter a receive of this round: what writes one chunk is taken in the order of the steps, and waits for it."""
        at = self.at(op)
        before = {int(first) for first in np.unique(self.writer[at])} - {-1} - self.arrived.keys()
        self.writer[at] = op.first
        if before:
            self.behind[op.first] = before

    def has_arrived(self, op: Op, rows: Rows) -> list[int]:
        """Note what a receive got; return the peers whose next message may have waited for that."""
        self.arrived[op.first] = rows
        freed = [first for first, before in self.behind.items() if before == {op.first}]
        for before in self.behind.values():
            before.discard(op.first)
        for first in freed:
            del self.behind[first]
        return [int(self.schedule.steps["peer"][first]) for first in freed]

    def finish_round(self) -> None:
        for op in self.rounds[self.round]:
            if op.kind == SEND:
                continue
            if op.kind in (RECV, COPY):
                again = self.stamp[self.at(op)] == self.round
                if again.any():
                    i = int(np.argmax(again))
                    what = self.schedule.chunk_name(int(op.chunks[i]))
                    raise self.error(op, f"overwrites {what}, which an earlier step of the same round wrote", i)
            self.put(op, self.arrived[op.first] if op.kind in (RECV, REDUCE_FROM) else self.read[op.first])
            self.writer[self.at(op)] = -1
        self.arrived.clear()
        self.read.clear()

    def error(self, op: Op, sentence: str, piece: int = 0) -> ScheduleError:
        return ScheduleError(f"{where(self.schedule, op.first + piece)}: {KINDS[op.kind]} {sentence}")


class _Channel:
    """The messages from one rank to another that have met no other end."""

    def __init__(self) -> None:
        self.sends: deque[tuple[Op, Rows]] = deque()
        self.receives: deque[Op] = deque()


def _run(ranks: list[_Rank]) -> list[Event]:
    """Run all ranks to the end of their schedules; return what happened."""
    events: list[Event] = []
    channels: dict[tuple[int, int], _Channel] = {}
    ready = deque(ranks)  # those that are between two rounds
    while ready:
        rank = ready.popleft()
        rank.round += 1
        rank.began = rank.depth
        if rank.round == len(rank.rounds):
            continue
        me = rank.schedule.rank
        ops = rank.rounds[rank.round]
        rank.pending = sum(op.peer >= 0 for op in ops)
        for op in ops:
            if op.kind in (COPY, REDUCE):
                rank.read[op.first] = rank.take(op, op.srcs, np.searchsorted(rank.ids, op.srcs), "reads")
                events.append(Event(rank.began, me, me, op.kind, rank.names(op)))
                continue
            link = (me, op.peer) if op.kind == SEND else (op.peer, me)
            channel = channels.setdefault(link, _Channel())
            if op.kind == SEND:
                channel.sends.append((op, rank.take(op, op.chunks, rank.at(op), "sends")))
            else:
                rank.expect(op)
                channel.receives.append(op)
            links = [link]
            while links:
                link = links.pop()
                sender, receiver = ranks[link[0]], ranks[link[1]]
                waiting = channels.get(link)
                if not waiting or not waiting.sends or not waiting.receives:
                    continue
                if waiting.receives[0].first in receiver.behind:
                    continue
                depth = 1 + max(sender.began, receiver.began)
                received, freed = _meet(sender, receiver, waiting)
                links += [(peer, link[1]) for peer in freed]
                links.append(link)
                events.append(Event(depth, *link, received.kind, receiver.names(received)))
                for end in (sender, receiver):
                    end.pending -= 1
                    end.depth = max(end.depth, depth)
                    if not end.pending and end is not rank:
                        end.finish_round()
                        ready.append(end)
        if not rank.pending:
            rank.finish_round()
            ready.append(rank)
    if any(rank.round < len(rank.rounds) for rank in ranks):
        raise ScheduleError(_deadlock(ranks, channels))
    return events


def _meet(sender: _Rank, receiver: _Rank, channel: _Channel) -> tuple[Op, list[int]]:
    """Let the oldest message of a channel arrive; return its receive, and the peers whose next one may come now."""
    (send, rows), receive = channel.sends.popleft(), channel.receives.popleft()
    there, here = sender.names(send), receiver.names(receive)
    if len(there) != len(here):
        raise receiver.error(
            receive,
            f"expects a message of {len(here)} chunks from rank {receive.peer}, which sends one of {len(there)} "
            f"(its round {sender.round})",
        )
    wrong = there != here
    if wrong.any():
        i = int(np.argmax(wrong))
        name = receiver.schedule.chunk_name
        raise receiver.error(
            receive,
            f"expects {name(int(here[i]))} from rank {receive.peer}, which sends {name(int(there[i]))} "
            f"(its round {sender.round})",
            i,
        )
    return receive, receiver.has_arrived(receive, rows)


def _deadlock(ranks: list[_Rank], channels: dict[tuple[int, int], _Channel]) -> str:
    """Return the sentence for ranks that wait for ever; ranks that wait for one which has finished come first."""
    waits = []
    for (source, target), channel in channels.items():
        for waiting, other, verb in [(source, target, "send to")] * len(channel.sends) + [
            (target, source, "receive from")
        ] * len(channel.receives):
            gone = ranks[other].round == len(ranks[other].rounds)
            doing = "has finished" if gone else f"is in its round {ranks[other].round}"
            text = f"rank {waiting} waits in round {ranks[waiting].round} to {verb} rank {other}, which {doing}"
            waits.append((not gone, waiting, other, text))
    texts = list(dict.fromkeys(text for *_, text in sorted(waits)))
    schedule = ranks[0].schedule
    more = f"; and {len(texts) - 4} more" if len(texts) > 4 else ""
    return f"{schedule.title}: it never ends: {'; '.join(texts[:4])}{more}"


def _check_results(ranks: list[_Rank]) -> None:
    trees: dict[bytes, tuple[int, Rows]] = {}
    for rank in ranks:
        schedule = rank.schedule
        rows = rank.rows[np.searchsorted(rank.ids, schedule.gets)]
        blocks = np.asarray(schedule.contract.gets(schedule.rank, schedule.size, schedule.root), np.int64)
        wanted = schedule.contract.holds(blocks, schedule.rank, schedule.size, schedule.root)
        wanted = np.broadcast_to(wanted, (len(blocks), wanted.shape[1]))
        target = np.repeat(_contributions(schedule, wanted), schedule.cut, axis=0)
        compared = _words(schedule) if schedule.contract.idempotent else target.shape[1]
        wrong = rows[:, PART] != schedule.gets
        wrong |= (rows[:, WHO : WHO + compared] != target[:, :compared]).any(axis=1)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ScheduleError(_broken(schedule, int(schedule.gets[i]), rows[i], wanted[i // schedule.cut].tolist()))
        if schedule.contract.reduces and not schedule.contract.idempotent:
            key = schedule.gets.tobytes() + target.tobytes()
            other, expected = trees.setdefault(key, (schedule.rank, rows))
            differs = rows[:, TREE] != expected[:, TREE]
            if differs.any():
                chunk = schedule.chunk_name(int(schedule.gets[int(np.argmax(differs))]))
                raise ScheduleError(
                    f"{schedule.title}: ranks {other} and {schedule.rank} add up {chunk} in different orders, so that "
                    "their results may differ in the last bits"
                )


def _broken(schedule: Schedule, chunk: int, row: Rows, wanted: list[int]) -> str:
    head = f"{schedule.title}: at the end rank {schedule.rank}"
    name = schedule.chunk_name(chunk)
    part, words = int(row[PART]), _words(schedule)
    once, many = (_bits(row[WHO : WHO + words]), _bits(row[WHO + words :]))
    if part == int(NOTHING):
        return f"{head} holds nothing as {name}"
    if part != chunk:
        return f"{head} holds {schedule.chunk_name(part)} in the place of {name}"
    if not _exact(schedule):
        return f"{head} holds {many} contributions to {name}, which are not one of each of {len(wanted)} ranks"
    missing = [rank for rank in wanted if not once >> rank & 1]
    twice = [rank for rank in range(schedule.size) if many >> rank & 1]
    if missing:
        return f"{head} misses the contribution of rank {missing[0]} to {name}"
    if twice:
        return f"{head} holds the contribution of rank {twice[0]} to {name} more than once"
    alien = [rank for rank in range(schedule.size) if once >> rank & 1 and rank not in wanted]
    return f"{head} holds a contribution of rank {alien[0]} to {name} that does not belong there"


def _exact(schedule: Schedule) -> bool:
    return schedule.size <= EXACT or schedule.contract.idempotent


def _words(schedule: Schedule) -> int:
    """How many words ONCE has, and MANY."""
    return (schedule.size + 63) // 64 if _exact(schedule) else 1


def _bits(words: Rows) -> int:
    return sum(int(word) << 64 * i for i, word in enumerate(words))


def _contributions(schedule: Schedule, ranks: Ranks) -> Rows:
    """For each row of ranks, return the words ONCE and MANY of a chunk with the contribution of each of them once."""
    words = _words(schedule)
    out = np.zeros((len(ranks), 2 * words), np.uint64)
    who = ranks.astype(np.uint64)
    if _exact(schedule):
        row = np.arange(len(ranks))[:, None]
        np.bitwise_or.at(out, (row, (ranks // 64).astype(np.intp)), np.uint64(1) << who % np.uint64(64))
    else:
        out[:, 0], out[:, 1] = _mix(who + np.uint64(1)).sum(axis=1, dtype=np.uint64), ranks.shape[1]
    return out


def _combine(schedule: Schedule, here: Rows, there: Rows, swap: npt.NDArray[np.bool_]) -> Rows:
    out = here.copy()
    if _exact(schedule):
        once = slice(WHO, WHO + _words(schedule))
        many = slice(once.stop, None)
        out[:, many] |= there[:, many] | (here[:, once] & there[:, once])
        out[:, once] |= there[:, once]
    else:
        out[:, WHO:] += there[:, WHO:]
    left = np.where(swap, there[:, TREE], here[:, TREE])
    right = np.where(swap, here[:, TREE], there[:, TREE])
    out[:, TREE] = _mix(left * np.uint64(3) ^ _mix(right))
    return out


def _mix(x: Any) -> Any:
    """Hash 64-bit words (the finaliser of splitmix64, Steele, Lea & Flood, OOPSLA 2014)."""
    x = np.asarray(x, np.uint64)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _ends(schedule: Schedule) -> npt.NDArray[np.bool_]:
    """Which steps are the last of their message."""
    out: npt.NDArray[np.bool_] = (schedule.steps["flags"] & 1) == 0
    return out
