"""A schedule: what one rank does in a collective, as rounds of 16-byte steps over numbered chunks.

It holds no address, no byte count and no transport, so that the same object is verified, simulated, drawn and run.

The meaning of a round, which the verifier and the executor share:
  * its steps are posted together, and it ends when all of them are done;
  * reads come before writes: what a step sends, copies or reduces is what the chunk held when the round began;
  * several steps may reduce into one chunk, and do so in their order; nothing may overwrite what its round has written.
There are no tags: the k-th message to a peer is the k-th that the peer receives from this rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ScheduleError
from .contract import Contract, contract

SEND, RECV, REDUCE_FROM, COPY, REDUCE = range(5)
KINDS = ("SEND", "RECV", "REDUCE_FROM", "COPY", "REDUCE")

MORE = 1  # the message goes on with the next step
END = 2  # the last step of its round
SWAP = 4  # REDUCE_FROM, REDUCE: the incoming value is the left operand

NONE = 0xFFFFFFFF  # no peer, or no source chunk

STEP = np.dtype([("kind", "u1"), ("flags", "u1"), ("pad", "u1", 2), ("peer", "<u4"), ("chunk", "<u4"), ("src", "<u4")])
assert STEP.itemsize == 16

Steps = npt.NDArray[Any]  # of dtype STEP
Ids = npt.NDArray[np.uint32]


class Op(NamedTuple):
    """One message, or a row of local operations of one kind: steps `first` to `first + len(chunks) - 1`."""

    kind: int
    peer: int  # -1 for COPY and REDUCE
    chunks: Ids
    srcs: Ids
    swap: npt.NDArray[np.bool_]
    first: int


@dataclass(frozen=True)
class Lowered:
    """What the C core takes: a schedule whose chunks are numbered among those that this rank uses.

    Chunk c begins as piece `in_at[c]` of the input and ends as piece `out_at[c]` of the output (-1: it is not there).
    A buffer is `in_blocks` (`out_blocks`) blocks, equal or of given lengths, each cut in `cut` balanced pieces; piece
    j of block b is number b * cut + j.

    Attributes:
        name: the algorithm.
        steps: structured array of dtype STEP.
        nchunks: how many chunks; `chunks[c]` is the number of chunk c in the whole collective (a temporary's: of the
            chunk that it is like).
        like: per chunk, the chunk whose length it has (itself, when it is in a buffer).
        rounds: how many rounds.
        passed: blocks of the whole collective that are in neither of this rank's buffers and that it passes on. It
            cannot know their lengths where blocks differ, unless somebody tells.
        passed_at: per chunk, the piece of these blocks whose length it has (-1: of none).
    """

    name: str
    steps: Steps
    nchunks: int
    chunks: Ids
    in_at: npt.NDArray[np.int32]
    out_at: npt.NDArray[np.int32]
    like: Ids
    in_blocks: int
    out_blocks: int
    cut: int
    rounds: int
    passed: Ids
    passed_at: npt.NDArray[np.int32]

    @property
    def uneven(self) -> bool:
        """Whether blocks may differ in length, as far as this rank is concerned, which knows only its own."""
        return not len(self.passed)


@dataclass(frozen=True, eq=False)
class Schedule:
    """What one rank does.

    Attributes:
        name: the algorithm.
        collective, size, rank, root: whose part of what this is; root is 0 for collectives without one.
        cut: pieces a block (see `contract`).
        steps: structured array of dtype STEP, read-only.
        temps: the chunk that each temporary is like; temporary t is chunk number `nplaced + t`.
    """

    name: str
    collective: str
    size: int
    rank: int
    root: int
    cut: int
    steps: Steps
    temps: Ids = field(default_factory=lambda: np.empty(0, np.uint32))

    @property
    def title(self) -> str:
        """What errors and drawings call it: "ring allreduce on 4 ranks"."""
        return f"{self.name} {self.collective} on {self.size} rank{'s' * (self.size != 1)}"

    @property
    def contract(self) -> Contract:
        """The promise that all ranks' schedules keep together."""
        return contract(self.collective)

    @property
    def nplaced(self) -> int:
        """The number of chunks of the whole collective, without temporaries."""
        return self.contract.nblocks(self.size) * self.cut

    @property
    def share(self) -> Fraction:
        """The size of one chunk as a part of n, the bytes of a rank's full vector; nothing in a barrier."""
        if self.contract.idempotent:
            return Fraction(0)
        return Fraction(1, self.cut * (1 if self.contract.blocks == "one" else self.size))

    @cached_property
    def brings(self) -> Ids:
        """The chunks of this rank's input buffer, in order."""
        return _pieces(self.contract.brings(self.rank, self.size, self.root), self.cut)

    @cached_property
    def gets(self) -> Ids:
        """The chunks of this rank's output buffer, in order."""
        return _pieces(self.contract.gets(self.rank, self.size, self.root), self.cut)

    def home(self, chunks: Ids) -> Ids:
        """Replace temporaries by the chunks that they are like."""
        if not len(self.temps):
            return chunks
        out = chunks.copy()
        temporary = chunks >= self.nplaced
        out[temporary] = self.temps[chunks[temporary] - self.nplaced]
        return out

    def chunk_name(self, chunk: int) -> str:
        """Return how a sentence calls a chunk: "chunk 3", "chunk (0, 2)", "a temporary like chunk 3"."""
        if chunk >= self.nplaced + len(self.temps):
            return f"chunk {chunk}"
        if chunk >= self.nplaced:
            return "a temporary like " + self.chunk_name(int(self.temps[chunk - self.nplaced]))
        if self.contract.blocks == "pair":
            block, piece = divmod(chunk, self.cut)
            pair = f"chunk ({block // self.size}, {block % self.size})"
            return pair if self.cut == 1 else f"{pair}.{piece}"
        return f"chunk {chunk}"

    @property
    def nrounds(self) -> int:
        """How many rounds there are."""
        return int(np.count_nonzero(self.steps["flags"] & END))

    @property
    def peers(self) -> list[int]:
        """The ranks that this one sends to or receives from, ascending."""
        peers = self.steps["peer"]
        return [int(peer) for peer in np.unique(peers[peers != NONE])]

    def rounds(self) -> Iterator[list[Op]]:
        """Yield the rounds as lists of messages and local operations; raise ScheduleError where a step is malformed."""
        steps = self.steps
        _check(self)
        swap = (steps["flags"] & SWAP) != 0
        chunk, src, kind = steps["chunk"], steps["src"], steps["kind"]
        goes_on = (steps["flags"] & MORE) != 0
        ends = (steps["flags"] & END) != 0
        goes_on[:-1] |= (kind[:-1] >= COPY) & (kind[:-1] == kind[1:]) & (chunk[:-1] != chunk[1:]) & ~ends[:-1]
        kinds, peers = kind.tolist(), steps["peer"].tolist()
        ops: list[Op] = []
        first = 0
        for i, more in enumerate(goes_on.tolist()):
            if more:
                continue
            peer = peers[i] if peers[i] != NONE else -1
            ops.append(Op(kinds[i], peer, chunk[first : i + 1], src[first : i + 1], swap[first : i + 1], first))
            first = i + 1
            if ends[i]:
                yield ops
                ops = []

    def lower(self) -> Lowered:
        """Return this schedule as the C core takes it."""
        steps = self.steps.copy()
        sourced = steps["src"] != NONE
        nplaced = self.nplaced
        used = np.unique(np.concatenate([steps["chunk"], steps["src"][sourced], self.gets]))
        used = np.unique(np.concatenate([used, self.home(used)]))
        placed = np.union1d(self.brings, self.gets)
        passing = used[(used < nplaced) & ~np.isin(used, placed)]
        models = _models(passing, placed, self.cut)
        ids = np.union1d(used, models)
        home = self.home(ids)
        blocks = np.unique(passing // self.cut)
        passed_at = np.searchsorted(blocks, home // self.cut) * self.cut + home % self.cut
        passed_at[~np.isin(home, passing)] = -1

        like = np.searchsorted(ids, home).astype(np.uint32)
        like[np.searchsorted(ids, passing)] = np.searchsorted(ids, models)
        like = like[like]  # a temporary may be like a chunk that passes through

        steps["chunk"] = np.searchsorted(ids, steps["chunk"])
        steps["src"][sourced] = np.searchsorted(ids, steps["src"][sourced])
        return Lowered(
            name=self.name,
            steps=_frozen(steps),
            nchunks=len(ids),
            chunks=_frozen(home.astype(np.uint32)),
            in_at=_frozen(_positions(ids, self.brings)),
            out_at=_frozen(_positions(ids, self.gets)),
            like=_frozen(like),
            in_blocks=len(self.brings) // self.cut,
            out_blocks=len(self.gets) // self.cut,
            cut=self.cut,
            rounds=self.nrounds,
            passed=_frozen(blocks.astype(np.uint32)),
            passed_at=_frozen(passed_at.astype(np.int32)),
        )


def _check(schedule: Schedule) -> None:
    """Raise ScheduleError for the first step that means nothing, whatever the other ranks do."""
    steps, nchunks = schedule.steps, schedule.nplaced + len(schedule.temps)
    if not len(steps):
        return
    kind, flags, peer, src = steps["kind"], steps["flags"], steps["peer"], steps["src"]
    local = (kind == COPY) | (kind == REDUCE)
    more = (flags & MORE) != 0
    last = np.arange(len(steps)) == len(steps) - 1
    next_differs = np.append((kind[1:] != kind[:-1]) | (peer[1:] != peer[:-1]), True)
    faults = (
        (kind > REDUCE, "has an unknown kind"),
        (flags > MORE | END | SWAP, "has unknown flags"),
        (~local & (peer >= schedule.size), "names a peer that does not exist"),
        (~local & (peer == schedule.rank), "names its own rank as the peer"),
        (local & (peer != NONE), "is local but names a peer"),
        (steps["chunk"] >= nchunks, "names a chunk that does not exist"),
        (local & (src >= nchunks), "names a source chunk that does not exist"),
        (~local & (src != NONE), "is a message but names a source chunk"),
        (local & (src == steps["chunk"]), "has one chunk as its source and its target"),
        (local & more, "is local but says that its message goes on"),
        (more & ((flags & END) != 0), "says both that its message goes on and that its round ends"),
        (more & next_differs, "says that its message goes on, and the next step is not of the same message"),
        (last & ((flags & END) == 0), "is the last one and does not end its round"),
    )
    for wrong, sentence in faults:
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ScheduleError(f"{where(schedule, i)}: the step {sentence}")


def where(schedule: Schedule, step: int) -> str:
    """Return the place of a step as errors name it: "ring allreduce on 4 ranks: rank 2, round 1, step 0"."""
    ends = np.flatnonzero(schedule.steps["flags"] & END)
    round_ = int(np.searchsorted(ends, step))
    start = int(ends[round_ - 1]) + 1 if round_ else 0
    return f"{schedule.title}: rank {schedule.rank}, round {round_}, step {step - start}"


def _pieces(blocks: Any, cut: int) -> Ids:
    start = np.asarray(blocks, dtype=np.uint32).reshape(-1, 1) * np.uint32(cut)
    return _frozen((start + np.arange(cut, dtype=np.uint32)).reshape(-1))


def _models(passing: Ids, placed: Ids, cut: int) -> Ids:
    """For each chunk that is in no buffer of this rank, one that is, of the same piece of its block."""
    by_piece = {int(chunk) % cut: int(chunk) for chunk in placed[::-1]} if len(passing) else {}
    return np.array([by_piece[int(chunk) % cut] for chunk in passing], np.uint32)


def _positions(ids: Ids, buffer: Ids) -> npt.NDArray[np.int32]:
    """For each id its index in `buffer`, or -1."""
    at = np.full(len(ids), -1, np.int32)
    order = np.argsort(buffer)
    here = np.isin(ids, buffer)
    at[here] = order[np.searchsorted(buffer, ids[here], sorter=order)]
    return at


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
