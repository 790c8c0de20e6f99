"""Hierarchical: composes other algorithms over groups of near ranks, for any number of levels and uneven groups.

What crosses between groups crosses once, and over as many rails as the largest group has ranks. Three hosts:

    within    0 - 1 - 2 - 3     4 - 5 - 6 - 7     8 - 9
    across    0 --------------- 4 --------------- 8          rail 0
              1 --------------- 5 --------------- 8          rail 1: a smaller group's ranks serve several
              2 --------------- 6 --------------- 9          rail 2
              3 --------------- 7 --------------- 9          rail 3

A group is a tuple of ranks, or of smaller groups. The algorithms are named from the innermost level outwards, the last
one for all levels beyond: "hierarchical(direct, ring)" is direct within a host and a ring across hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from math import lcm
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from pycomm.errors import InvalidArgument
from pycomm.schedules.registry import Algorithm, Groups, add_family, find
from pycomm.schedules.view import View, leaves

CITE = "Cho et al., BlueConnect, IBM J. Res. Dev. 63 (2019)"

Parts = Sequence[str]  # names of algorithms, innermost level first
Chunks = Sequence[int] | npt.NDArray[np.integer]
Load = Callable[[int, int], list[tuple[int, int]]]


def allgather(v: View, parts: Parts) -> None:
    """All-gather across the groups along rails, then within: what is sent far is small."""
    groups = _groups(v)
    _spread(v, groups, [[rank] for rank in leaves(groups)], parts)


def reduce_scatter(v: View, parts: Parts) -> None:
    """Reduce-scatter within the groups, then across along rails: the reversal of the all-gather."""
    v.backwards(lambda: allgather(v, parts))


def allreduce(v: View, parts: Parts) -> None:
    """Reduce-scatter within each group, all-reduce across them along rails, all-gather within."""
    groups = _groups(v)
    part = _part("allreduce", parts, groups)
    if _flat(groups):
        return _call(v, part, groups, [range(v.chunks)])
    children = [leaves(child) for child in groups]
    _, near = v.within(groups)
    ranks = leaves(near)
    nrails = max(map(len, children))
    shares = np.arange(v.chunks).reshape(nrails, -1)
    owned = [np.concatenate(shares[_served(place, nrails, len(ranks))]) for place in range(len(ranks))]
    rails = _served(v.place(ranks), nrails, len(ranks))
    v.backwards(lambda: _spread(v, near, owned, parts))
    v.together(*[
        partial(_call, v, part, [_on_rail(v, child, k, nrails) for child in children], [v.at(shares, k)]) for k in rails
    ])  # fmt: skip
    _spread(v, near, owned, parts)


def broadcast(v: View, parts: Parts) -> None:
    """Broadcast to one rank of each group, then within the groups."""
    _down(v, _groups(v), v.root, parts)


def reduce(v: View, parts: Parts) -> None:
    """Reduce to one rank of each group, then across these: the reversal of the broadcast."""
    v.backwards(lambda: broadcast(v, parts))


def barrier(v: View, parts: Parts) -> None:
    """Gather the news of each group in one rank, exchange them across, and tell the group.

    The last name is of a barrier, those before it are of broadcasts.
    """
    groups = _groups(v)
    across = _part("barrier", parts[-1:], groups)
    if _flat(groups):
        return _call(v, across, groups, [[0]])
    within = parts[:-1] or ("binomial",)
    _, near = v.within(groups)
    leader = leaves(near)[0]
    v.backwards(lambda: _down(v, near, leader, within))
    if v.rank == leader:
        _call(v, across, [leaves(child)[0] for child in groups], [[0]])
    _down(v, near, leader, within)


def alltoall(v: View, parts: Parts) -> None:
    """Hand each chunk to the near rank on the rail of its destination, then send a group's chunks together across.

    Across, direct sends to all other groups at once, and any other name to one after the other.
    """
    _exchange(v, _groups(v), lambda source, target: [(source, target)], parts)


def _spread(v: View, group: Groups, owned: Sequence[Chunks], parts: Parts) -> None:
    """All-gather in one group, where `owned` says which chunks each of its ranks, in their order, has."""
    part = _part("allgather", parts, group)
    if _flat(group):
        return _call(v, part, group, owned)
    children = [leaves(child) for child in group]
    starts = np.cumsum([0, *map(len, children)]).tolist()
    _, near = v.within(group)
    ranks = leaves(near)
    received = [
        np.concatenate([
            owned[start + k]
            for start, child in zip(starts, children, strict=False)
            for k in _served(place, len(child), len(ranks))
        ])
        for place in range(len(ranks))
    ]  # fmt: skip
    calls = []
    for rail in _rails(v.place(ranks), sorted(set(map(len, children))), len(ranks)):
        n, k = next(iter(rail.items()))
        along = [_on_rail(v, child, k, n) for child in children]
        blocks = [
            v.at(owned[start : start + len(child)], rail[len(child)]) if len(child) in rail else ()
            for start, child in zip(starts, children, strict=False)
        ]
        calls.append((along, blocks))
    calls.sort(key=itemgetter(0))  # the same order on all ranks of a rail
    v.together(*[partial(_call, v, part, *each) for each in calls])
    _spread(v, near, received, parts)


def _rails(place: int, sizes: Sequence[int], near: int) -> list[dict[int, int]]:
    """Return the rails that the rank at a place of `near` ranks serves.

    Each is a mapping from the size of groups to the number of that rank of theirs whose chunks go along it.
    """
    if len(sizes) == 1:
        return [{near: place}]
    rails: dict[tuple[int, ...], dict[int, int]] = {}
    place = int(place)  # from here on ranks at different places go different ways
    for n in sizes:
        for k in _served(place, n, near):
            rails.setdefault(tuple(k * m // n for m in sizes), {})[n] = k
    return list(rails.values())


def _served(place: int, n: int, near: int) -> list[int]:
    """Return which of n rails, or ranks of another group, the rank at a place of `near` ranks serves."""
    first, end = (-(-at * n // near) for at in (place, place + 1))
    return [first + k for k in range(int(end - first))]


def _on_rail(v: View, child: Sequence[int], k: int, n: int) -> int:
    """The rank of a group that serves the k-th of n rails."""
    rank: int = v.at(child, k * len(child) // n)
    return rank


def _down(v: View, group: Groups, root: int, parts: Parts) -> None:
    """Broadcast in one group from one of its ranks."""
    part = _part("broadcast", parts, group)
    if _flat(group):
        return _call(v, part, group, [range(v.chunks)], group.index(root))
    children = [leaves(child) for child in group]
    mine, near = v.within(group)
    first = next(k for k, child in enumerate(children) if root in child)
    leader = root if mine == first else leaves(near)[0]
    if v.rank == leader:
        leaders = [root if k == first else child[0] for k, child in enumerate(children)]
        _call(v, part, leaders, [range(v.chunks)], first)
    _down(v, near, leader, parts)


def _exchange(v: View, group: Groups, load: Load, parts: Parts) -> None:
    """All-to-all in one group, where `load` says which chunks go from one of its ranks to another."""
    if _flat(group):
        pairs = [[s * v.size + t for s, t in load(source, target)] for source in group for target in group]
        return _call(v, _part("alltoall", parts, group), group, pairs)
    children = [leaves(child) for child in group]
    mine, nearest = v.within(group)
    near = leaves(nearest)
    behind: dict[int, list[int]] = {rank: [] for rank in near}  # the ranks that each near one is the relay to
    for child in children:
        for k, rank in enumerate(child):
            behind[_at(near, k, len(child))].append(rank)

    def to_relay(source: int, relay: int) -> list[tuple[int, int]]:
        return [chunk for target in behind[relay] for chunk in load(source, target)]

    _exchange(v, nearest, to_relay, parts)

    def cross(step: int) -> None:
        after, before = children[(mine + step) % len(children)], children[mine - step]
        relay = _at(before, v.place(near), len(near))
        with v.round():
            for target in after:
                if target in behind[v.rank]:
                    v.send([chunk for source in near for chunk in load(source, target)], to=target)
            v.recv([chunk for source in before for chunk in load(source, v.rank)], frm=relay)

    steps = [partial(cross, step) for step in range(1, len(children))]
    if _part("alltoall", parts, group).name == "direct":
        v.together(*steps)
    else:
        for step in steps:
            step()


def _call(v: View, part: Algorithm, ranks: Sequence[int], blocks: Sequence[Chunks], root: int = 0) -> None:
    """Let an algorithm write on some ranks, each block in as many pieces as it wants."""
    cut = part.cut(len(ranks), None)
    pieces = [block[len(block) * j // cut : len(block) * (j + 1) // cut] for block in blocks for j in range(cut)]
    part.write(v.sub(ranks, pieces, root))


def _groups(v: View) -> Groups:
    assert v.groups is not None
    return v.groups


def _flat(group: Groups) -> bool:
    return not isinstance(group[0], tuple)  # its members are all ranks, or all groups


def _at(child: Sequence[int], k: int, n: int) -> int:
    """The rank of a group that stands for the k-th of the n ranks of another one."""
    return child[k * len(child) // n]


def _height(group: Groups | int) -> int:
    if not isinstance(group, tuple):
        return 0
    return 1 if _flat(group) else 1 + max(map(_height, group))


def _part(collective: str, parts: Parts, group: Groups) -> Algorithm:
    part = find(collective, parts[min(_height(group), len(parts)) - 1])
    if part.grouped:
        raise InvalidArgument("a hierarchy is not made of hierarchies: write its levels into the groups")
    return part


def _allreduce_cut(parts: Parts, size: int, groups: Groups) -> int:
    cut = _part("allreduce", parts, groups).cut(len(groups), None)
    return cut if _flat(groups) else cut * max(len(leaves(child)) for child in groups)


def _broadcast_cut(parts: Parts, size: int, groups: Groups) -> int:
    cut = _part("broadcast", parts, groups).cut(len(groups), None)
    return lcm(cut, *(_broadcast_cut(parts, size, child) for child in groups if not isinstance(child, int)))


def _one(parts: Parts, size: int, groups: Groups) -> int:
    return 1


def _enter(
    collective: str,
    compose: Callable[[View, Parts], None],
    defaults: Parts = ("bruck",),
    cut: Callable[[Parts, int, Groups], int] = _one,
    most: int = 0,
) -> None:
    def of(name: str, parts: Parts) -> Algorithm:
        def write(v: View) -> None:
            compose(v, parts)

        about = (compose.__doc__ or "").partition("\n")[0]
        return Algorithm(name, collective, write, partial(cut, parts), about, CITE, grouped=True, most=most)

    @cache
    def build(*parts: str) -> Algorithm:
        return of(f"hierarchical({', '.join(parts)})", parts)

    add_family(of("hierarchical", defaults), build)


_enter("allgather", allgather)
_enter("reduce_scatter", reduce_scatter)
_enter("allreduce", allreduce, cut=_allreduce_cut)
_enter("broadcast", broadcast, ("binomial",), _broadcast_cut)
_enter("reduce", reduce, ("binomial",), _broadcast_cut)
_enter("barrier", barrier, ("binomial", "dissemination"))
_enter("alltoall", alltoall, ("pairwise", "direct"), most=256)
