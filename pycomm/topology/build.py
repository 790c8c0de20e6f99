"""Putting machines together: layers of switches over ranks, and what follows from them, groups and rotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..schedules.registry import Groups
from .model import Ids, Links, Routing, Topology
from .routing import Hosts, Tree


class Wire(NamedTuple):
    """One direction of a cable: bytes per second, and seconds."""

    bandwidth: float
    latency: float


class _Layer(NamedTuple):
    below: Ids  # vertices,
    above: Ids  # the switch over each of them,
    first: int  # the number of the link up from the first one; those down follow those up
    wire: Wire
    kind: str
    classes: Ids  # which switch each rank is under


class Cluster:
    """Hosts, and a tree of switches over their network ports, put on layer by layer.

    Args:
        sizes: ranks of each host.
        nics: of a host, but no more than it has ranks.
        inside: a rank's way to the others of its host.
        port: a network card's way to its switch.
        pcie: a rank's way to its card, where ranks share several.
        relay: whether messages change rails within the host (see `Hosts`); each rank has a card then.
    """

    def __init__(
        self, sizes: npt.ArrayLike, nics: int, inside: Wire, port: Wire, pcie: Wire, *, relay: bool = False
    ) -> None:
        sizes = np.asarray(sizes, np.int32)
        self._host = host = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.size = len(host)
        self._relay, self._wire, self._kind = relay, port, "nic"
        self._labels = [f"rank {rank}" for rank in range(self.size)]
        self._layers: list[_Layer] = []
        self._near = [host]  # partitions of the ranks, the finest one first
        ranks = np.arange(self.size, dtype=np.int32)
        self._top, self._classes = ranks, ranks  # the vertices on top, and which of them each rank is under
        self._within = int(len(sizes) < self.size)  # how many layers are only of use inside of hosts
        if self._within:
            self._put(host, inside, "inside", "host")
            if nics > 1 or relay:
                self._top, self._classes = ranks, ranks
            else:
                self._within = 0
        if nics > 1 and int(sizes.max()) > nics:
            each = np.minimum(sizes, nics)
            number = ranks - np.searchsorted(host, host).astype(np.int32)
            card = (np.cumsum(each) - each)[host] + number * each[host] // sizes[host]
            self._put(card.astype(np.int32), pcie, "pcie", "nic")

    @property
    def nports(self) -> int:
        """How many vertices are on top: network cards at first, then the switches of the last layer."""
        return len(self._top)

    def layer(self, above: Ids, name: str, wire: Wire, near: Ids | None = None) -> None:
        """Put switches on top.

        Args:
            above: of each vertex on top which of the new switches it is joined to.
            name: what the new switches are called.
            wire: what will join each of the new switches to the layer that is put on them.
            near: a number for each rank, equal for those that this layer joins nearly; default: the switch they are
                under.
        """
        self._put(above, self._wire, self._kind, name)
        self._near.append(self._classes if near is None else near)
        self._wire, self._kind = wire, name

    def _put(self, above: Ids, wire: Wire, kind: str, name: str) -> None:
        first = self._layers[-1].first + 2 * len(self._layers[-1].below) if self._layers else 0
        count, vertex = int(above.max()) + 1, len(self._labels)
        self._labels += [name] if count == 1 else [f"{name} {i}" for i in range(count)]
        self._classes = above[self._classes]
        self._layers.append(_Layer(self._top, above + np.int32(vertex), first, wire, kind, self._classes))
        self._top = np.arange(vertex, vertex + count, dtype=np.int32)

    def topology(self, name: str) -> Topology:
        """Return the machine."""
        kinds = tuple(dict.fromkeys(layer.kind for layer in self._layers))
        pairs = [(layer.below, layer.above) for layer in self._layers]
        counts = [2 * len(layer.below) for layer in self._layers]
        none = [np.empty(0, np.int32)]
        links = Links(
            np.concatenate([end for below, above in pairs for end in (below, above)] or none),
            np.concatenate([end for below, above in pairs for end in (above, below)] or none),
            np.repeat([layer.wire.bandwidth for layer in self._layers], counts).astype(float),
            np.repeat([layer.wire.latency for layer in self._layers], counts).astype(float),
            np.repeat([kinds.index(layer.kind) for layer in self._layers], counts).astype(np.uint8),
        )
        routing: Routing = self._tree(self._layers)
        if self._within:
            inside, across = self._tree(self._layers[:1]), self._tree(self._layers[1:])
            routing = Hosts(inside, across, self._host, relay=self._relay)
        return Topology(
            name, self.size, len(self._labels), links, kinds, routing, nest(self._near[::-1]), self._host,
            np.full(self.size, np.inf), rotation([layer.classes for layer in self._layers]), self._labels,
        )  # fmt: skip

    def _tree(self, layers: Sequence[_Layer]) -> Tree:
        parent, up, down = np.full((3, len(self._labels)), -1, np.int32)
        for layer in layers:
            number = np.arange(len(layer.below), dtype=np.int32)
            parent[layer.below] = layer.above
            up[layer.below] = layer.first + number
            down[layer.below] = layer.first + len(number) + number
        return Tree(self.size, parent, up, down)


def nest(partitions: Sequence[Ids]) -> Groups:
    """Return nested groups of ranks.

    Args:
        partitions: a number for each rank, equal for near ranks; the coarsest first, each a refinement of the one
            before. Those that tell nothing are left out: all ranks together, each alone, or the same as before.
    """
    size = len(partitions[0])
    counts = [len(np.unique(partition)) for partition in partitions]
    kept = [
        partition
        for partition, count, before in zip(partitions, counts, [1, *counts], strict=False)
        if before < count < size
    ]
    nested: list[tuple[int, Groups]] = [(rank, (rank,)) for rank in range(size)]  # (one of its ranks, the group)
    for level, partition in enumerate(reversed(kept)):
        members: dict[int, list[tuple[int, Groups]]] = {}
        for rank, group in nested:
            members.setdefault(int(partition[rank]), []).append((rank, group))
        nested = [
            (first[0][0], tuple(group if level else group[0] for _, group in first)) for first in members.values()
        ]
    return tuple(group if kept else group[0] for _, group in nested)


def rotation(partitions: Sequence[npt.NDArray[np.generic]]) -> int:
    """Return the smallest q, a divisor of the size, such that r -> r + q (mod size) carries each partition over."""
    size = len(partitions[0]) if partitions else 1
    for q in range(1, size):
        if size % q == 0 and all(_kept(partition, q) for partition in partitions):
            return q
    return size


def _kept(partition: npt.NDArray[np.generic], q: int) -> bool:
    _, number = np.unique(partition, return_inverse=True)
    image = np.full(number.max() + 1, -1)
    turned = np.roll(number, -q)
    image[number] = turned
    return bool((image[number] == turned).all()) and len(np.unique(image)) == len(image)
