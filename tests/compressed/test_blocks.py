"""Who carries which elements of which block: each element once in every group, and all ranks agree."""

from __future__ import annotations

import pytest

from pycomm.compressed.blocks import Stretch, portions

GROUPS = (
    [[0], [1]],
    [[0, 1], [2]],
    [[0, 3], [4, 1, 2]],
    [[0, 1, 2], [3, 4], [5, 6]],
    [[6, 5, 4, 3, 2, 1], [0]],
)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("kind", ["none", "one", "even", "uneven", "long"])
def test_each_element_of_each_block_has_one_carrier_in_each_group(groups: list[list[int]], kind: str) -> None:
    size = sum(map(len, groups))
    counts = {
        "none": [0] * size,
        "one": [int(r == 1) for r in range(size)],
        "even": [1000] * size,
        "uneven": [r * r * 100 for r in range(size)],
        "long": [500_000 + r for r in range(size)],
    }[kind]
    views = [portions(counts, groups, rank) for rank in range(size)]
    assert len({len(view) for view in views}) == 1
    everything = sorted((s for view in views for portion in view for s in portion.owned), key=repr)
    for owner, count in enumerate(counts):
        spans = [stretch.span for portion in views[owner] for stretch in portion.owned]
        assert all(stretch.owner == owner for portion in views[owner] for stretch in portion.owned)
        assert [s.start for s in spans] == [0, *(s.stop for s in spans[:-1])][: len(spans)]
        assert (spans[-1].stop if spans else 0) == count
    for rank, view in enumerate(views):
        mine = next(g for g, group in enumerate(groups) if rank in group)
        carried = [stretch for portion in view for each in portion.near for stretch in each]
        assert sorted(carried, key=repr) == everything
        for portion in view:
            assert len(portion.near) == len(groups[mine])
            for member, each in zip(groups[mine], portion.near, strict=True):
                assert all(stretch.carriers[mine] == member for stretch in each)
                assert all(stretch.owner == member for stretch in each if stretch.owner in groups[mine])


def test_groups_of_one_size_with_even_blocks_are_not_cut() -> None:
    (portion,) = portions([100] * 6, [[0, 1], [2, 3], [4, 5]], 3)
    assert portion.owned == [Stretch(3, slice(0, 100), (1, 3, 5))]
    assert portion.near[1] == [Stretch(rank, slice(0, 100), (1, 3, 5)) for rank in (1, 3, 5)]
