"""How messages find their way: one class for each family of topologies, each without a table of pairs.

All of them model several equal ways between two vertices, such as the spines between two leaf switches that ECMP
chooses from, or parallel cables, as one link with the bandwidth of all. So traffic spreads over them perfectly: what is
left out is that a hash puts two large flows on one cable while another one is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .model import Ends, Ids, Links, Offsets, Paths, Reals, Routing

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.integer]

BATCH = 1 << 24  # elements of the largest scratch array of a class that works in batches


class Tree:
    """Up to the lowest common ancestor, and down again: any tree, or forest, that has the ranks as leaves.

    Args:
        size: ranks.
        parent: of each vertex its parent, -1 for a root.
        up, down: of each vertex the link to its parent, and the link from it (not looked at for a root).
    """

    def __init__(self, size: int, parent: Ids, up: Ids, down: Ids) -> None:
        above = [np.arange(size, dtype=np.int32)]
        while (above[-1] >= 0).any():
            if len(above) > len(parent):
                raise InvalidArgument("these parents make no tree: somebody is his own ancestor")
            above.append(np.where(above[-1] >= 0, parent[above[-1]], np.int32(-1)))
        chain = np.array(above[:-1], np.int32)  # [steps up, rank], then -1
        self._depth = (chain >= 0).sum(axis=0, dtype=np.int32) - 1
        height = len(chain)
        ranks = np.arange(size)
        levels = self._depth[None, :] - np.arange(height, dtype=np.int32)[:, None]  # the depth of chain[step, rank]
        deep = levels >= 0
        # The vertex of each depth on the way from the root to a rank. Below a rank stands the rank, which no other has.
        self._vertex = np.tile(ranks.astype(np.int32), (height, 1))
        self._vertex[levels[deep], np.broadcast_to(ranks, levels.shape)[deep]] = chain[deep]
        self._up, self._down = up[self._vertex], down[self._vertex]

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the paths of pairs of ranks; raise InvalidArgument if two are in different trees of a forest."""
        height = len(self._vertex)
        batch = max(1, BATCH // max(1, 2 * height))
        return _in_batches(self._some_paths, source, target, batch)

    def sums(self, links: Links, source: Ids, target: Ids) -> Ends:
        """Return what the path of each pair comes to: from rank to ancestor and back, without the paths."""
        common = self._common(source, target) - 1  # the depth of the lowest common ancestor
        apart = source != target
        latency, bandwidth = np.zeros(len(source)), np.full(len(source), np.inf)
        for rank, way in ((source, self._up), (target, self._down)):
            taken = (
                np.arange(len(way))[:, None] <= self._depth
            )  # the links above a rank, by the depth of their lower end
            slow = np.where(taken, links.latency[way], 0.0)
            wide = np.where(taken, links.bandwidth[way], np.inf)
            slow = np.append(np.cumsum(slow[::-1], axis=0)[::-1], np.zeros((1, slow.shape[1])), axis=0)
            wide = np.minimum.accumulate(wide[::-1], axis=0)[::-1]
            latency += slow[common + 1, rank]
            bandwidth = np.minimum(bandwidth, wide[np.minimum(common + 1, len(way) - 1), rank])
        first, last = self._up[self._depth[source], source], self._down[self._depth[target], target]
        return Ends(*(np.where(apart, part, 0) for part in (latency, bandwidth, first, last)))

    def _common(self, source: Ids, target: Ids) -> Ids:
        """How many ancestors both have: the depth where they part."""
        common = np.zeros(len(source), np.int32)
        for level in self._vertex:
            common += level[source] == level[target]
        if ((source != target) & (common == 0)).any():
            raise InvalidArgument("two ranks have no common ancestor: these switches make several trees")
        return common

    def _some_paths(self, source: Ids, target: Ids) -> Paths:
        height = len(self._vertex)
        common = self._common(source, target)
        apart = source != target
        links = np.empty((len(source), 2 * (height - 1)), np.int32)
        taken = np.empty(links.shape, np.bool_)
        for column, level in enumerate(range(height - 1, 0, -1)):
            links[:, column] = self._up[level][source]
            taken[:, column] = (common <= level) & (level <= self._depth[source]) & apart
        for column, level in enumerate(range(1, height), height - 1):
            links[:, column] = self._down[level][target]
            taken[:, column] = (common <= level) & (level <= self._depth[target]) & apart
        return _pick(links, taken)


class Torus:
    """Dimension by dimension, the first one first, the shortest way round; half way round goes upwards.

    Ranks are the vertices, numbered with the last dimension fastest. Link numbers: `torus_links` makes them.

    Args:
        shape: the length of each dimension.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        size = int(np.prod(shape))
        self._stride = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        self._upward, self._downward, first = [], [], 0
        for length in shape:
            self._upward.append(first)
            first += size if length > 1 else 0
            self._downward.append(first)  # in a dimension of two, both ways are the same cable
            first += size if length > 2 else 0

    def ends(self) -> tuple[Ids, Ids, Ids]:
        """Return sources, targets and dimensions of all links, in the order of their numbers."""
        ranks = np.arange(int(np.prod(self.shape)), dtype=np.int32)
        sources, targets, axes = [], [], []
        for axis, length in enumerate(self.shape):
            at = ranks // self._stride[axis] % length
            for way in (1, -1)[: 0 if length == 1 else 1 if length == 2 else 2]:
                sources.append(ranks)
                targets.append(ranks + ((at + way) % length - at) * self._stride[axis])
                axes.append(np.full(len(ranks), axis, np.int32))
        none = [np.empty(0, np.int32)]
        return tuple(np.concatenate(part or none).astype(np.int32) for part in (sources, targets, axes))  # type: ignore[return-value]

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the paths of pairs of ranks."""
        return _in_batches(self._some_paths, source, target, max(1, BATCH // max(1, sum(self.shape) // 2)))

    def _some_paths(self, source: Ids, target: Ids) -> Paths:
        hops, ways = [], []
        for length, stride in zip(self.shape, self._stride, strict=True):
            ahead = (target // stride - source // stride) % length
            upwards = 2 * ahead <= length
            hops.append(np.where(upwards, ahead, length - ahead))
            ways.append(upwards)
        start = _starts(sum(hops, np.zeros(len(source), np.int64)))
        links = np.empty(start[-1], np.int32)
        here, done = source.astype(np.int64), start[:-1].copy()
        for axis, (length, stride) in enumerate(zip(self.shape, self._stride, strict=True)):
            count = hops[axis]
            pair = np.repeat(np.arange(len(source)), count)
            step = np.arange(len(pair)) - np.repeat(_starts(count)[:-1], count)
            at, goal = here // stride % length, target // stride % length
            upwards = ways[axis][pair]
            coordinate = (at[pair] + np.where(upwards, step, -step)) % length
            vertex = (here - at * stride)[pair] + coordinate * stride
            links[done[pair] + step] = vertex + np.where(upwards, self._upward[axis], self._downward[axis])
            here += (goal - at) * stride
            done += count
        return Paths(start, links)


class Dragonfly:
    """Minimal routing: within the group to the router that has the global link, over it, and within the other group.

    The way of Kim, Dally, Scott and Abts, "Technology-Driven, Highly-Scalable Dragonfly Topology", ISCA 2008, §3.
    Global port k of each group leads k % (groups - 1) + 1 groups further on, so that the groups are alike; where two
    groups have several links, ranks take the one nearest by number to their router.

    Link numbers: ranks' ways up; their ways down; local links by (group, from, to); global links by (group, port).

    Args:
        groups, routers, ranks: how many groups there are, routers in each, and ranks on each router.
        ports: global links of each router.
    """

    def __init__(self, groups: int, routers: int, ranks: int, ports: int) -> None:
        self.shape = (groups, routers, ranks)
        self._groups, self._routers, self._ranks, self._ports = groups, routers, ranks, ports
        self.size = groups * routers * ranks
        self.copies = routers * ports // (groups - 1) if groups > 1 else 0
        self._local = 2 * self.size
        self._global = self._local + groups * routers * (routers - 1)

    def ends(self) -> tuple[Ids, Ids, npt.NDArray[np.uint8]]:
        """Return sources, targets and kinds (0: port, 1: local, 2: global) of all links, in the order of numbers."""
        ranks = np.arange(self.size)
        attached = self.size + ranks // self._ranks
        local = (self._groups, self._routers, self._routers - 1)
        group, here, there = (axis.reshape(-1) for axis in np.indices(local))
        there += there >= here  # a router has no link to itself
        first = self.size + group * self._routers
        count = self.copies * (self._groups - 1)
        origin, port = (axis.reshape(-1) for axis in np.indices((self._groups, count)))
        onward, arrival = self._across(origin, port)
        sources = [ranks, attached, first + here, self.size + origin * self._routers + port // self._ports]
        targets = [attached, ranks, first + there, self.size + onward * self._routers + arrival // self._ports]
        kinds = np.repeat(np.array([0, 0, 1, 2], np.uint8), [len(part) for part in sources])
        return np.concatenate(sources).astype(np.int32), np.concatenate(targets).astype(np.int32), kinds

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the paths of pairs of ranks."""
        from_router, to_router = source // self._ranks, target // self._ranks
        (origin, leave), (goal, arrive) = divmod(from_router, self._routers), divmod(to_router, self._routers)
        away = origin != goal
        port = (goal - origin - 1) % self._groups + leave * self.copies // self._routers * (self._groups - 1)
        port = np.where(away, port, 0)
        exit_router = np.where(away, port // self._ports, arrive)
        entry_router = np.where(away, self._across(origin, port)[1] // self._ports, arrive)
        links = np.stack(
            [
                source,
                self._within(origin, leave, exit_router),
                self._global + origin * self.copies * (self._groups - 1) + port,
                self._within(goal, entry_router, arrive),
                self.size + target,
            ],
            axis=1,
        )
        apart = source != target
        taken = np.stack([apart, leave != exit_router, away, entry_router != arrive, apart], axis=1)
        return _pick(links.astype(np.int32), taken)

    def _within(self, group: Numbers, here: Numbers, there: Numbers) -> Numbers:
        """Return the number of the link from one router of a group to another one."""
        return self._local + (group * self._routers + here) * (self._routers - 1) + there - (there > here)

    def _across(self, group: Numbers, port: Numbers) -> tuple[Numbers, Numbers]:
        """Return the group, and its port, at the other end of a global port."""
        others = max(1, self._groups - 1)
        copy, ahead = divmod(port, others)
        return (group + ahead + 1) % self._groups, copy * others + others - 1 - ahead


class Hosts:
    """One network within hosts, another one across them.

    Args:
        inside, across: routing among the ranks of a host, and of one rank of each host to those of others.
        host: the host of each rank.
        relay: whether a message to another host goes first, within its own, to the rank with the number of its target
            there, and so leaves on the rail of its target, which NCCL calls PXN. All hosts are of one size then.
    """

    def __init__(self, inside: Routing, across: Routing, host: Ids, relay: bool = False) -> None:
        self._inside, self._across, self._host, self.relay = inside, across, host, relay
        self._first = np.searchsorted(host, host).astype(np.int32) if relay else None  # rank of each rank's host

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the paths of pairs of ranks."""
        near = self._host[source] == self._host[target]
        leaves = source
        if self._first is not None:
            leaves = self._first[source] + target - self._first[target]
        middle = np.where(near, target, leaves)
        return _joined(self._inside.paths(source, middle), self._across.paths(middle, target))


class Graph:
    """Whatever takes the fewest seconds, for any graph: latencies, and a message of a reference size on each link.

    Ranks pass on messages for others only where there is no way around them. Among equally fast ways the one by the
    vertices of lower numbers wins. A table holds the next link of each vertex towards each rank.

    Args:
        size: ranks.
        vertices: ranks and switches.
        links: all links, each of finite bandwidth.

    Raises:
        InvalidArgument: there are more than `Graph.MOST` vertices, or a rank cannot be reached.
    """

    MOST = 4096  # vertices: the table has 64 MiB then
    MESSAGE = 1 << 20  # bytes of the reference message
    RELAY = 10.0  # seconds, more than any way around a rank takes
    TIE = 1e-10  # seconds that make no difference: rounding

    def __init__(self, size: int, vertices: int, links: Links) -> None:
        if vertices > self.MOST:
            raise InvalidArgument(
                f"{vertices} ranks and switches are too many for free-form routing, which takes {self.MOST}: "
                "describe a tree, or use a generator"
            )
        self._links = links
        seconds = links.latency + self.MESSAGE / links.bandwidth + np.where(links.source < size, self.RELAY, 0)
        order = np.lexsort((links.target, links.source))
        self._next = np.full((vertices, size), -1, np.int32)
        batch = max(1, BATCH // max(1, len(order)))
        for first in range(0, size, batch):
            targets = np.arange(first, min(size, first + batch))
            self._next[:, targets] = self._towards(targets, vertices, order, seconds)
        unreached = np.argwhere(self._next[:size] < 0)
        unreached = unreached[unreached[:, 0] != unreached[:, 1]]
        if len(unreached):
            raise InvalidArgument(f"there is no way from rank {unreached[0][0]} to rank {unreached[0][1]}")

    def _towards(self, targets: Numbers, vertices: int, order: npt.NDArray[np.intp], seconds: Reals) -> Ids:
        """Return the next link of each vertex towards each target, by relaxing all links until nothing changes."""
        source, target = self._links.source[order], self._links.target[order]
        heads = np.flatnonzero(np.diff(source, prepend=-1))
        distance = np.full((vertices, len(targets)), np.inf)
        distance[targets, np.arange(len(targets))] = 0
        while True:
            through = seconds[order][:, None] + distance[target]
            best = distance.copy()
            best[source[heads]] = np.minimum(distance[source[heads]], np.minimum.reduceat(through, heads, axis=0))
            if not (best < distance - self.TIE).any():
                break
            distance = best
        chosen = np.full(distance.shape, -1, np.int32)
        fast = (through <= distance[source] + self.TIE) & np.isfinite(through)
        for row in range(len(order) - 1, -1, -1):  # so that the first in order has the last word
            chosen[source[row]] = np.where(fast[row], order[row], chosen[source[row]])
        return chosen

    def paths(self, source: Ids, target: Ids) -> Paths:
        """Return the paths of pairs of ranks."""
        return _in_batches(self._some_paths, source, target, BATCH // 64)

    def _some_paths(self, source: Ids, target: Ids) -> Paths:
        columns: list[Ids] = []
        here = source.copy()
        while (under_way := here != target).any():
            link = np.where(under_way, self._next[here, target], np.int32(-1))
            columns.append(link)
            here = np.where(under_way, self._links.target[link], here)
        links = np.array(columns, np.int32).T.reshape(len(source), len(columns))
        return _pick(links, links >= 0)


def _starts(lengths: Numbers) -> Offsets:
    start = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=start[1:])
    return start


def _pick(links: Ids, taken: Bools) -> Paths:
    """Return as paths the links of each row that are taken."""
    return Paths(_starts(taken.sum(axis=1)), links[taken])


def _joined(first: Paths, second: Paths) -> Paths:
    """Return paths that take the first one's links and then the second one's."""
    before, after = np.diff(first.start), np.diff(second.start)
    start = first.start + second.start
    links = np.empty(start[-1], np.int32)
    links[np.arange(len(first.links)) + np.repeat(second.start[:-1], before)] = first.links
    links[np.arange(len(second.links)) + np.repeat(first.start[1:], after)] = second.links
    return Paths(start, links)


def _in_batches(paths: Callable[[Ids, Ids], Paths], source: Ids, target: Ids, batch: int) -> Paths:
    """Return the paths of all pairs, which `paths` finds for so many at once as fit in scratch memory."""
    if len(source) <= batch:
        return paths(source, target)
    parts = [paths(source[i : i + batch], target[i : i + batch]) for i in range(0, len(source), batch)]
    lengths = np.concatenate([np.diff(part.start) for part in parts])
    return Paths(_starts(lengths), np.concatenate([part.links for part in parts]))
