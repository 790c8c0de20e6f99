"""Keeps the verifier honest: one step of one rank is damaged, in any of the shipped algorithms, and it must notice.

A mutant that the verifier lets pass is allowed only if it is the same program: what `dataflow` returns, the values that
go to each peer and into the output as expressions over what came in, must be unchanged. That the ranks still finish,
and still agree on the order of every reduction, is what the verifier has just found.
"""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from pycomm.errors import ScheduleError
from pycomm.schedules.registry import listing
from pycomm.schedules.schedule import COPY, END, MORE, NONE, RECV, REDUCE, REDUCE_FROM, SEND, SWAP
from pycomm.schedules.verify import check
from pycomm.schedules.view import emit

SIZES = (2, 3, 5, 8)
PER_KIND = 2  # mutants of each kind for an algorithm and a size
GROUPS = {2: [[0], [1]], 3: [[0, 1], [2]], 5: [[0, 3], [1, 2, 4]], 8: [[[0, 1], [2, 3, 4]], [[5], [6, 7]]]}


def drop(steps, i, size, nplaced, rng):
    if steps["flags"][i] & MORE == 0 and i and steps["flags"][i - 1] & END == 0:
        steps["flags"][i - 1] &= ~MORE & 0xFF
        steps["flags"][i - 1] |= steps["flags"][i] & END
    return np.delete(steps, i)


def double(steps, i, size, nplaced, rng):
    steps = np.insert(steps, i, steps[i])
    steps["flags"][i] &= ~END & 0xFF
    return steps


def retarget(steps, i, size, nplaced, rng):
    others = [p for p in range(size) if p not in (int(steps["peer"][i]), rng.rank)]
    if steps["peer"][i] == NONE or not others:
        return None
    steps["peer"][i] = rng.choice(others)
    return steps


def reorder(steps, i, size, nplaced, rng):
    if i + 1 == len(steps):
        return None
    both = steps[i : i + 2].copy()
    for field in ("kind", "peer", "chunk", "src"):
        steps[field][i : i + 2] = both[field][::-1]
    swap = both["flags"] & SWAP
    steps["flags"][i : i + 2] = (both["flags"] & (MORE | END)) | swap[::-1]
    return steps


def rechunk(steps, i, size, nplaced, rng):
    others = [c for c in range(nplaced) if c != steps["chunk"][i]]
    if not others:
        return None
    steps["chunk"][i] = rng.choice(others)
    return steps


def resource(steps, i, size, nplaced, rng):
    others = [c for c in range(nplaced + rng.temps) if c not in (steps["chunk"][i], steps["src"][i])]
    if steps["src"][i] == NONE or not others:
        return None
    steps["src"][i] = rng.choice(others)
    return steps


def rekind(steps, i, size, nplaced, rng):
    kinds = {SEND, RECV, REDUCE_FROM} if steps["src"][i] == NONE else {COPY, REDUCE}
    steps["kind"][i] = rng.choice(sorted(kinds - {int(steps["kind"][i])}))
    return steps


def flip_swap(steps, i, size, nplaced, rng):
    if steps["kind"][i] not in (REDUCE_FROM, REDUCE):
        return None
    steps["flags"][i] ^= SWAP
    return steps


def flip_more(steps, i, size, nplaced, rng):
    if steps["flags"][i] & END or steps["src"][i] != NONE:
        return None
    steps["flags"][i] ^= MORE
    return steps


def merge_rounds(steps, i, size, nplaced, rng):
    if not steps["flags"][i] & END or i + 1 == len(steps):
        return None
    steps["flags"][i] ^= END
    return steps


def split_round(steps, i, size, nplaced, rng):
    """Cut a round in two, the later half first."""
    if steps["flags"][i] & (END | MORE):
        return None
    ends = np.flatnonzero(steps["flags"] & END)
    last = int(ends[np.searchsorted(ends, i)])
    first = int(ends[np.searchsorted(ends, i) - 1]) + 1 if i > ends[0] else 0
    steps["flags"][i] |= END
    return np.concatenate([steps[:first], steps[i + 1 : last + 1], steps[first : i + 1], steps[last + 1 :]])


KINDS = (drop, double, retarget, reorder, rechunk, resource, rekind, flip_swap, flip_more, merge_rounds, split_round)


def dataflow(schedule):
    """Return what a rank does to the world: (values sent, by peer; pieces received, by peer; values of the output).

    A value is a part of the input, a piece received, or a sum: a multiset of those, whatever the order of adding up.
    What a barrier sends is empty, so that only the numbers of its messages count.
    """
    if schedule.contract.idempotent:
        return Counter((op.kind == SEND, op.peer) for ops in schedule.rounds() for op in ops)
    held = {int(c): [("input", int(c))] for c in schedule.brings}
    sent, received = {}, Counter()
    for ops in schedule.rounds():
        before = dict(held)
        for op in ops:
            chunks = op.chunks.tolist()
            if op.kind == SEND:
                sent.setdefault(op.peer, []).append([before[c] for c in chunks])
                continue
            if op.kind in (RECV, REDUCE_FROM):
                values = [[("from", op.peer, received[op.peer], i)] for i in range(len(chunks))]
                received[op.peer] += 1
            else:
                values = [before[s] for s in op.srcs.tolist()]
            for chunk, value in zip(chunks, values, strict=True):
                held[chunk] = sorted(held[chunk] + value) if op.kind in (REDUCE_FROM, REDUCE) else value
    return sent, received, [held[int(c)] for c in schedule.gets]


def mutants(schedules, rng):
    """Yield (kind, rank, mutant) for each kind of damage, at steps drawn by `rng`."""
    size, nplaced = len(schedules), schedules[0].nplaced
    places = [(r, i) for r, s in enumerate(schedules) for i in range(len(s.steps))]
    for kind in KINDS:
        left = PER_KIND
        for rank, i in rng.sample(places, len(places)):
            rng.rank, rng.temps = rank, len(schedules[rank].temps)
            steps = kind(schedules[rank].steps.copy(), i, size, nplaced, rng)
            if steps is not None and left:
                left -= 1
                yield kind.__name__, rank, dataclasses.replace(schedules[rank], steps=steps)


@pytest.fixture(scope="module")
def census():
    counts = {"killed": Counter(), "equivalent": Counter()}
    yield counts
    kinds = [kind.__name__ for kind in KINDS]
    print("\nmutants       " + "".join(f"{kind:>14}" for kind in kinds) + f"{'all':>8}")
    for verdict, counter in counts.items():
        print(f"{verdict:14}" + "".join(f"{counter[kind]:14}" for kind in kinds) + f"{counter.total():8}")
    assert sum(counter.total() for counter in counts.values()) >= 500
    assert all(counts["killed"][kind] for kind in kinds)


@pytest.mark.parametrize("entry", listing(), ids=lambda entry: f"{entry.name}-{entry.collective}")
def test_every_mutant_is_noticed(entry, census):
    for size in SIZES:
        rng = random.Random(f"{entry.name} {entry.collective} {size}")
        root = rng.randrange(size)
        schedules = [
            emit(entry.name, entry.collective, size=size, rank=rank, root=root, groups=GROUPS[size])
            for rank in range(size)
        ]
        for kind, rank, mutant in mutants(schedules, rng):
            try:
                check([*schedules[:rank], mutant, *schedules[rank + 1 :]])
            except ScheduleError as error:
                census["killed"][kind] += 1
                assert "\n" not in str(error)
                assert str(error).startswith(f"{entry.name} {entry.collective} on {size} ranks: ")
            else:
                census["equivalent"][kind] += 1
                assert dataflow(mutant) == dataflow(schedules[rank]), f"{kind} in {entry} on {size} ranks survives"
