"""Who carries which elements of which rank's block between groups, in a reduce-scatter and in an all-gather.

    blocks of group 0       |     rank 0's     |  rank 1's  |
    shares of group 1       |   rank 2   |   rank 3   | rank 4 |
    stretches               |     a      |  b  | c    | d | e |     b is of rank 0's block, and rank 3 carries it

The blocks of a group's ranks lie one after the other, and each other group's ranks carry equal shares of them. Where
shares and blocks do not coincide they are cut into stretches, in each of which every group has one carrier: in the
group of the block's owner, the owner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from .layout import SLICE, cut


class Stretch(NamedTuple):
    """Elements of one rank's block that the same ranks carry.

    Attributes:
        owner: the rank whose block it is.
        span: where in the block.
        carriers: the rank of each group.
    """

    owner: int
    span: slice
    carriers: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return int(self.span.stop - self.span.start)


class Portion(NamedTuple):
    """An equal part of every block, as one rank sees it: what is worked on at once.

    Attributes:
        number: of the portion.
        owned: the stretches of this rank's block.
        near: what each rank of this rank's group carries, of its own block and of those of other groups.
    """

    number: int
    owned: list[Stretch]
    near: list[list[Stretch]]


def portions(counts: Sequence[int], groups: Sequence[Sequence[int]], rank: int) -> list[Portion]:
    """Return the portions of blocks as a rank sees them.

    Args:
        counts: elements of each rank's block.
        groups: all ranks, each once.
        rank: whose view.
    """
    several = max(1, -(-sum(counts) // SLICE))
    bounds = [cut(count, several) for count in counts]
    mine = next(g for g, group in enumerate(groups) if rank in group)
    made: list[Portion] = []
    for number in range(several):
        starts = [bound[number] for bound in bounds]
        sizes = [bound[number + 1] - start for bound, start in zip(bounds, starts, strict=True)]
        everything = [stretch for home in range(len(groups)) for stretch in _stretches(starts, sizes, groups, home)]
        near: dict[int, list[Stretch]] = {member: [] for member in groups[mine]}
        for stretch in everything:
            near[stretch.carriers[mine]].append(stretch)
        made.append(Portion(number, [s for s in everything if s.owner == rank], list(near.values())))
    return made


def _stretches(
    starts: Sequence[int], sizes: Sequence[int], groups: Sequence[Sequence[int]], home: int
) -> list[Stretch]:
    """Return the stretches of the blocks of one group's ranks, of which each has `sizes` elements from `starts` on."""
    blocks = [0, *accumulate(sizes[owner] for owner in groups[home])]
    shares = [blocks if g == home else cut(blocks[-1], len(group)) for g, group in enumerate(groups)]
    edges = sorted({edge for share in shares for edge in share})
    found: list[Stretch] = []
    for a, b in pairwise(edges):
        carriers = tuple(group[bisect_right(share, a) - 1] for group, share in zip(groups, shares, strict=True))
        owner = carriers[home]
        offset = starts[owner] - blocks[bisect_right(blocks, a) - 1]
        found.append(Stretch(owner, slice(a + offset, b + offset), carriers))
    return found
