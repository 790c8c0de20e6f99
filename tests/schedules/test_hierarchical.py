"""Hierarchies: any number of levels, uneven groups, ranks in any order, any algorithms at the levels."""

import numpy as np
import pytest
from reference import case, execute, roots

from pycomm.errors import InvalidArgument
from pycomm.schedules.verify import verify
from pycomm.schedules.view import emit

GROUPS = {
    "2+2": [[0, 1], [2, 3]],
    "3+2": [[0, 1, 2], [3, 4]],
    "4+4+2": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]],
    "round robin": [[0, 3, 6], [1, 4, 7], [2, 5]],
    "any order": [[3, 0], [1, 4, 6], [2], [5]],
    "three levels": [[[0, 1], [2, 3]], [[4], [5, 6]]],
    "three uneven levels": [[[0, 1, 9], [2, 3]], [[4], [5, 6, 8, 10], [7]], [[11, 12]]],
    "four levels": [[[[0, 1], [2]], [[3, 4]]], [[[5], [6, 7]], [[8, 9], [10, 11]]]],
    "ranks beside groups": [[0, 1], 2, [3, 4, 5]],
    "one group": [[0, 1, 2]],
    "no groups": [0, 2, 1],
    "alone": [[0]],
}
PARTS = {
    "allgather": ["", "(ring)", "(direct, ring)", "(pairwise, bruck)"],
    "reduce_scatter": ["", "(ring, direct)", "(direct, bruck)"],
    "allreduce": ["", "(ring)", "(direct, bruck)", "(bruck, ring, bruck)", "(ring, pairwise)"],
    "broadcast": ["", "(direct, double_tree)", "(double_tree, ring)"],
    "reduce": ["", "(direct, double_tree)"],
    "barrier": ["", "(direct, dissemination)", "(dissemination)"],
    "alltoall": ["", "(bruck)", "(direct, pairwise)"],
}


def members(group):
    return [group] if isinstance(group, int) else [rank for member in group for rank in members(member)]


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("collective", PARTS)
def test_keeps_its_contract_and_computes(collective, groups):
    size = len(members(groups))
    for parts in PARTS[collective]:
        for root in roots(collective, size):
            verify("hierarchical" + parts, collective, size=size, root=root, groups=groups)
        name, root = "hierarchical" + parts, roots(collective, size)[-1]
        plans = [emit(name, collective, size=size, rank=r, root=root, groups=groups).lower() for r in range(size)]
        for lengths in ([29], [1]) if collective == "alltoall" else ([29], [1], [3, 0, 7, 1]):
            inputs, expected = case(collective, size, root, lengths)
            got = execute(plans, inputs, [[len(block) for block in blocks] for blocks in expected])
            for mine, right in zip(got, expected, strict=True):
                for a, b in zip(mine, right, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("across", ["doubling", "direct", "two_shot", "double_tree"])
def test_an_algorithm_for_allreduce_only_serves_across_the_groups(across):
    for groups in (GROUPS["4+4+2"], GROUPS["any order"], GROUPS["round robin"]):
        size = len(members(groups))
        verify(f"hierarchical(direct, {across})", "allreduce", size=size, groups=groups)


def test_crosses_with_the_least_bytes_and_over_all_rails():
    """Between G equal groups of m ranks an all-reduce must move (G-1) n each way, and each rail carries 1/m of it."""
    groups = [list(range(i, i + 4)) for i in range(0, 12, 4)]
    schedules = [emit("hierarchical", "allreduce", size=12, rank=r, groups=groups) for r in range(12)]
    for schedule in schedules:
        far = sum(
            len(op.chunks) * schedule.share
            for ops in schedule.rounds()
            for op in ops
            if op.kind == 0 and op.peer // 4 != schedule.rank // 4
        )
        assert far * 12 == 2 * (3 - 1)
        assert all(peer % 4 == schedule.rank % 4 for peer in schedule.peers if peer // 4 != schedule.rank // 4)


@pytest.mark.parametrize("groups", [None, [], [[0, 1], [1, 2]], [[0, 1]], [[0, 1, 2], []], [[0, 1], [3]]])
def test_groups_must_name_each_rank_once(groups):
    with pytest.raises(InvalidArgument, match="groups"):
        emit("hierarchical", "allreduce", size=3, rank=0, groups=groups)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hierarchical(nonsense)", "has no algorithm 'nonsense'"),
        ("hierarchical(hierarchical)", "not made of hierarchies"),
        ("hierarchical(ring", "a bracket is not closed"),
        ("ring(ring)", "ring takes nothing in brackets"),
    ],
)
def test_names_that_mean_nothing(name, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        emit(name, "allreduce", size=4, rank=0, groups=[[0, 1], [2, 3]])
