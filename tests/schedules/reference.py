"""What a collective means, and what a lowered schedule means, in numpy: the two are compared before C runs anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from pycomm.schedules.schedule import COPY, END, MORE, RECV, REDUCE, REDUCE_FROM, SEND, SWAP, Lowered

Blocks = list[np.ndarray]  # a rank's buffer, block by block
SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17)


def roots(collective: str, size: int) -> list[int]:
    rooted = collective in ("broadcast", "reduce", "gather", "scatter")
    return sorted({0, 1 % size, size // 2, size - 1}) if rooted else [0]


def case(collective: str, size: int, root: int, lengths: Sequence[int]) -> tuple[list[Blocks], list[Blocks]]:
    """Return every rank's input and expected output; block (i, j) has the length lengths[(i + j) % len(lengths)]."""

    def block(rank: int, number: int, length: int) -> np.ndarray:
        return (1 << (rank % 8)) * 1000 + number * 17 + np.arange(length) + rank

    p, n = size, [lengths[j % len(lengths)] for j in range(size)]
    whole = [[block(r, 0, n[0])] for r in range(p)]
    own = [[block(r, 0, n[r])] for r in range(p)]
    every = [[block(r, j, n[j]) for j in range(p)] for r in range(p)]
    pairs = [[block(r, j, n[(r + j) % p]) for j in range(p)] for r in range(p)]
    total = [sum(whole[r][0] for r in range(p))]
    match collective:
        case "allreduce":
            return whole, [total] * p
        case "reduce":
            return whole, [total if r == root else [] for r in range(p)]
        case "broadcast":
            return [whole[r] if r == root else [] for r in range(p)], [whole[root]] * p
        case "allgather":
            return own, [[b for (b,) in own]] * p
        case "reduce_scatter":
            return every, [[sum(every[s][r] for s in range(p))] for r in range(p)]
        case "gather":
            return own, [[b for (b,) in own] if r == root else [] for r in range(p)]
        case "scatter":
            return [every[r] if r == root else [] for r in range(p)], [[every[root][r]] for r in range(p)]
        case "alltoall":
            return pairs, [[pairs[s][r] for s in range(p)] for r in range(p)]
        case "scan":
            return whole, [[sum(whole[s][0] for s in range(r + 1))] for r in range(p)]
        case "exscan":
            return whole, [[sum(whole[s][0] for s in range(r))] if r else [] for r in range(p)]
        case "barrier":
            return [[np.empty(0)]] * p, [[np.empty(0)]] * p
    raise AssertionError(collective)


def execute(
    plans: Sequence[Lowered],
    inputs: Sequence[Blocks],
    lengths: Sequence[Sequence[int]],
    op: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add,
) -> list[Blocks]:
    """Run the schedules of all ranks on real arrays; `lengths` are those of the output blocks of each rank."""
    links: dict[tuple[int, int], deque[list[np.ndarray]]] = {}
    ranks = [_Rank(r, *args, op, links) for r, args in enumerate(zip(plans, inputs, lengths, strict=True))]
    programs = [rank.run() for rank in ranks]
    left = set(range(len(ranks)))
    while left:
        before = len(left), sum(map(len, links.values())), sum(rank.at for rank in ranks)
        left -= {r for r in left if next(programs[r], "done") == "done"}
        after = len(left), sum(map(len, links.values())), sum(rank.at for rank in ranks)
        assert before != after, "the schedules do not end"
    assert not any(links.values()), "messages are left over"
    return [rank.output() for rank in ranks]


class _Rank:
    def __init__(self, rank, plan, blocks, lengths, op, links):
        self.rank, self.plan, self.op, self.links, self.at = rank, plan, op, links, 0
        self.lengths = lengths
        assert len(blocks) == plan.in_blocks and len(lengths) == plan.out_blocks
        self.chunks: list[np.ndarray | None] = [None] * plan.nchunks
        self.size = np.full(plan.nchunks, -1)
        for c, (i, o) in enumerate(zip(plan.in_at.tolist(), plan.out_at.tolist(), strict=True)):
            if i >= 0:
                block, piece = divmod(i, plan.cut)
                start, end = self.piece(piece, len(blocks[block]))
                self.chunks[c], self.size[c] = blocks[block][start:end].copy(), end - start
            if o >= 0:
                start, end = self.piece(o % plan.cut, lengths[o // plan.cut])
                assert self.size[c] in (-1, end - start)
                self.size[c] = end - start
        placed = self.size >= 0
        assert (plan.like[placed] == np.flatnonzero(placed)).all()
        self.size = self.size[plan.like]
        assert (self.size >= 0).all(), "a chunk has no length"

    def piece(self, piece: int, length: int) -> tuple[int, int]:
        return length * piece // self.plan.cut, length * (piece + 1) // self.plan.cut

    def run(self):
        steps = self.plan.steps
        while self.at < len(steps):
            end = self.at + int(np.argmax((steps["flags"][self.at :] & END) != 0)) + 1
            todo = steps[self.at : end]
            old = list(self.chunks)
            payload: list[np.ndarray] = []
            for s in todo[todo["kind"] == SEND]:
                payload.append(old[s["chunk"]])
                assert payload[-1] is not None
                if not s["flags"] & MORE:
                    self.links.setdefault((self.rank, int(s["peer"])), deque()).append(payload)
                    payload = []
            written: set[int] = set()
            for s in todo[todo["kind"] != SEND]:
                chunk, kind = int(s["chunk"]), int(s["kind"])
                if kind in (RECV, REDUCE_FROM):
                    while not payload:
                        link = self.links.setdefault((int(s["peer"]), self.rank), deque())
                        if link:
                            payload = list(link.popleft())
                        else:
                            yield
                    value = payload.pop(0)
                    assert bool(payload) == bool(s["flags"] & MORE), "the two ends cut a message differently"
                else:
                    value = old[s["src"]]
                assert value is not None and len(value) == self.size[chunk], "two ends disagree on a chunk's length"
                if kind in (REDUCE_FROM, REDUCE):
                    here = (self.chunks if chunk in written else old)[chunk]
                    assert here is not None
                    value = self.op(value, here) if s["flags"] & SWAP else self.op(here, value)
                else:
                    assert kind in (RECV, COPY)
                    assert chunk not in written, "a round overwrites what it has written"
                self.chunks[chunk] = value.copy()
                written.add(chunk)
            self.at = end
            yield

    def output(self) -> Blocks:
        out = [
            np.full(n, -1, np.result_type(np.int64, *[c.dtype for c in self.chunks if c is not None]))
            for n in self.lengths
        ]
        for c, o in enumerate(self.plan.out_at.tolist()):
            if o >= 0:
                block, piece = divmod(o, self.plan.cut)
                start, end = self.piece(piece, len(out[block]))
                out[block][start:end] = self.chunks[c]
        return out
