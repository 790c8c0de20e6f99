"""Which elements a rank carries between groups, and to whom: slices, the shards of a group's ranks, cells.

    group 0    |      rank 0      |      rank 1      |
    group 1    |   rank 2   |   rank 3   |  rank 4   |
    cells      |     a      |  b  |  c   |     d     |     b is carried by ranks 0 and 3

A shard is what a rank gets of its group's sum. Where groups differ in size their shards do not coincide, so they are
cut into cells, in each of which every group has one carrier. All ranks carry, and all groups send and receive equally
much.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..errors import InvalidArgument

SLICE = 1 << 20  # elements: long to send beside the overhead of a call, short beside the whole of a long vector


class Cell(NamedTuple):
    """Elements that the same ranks carry.

    Attributes:
        span: where in the rank's shard.
        carriers: the rank of each group.
    """

    span: slice
    carriers: tuple[int, ...]


class Part(NamedTuple):
    """A slice of the vector, as one rank sees it.

    Attributes:
        number: of the slice.
        span: where in the vector.
        counts: elements of each shard of the rank's group.
        shard: where the rank's own shard is in the slice.
        kept: where what the rank keeps from call to call of its shard is among that of all slices.
        cells: what its shard consists of.
    """

    number: int
    span: slice
    counts: list[int]
    shard: slice
    kept: slice
    cells: list[Cell]


def cut(count: int, parts: int) -> list[int]:
    """Return the bounds, one more than parts, of as many balanced parts."""
    return [i * count // parts for i in range(parts + 1)]


def pieces(cell: Cell) -> list[slice]:
    """Return what each carrier of a cell adds up, where each adds up a part of it."""
    start = cell.span.start
    bounds = cut(cell.span.stop - start, len(cell.carriers))
    return [slice(start + a, start + b) for a, b in pairwise(bounds)]


def layout(count: int, groups: Sequence[Sequence[int]], rank: int) -> list[Part]:
    """Return the slices of a vector as a rank sees them.

    Args:
        count: elements of the vector.
        groups: all ranks, each once.
        rank: whose view.
    """
    bounds = cut(count, max(1, -(-count // SLICE)))
    parts: list[Part] = []
    kept = 0
    for number, (start, stop) in enumerate(pairwise(bounds)):
        shards = [cut(stop - start, len(group)) for group in groups]
        mine = next(g for g, group in enumerate(groups) if rank in group)
        place = list(groups[mine]).index(rank)
        low, high = shards[mine][place], shards[mine][place + 1]
        counts = [b - a for a, b in pairwise(shards[mine])]
        edges = sorted({low, high, *(edge for shard in shards for edge in shard if low < edge < high)})
        cells = [
            Cell(slice(a - low, b - low), tuple(g[bisect_right(s, a) - 1] for g, s in zip(groups, shards, strict=True)))
            for a, b in pairwise(edges)
        ]
        parts.append(Part(number, slice(start, stop), counts, slice(low, high), slice(kept, kept + high - low), cells))
        kept += high - low
    return parts


def check_groups(groups: Any, size: int) -> list[list[int]]:
    """Return groups as lists of ranks, nested ones flattened.

    Raises:
        InvalidArgument: not every rank is in one group.
    """
    flat = [list(_ranks(group)) for group in groups]
    named = [rank for group in flat for rank in group]
    if sorted(named) != list(range(size)) or not all(flat):
        raise InvalidArgument(
            f"groups are {groups!r}: each rank from 0 to {size - 1} must be in one of them, and only one"
        )
    return flat


def _ranks(group: Any) -> list[Any]:
    return [rank for part in group for rank in _ranks(part)] if isinstance(group, (list, tuple)) else [group]
