"""What the C core takes: chunks numbered among those that a rank uses, each with a place or the length of one."""

import numpy as np
import pytest
from reference import roots

from pycomm.schedules.registry import listing
from pycomm.schedules.schedule import NONE
from pycomm.schedules.view import emit

GROUPS = [[0, 3], [1, 2, 4, 6], [5]]


@pytest.mark.parametrize("entry", listing(), ids=lambda entry: f"{entry.name}-{entry.collective}")
def test_invariants(entry):
    for root in roots(entry.collective, 7):
        for rank in range(7):
            schedule = emit(entry.name, entry.collective, size=7, rank=rank, root=root, groups=GROUPS)
            plan = schedule.lower()
            placed = (plan.in_at >= 0) | (plan.out_at >= 0)
            local = plan.steps["src"] != NONE
            # The steps are the same but for the chunks' numbers.
            for field in ("kind", "flags", "peer"):
                assert (plan.steps[field] == schedule.steps[field]).all()
            assert (plan.chunks[plan.steps["chunk"]] == schedule.home(schedule.steps["chunk"])).all()
            assert (plan.chunks[plan.steps["src"][local]] == schedule.home(schedule.steps["src"][local])).all()
            # Nothing is numbered that is neither used nor an output, except to lend its length.
            used = {*plan.steps["chunk"].tolist(), *plan.steps["src"][local].tolist()}
            assert used | set(np.flatnonzero(plan.out_at >= 0)) | set(plan.like.tolist()) == set(range(plan.nchunks))
            # Every output piece is there once; what has no place has the length of something that has one.
            assert sorted(plan.out_at[plan.out_at >= 0]) == list(range(plan.out_blocks * plan.cut))
            assert (plan.like[placed] == np.flatnonzero(placed)).all()
            assert placed[plan.like].all()
            assert plan.in_at.max(initial=-1) < plan.in_blocks * plan.cut
            for array in (plan.steps, plan.in_at, plan.out_at, plan.like, plan.chunks):
                assert not array.flags.writeable
            assert (plan.in_at.dtype, plan.like.dtype) == (np.int32, np.uint32)


def test_an_alltoall_numbers_pairs_by_the_other_end():
    plan = emit("pairwise", "alltoall", size=3, rank=1).lower()
    assert (plan.in_blocks, plan.out_blocks, plan.cut) == (3, 3, 1)
    assert plan.chunks.tolist() == [1, 3, 4, 5, 7]  # (0, 1), (1, 0), (1, 1), (1, 2), (2, 1)
    assert plan.in_at.tolist() == [-1, 0, 1, 2, -1]
    assert plan.out_at.tolist() == [0, -1, 1, -1, 2]


def test_rooted_collectives_have_buffers_where_the_root_has():
    blocks = {
        (c, rank): (plan.in_blocks, plan.out_blocks)
        for c in ("broadcast", "reduce", "gather", "scatter")
        for rank in range(3)
        for plan in [emit("direct", c, size=3, rank=rank, root=1).lower()]
    }
    assert blocks["broadcast", 1] == (1, 1) and blocks["broadcast", 0] == (0, 1)
    assert blocks["reduce", 1] == (1, 1) and blocks["reduce", 0] == (1, 0)
    assert blocks["gather", 1] == (1, 3) and blocks["gather", 0] == (1, 0)
    assert blocks["scatter", 1] == (3, 1) and blocks["scatter", 0] == (0, 1)


def test_one_rank_needs_no_steps():
    for entry in listing():
        plan = emit(entry.name, entry.collective, size=1, rank=0, groups=[[0]]).lower()
        assert (len(plan.steps), plan.rounds) == (0, 0)
        assert plan.out_at.tolist() == list(range(plan.out_blocks * plan.cut))
        assert (plan.in_at[plan.out_at >= 0] == plan.out_at[plan.out_at >= 0]).all()


def test_a_rank_numbers_only_what_it_uses():
    assert emit("bruck", "alltoall", size=64, rank=5).lower().nchunks <= 64 * 6 // 2 + 2 * 64
    assert emit("binomial", "gather", size=1000, rank=1).lower().nchunks == 1
