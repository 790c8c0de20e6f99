"""Who carries which elements between groups: all of them, each once in every group, and both ends agree."""

from __future__ import annotations

import pytest

from pycomm import InvalidArgument
from pycomm.compressed.layout import check_groups, layout, pieces

GROUPS = (
    [[0], [1]],
    [[0, 1], [2]],
    [[0, 3], [4, 1, 2]],
    [[0], [1], [2]],
    [[0, 1, 2], [3, 4], [5, 6]],
    [[6, 5, 4, 3, 2, 1], [0]],
)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 5, 1000, (1 << 20) + 1, 3_000_001])
def test_each_element_has_one_carrier_in_each_group(groups: list[list[int]], count: int) -> None:
    size = sum(map(len, groups))
    seen: dict[int, dict[tuple[int, int], tuple[int, ...]]] = {g: {} for g in range(len(groups))}
    for rank in range(size):
        mine = next(g for g, group in enumerate(groups) if rank in group)
        parts = layout(count, groups, rank)
        assert [p.number for p in parts] == list(range(len(parts)))
        assert parts[-1].kept.stop == sum(p.shard.stop - p.shard.start for p in parts)
        for part in parts:
            assert sum(part.counts) == part.span.stop - part.span.start
            assert part.counts[groups[mine].index(rank)] == part.shard.stop - part.shard.start
            for cell in part.cells:
                assert cell.carriers[mine] == rank
                start = part.span.start + part.shard.start
                seen[mine][start + cell.span.start, start + cell.span.stop] = cell.carriers
                spans = pieces(cell)
                assert [s.start for s in spans[1:]] == [s.stop for s in spans[:-1]]
                assert (spans[0].start, spans[-1].stop) == (cell.span.start, cell.span.stop)
    assert all(cells == seen[0] for cells in seen.values())  # every group cuts alike, and names the same carriers
    edges = sorted(seen[0])
    assert [a for a, _ in edges[1:]] == [b for _, b in edges[:-1]]
    assert not count or (edges[0][0], edges[-1][1]) == (0, count)


def test_groups_are_flattened() -> None:
    assert check_groups([[[0, 1], [2]], [[3]], (4,)], 5) == [[0, 1, 2], [3], [4]]


@pytest.mark.parametrize("groups", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [], [[0, 1], [2, 3]]])
def test_each_rank_is_in_one_group(groups: list[list[int]]) -> None:
    with pytest.raises(InvalidArgument, match="each rank from 0 to 2"):
        check_groups(groups, 3)
