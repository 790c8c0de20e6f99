"""Ranks that are the nodes of a graph: Graphcomm, where all know all edges, and Distgraphcomm, where each its own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidArgument
from ..world import World
from . import groups
from .comm import Comm
from .neighbours import Topocomm

if TYPE_CHECKING:
    from ..selection.machine import Machine

GRAPH, DIST_GRAPH = 2, 3  # what Get_topology returns


class Graphcomm(Topocomm):
    """A communicator whose ranks are a graph's nodes, all of whose edges every rank knows. Made by Create_graph.

    Attributes:
        index: for each node, where its neighbours end among the edges.
        edges: neighbours, one node's after the other's.
    """

    def __init__(
        self,
        world: World,
        ident: int,
        ranks: Sequence[int],
        machine: Machine | None = None,
        *,
        index: Sequence[int],
        edges: Sequence[int],
    ) -> None:
        super().__init__(world, ident, ranks, machine)
        self.index, self.edges = list(index), list(edges)

    def _maker(self) -> Callable[..., Comm]:
        return functools.partial(Graphcomm, index=self.index, edges=self.edges)

    def Get_topology(self) -> int:
        """Return GRAPH."""
        return GRAPH

    def Get_dims(self) -> tuple[int, int]:
        """Return how many nodes there are, and how many edges."""
        return len(self.index), len(self.edges)

    def Get_topo(self) -> tuple[list[int], list[int]]:
        """Return `index` and `edges`."""
        return self.index, self.edges

    def Get_neighbors_count(self, rank: int) -> int:
        """Return how many neighbours a node has."""
        return len(self.Get_neighbors(rank))

    def Get_neighbors(self, rank: int) -> list[int]:
        """Return a node's neighbours."""
        if not 0 <= rank < self.size:
            raise InvalidArgument(f"there is no rank {rank} in a communicator of {self.size}")
        return self.edges[self.index[rank - 1] if rank else 0 : self.index[rank]]

    @property
    def dims(self) -> tuple[int, int]:
        """How many nodes there are, and how many edges."""
        return self.Get_dims()

    @property
    def nnodes(self) -> int:
        """How many nodes."""
        return len(self.index)

    @property
    def nedges(self) -> int:
        """How many edges."""
        return len(self.edges)

    @property
    def topo(self) -> tuple[list[int], list[int]]:
        """`index` and `edges`."""
        return self.Get_topo()

    @property
    def nneighbors(self) -> int:
        """How many neighbours this rank has."""
        return len(self.neighbors)

    @property
    def neighbors(self) -> list[int]:
        """This rank's neighbours."""
        return self.Get_neighbors(self.rank)

    @property
    def inedges(self) -> list[int]:
        """The ranks from which blocks come: this rank's neighbours."""
        return self.neighbors

    @property
    def outedges(self) -> list[int]:
        """The ranks to which blocks go: this rank's neighbours."""
        return self.neighbors


class Distgraphcomm(Topocomm):
    """A communicator whose ranks are a graph's nodes, each of which knows its own edges.

    Made by Create_dist_graph_adjacent and Create_dist_graph.
    """

    def __init__(
        self,
        world: World,
        ident: int,
        ranks: Sequence[int],
        machine: Machine | None = None,
        *,
        sources: Sequence[int],
        destinations: Sequence[int],
        weights: tuple[list[int], list[int]] | None = None,
    ) -> None:
        super().__init__(world, ident, ranks, machine)
        self._sources, self._destinations, self._weights = list(sources), list(destinations), weights

    def _maker(self) -> Callable[..., Comm]:
        return functools.partial(
            Distgraphcomm, sources=self._sources, destinations=self._destinations, weights=self._weights
        )

    def Get_topology(self) -> int:
        """Return DIST_GRAPH."""
        return DIST_GRAPH

    def Get_dist_neighbors_count(self) -> tuple[int, int, bool]:
        """Return from how many neighbours blocks come, to how many they go, and whether edges have weights."""
        return len(self._sources), len(self._destinations), self._weights is not None

    def Get_dist_neighbors(self) -> tuple[list[int], list[int], tuple[list[int], list[int]] | None]:
        """Return the neighbours from which blocks come, those to which they go, and both's weights if there are any."""
        return self._sources, self._destinations, self._weights

    @property
    def inedges(self) -> list[int]:
        """The ranks from which blocks come, in order."""
        return self._sources

    @property
    def outedges(self) -> list[int]:
        """The ranks to which blocks go, in order."""
        return self._destinations


def create_graph(comm: Comm, index: Sequence[int], edges: Sequence[int]) -> Graphcomm | None:
    """Make a communicator of the first ranks, as many as nodes; see Comm.Create_graph."""
    ends, targets = [int(each) for each in index], [int(each) for each in edges]
    rising = all(a <= b for a, b in itertools.pairwise([0, *ends]))
    if len(ends) > comm.size or not rising or (ends and ends[-1] != len(targets)):
        raise InvalidArgument(
            f"index {ends} is not that of a graph of at most {comm.size} nodes and {len(targets)} edges: it says for "
            "each node where its edges end"
        )
    _check_ranks(targets, len(ends), "edges")
    comm._splits += 1
    if comm.rank >= len(ends):
        return None
    make = functools.partial(Graphcomm, index=ends, edges=targets)
    return groups.among(comm, range(len(ends)), f"graph {comm._splits}", make)


def create_dist_graph_adjacent(
    comm: Comm,
    sources: Sequence[int],
    destinations: Sequence[int],
    sourceweights: Sequence[int] | None,
    destweights: Sequence[int] | None,
) -> Distgraphcomm:
    """Make a communicator where each rank says its own edges; see Comm.Create_dist_graph_adjacent."""
    incoming, outgoing = [int(each) for each in sources or ()], [int(each) for each in destinations or ()]
    _check_ranks(incoming, comm.size, "sources")
    _check_ranks(outgoing, comm.size, "destinations")
    weights = None
    if sourceweights is not None or destweights is not None:
        weights = [int(each) for each in sourceweights or ()], [int(each) for each in destweights or ()]
        if (len(weights[0]), len(weights[1])) != (len(incoming), len(outgoing)):
            raise InvalidArgument("sourceweights and destweights must have a weight for each edge")
    return _distributed(comm, incoming, outgoing, weights)


def create_dist_graph(
    comm: Comm,
    sources: Sequence[int],
    degrees: Sequence[int],
    destinations: Sequence[int],
    weights: Sequence[int] | None,
) -> Distgraphcomm:
    """Make a communicator where any rank says any edges; see Comm.Create_dist_graph."""
    begins = np.repeat(np.asarray(sources, np.int64), np.asarray(degrees, np.int64))
    ends = np.asarray(destinations, np.int64)
    if len(begins) != len(ends) or (weights is not None and len(weights) != len(ends)):
        raise InvalidArgument(f"degrees {list(degrees)} say {len(begins)} edges, and there are {len(ends)}")
    _check_ranks([*begins.tolist(), *ends.tolist()], comm.size, "sources and destinations")
    heavy = np.ones(len(ends), np.int64) if weights is None else np.asarray(weights, np.int64)
    said = np.stack([begins, ends, heavy], axis=1).reshape(-1)
    counts = np.empty((comm.size, 2), np.int64)
    comm.Allgather(np.array([said.size, weights is not None]), counts)
    everything = np.empty(int(counts[:, 0].sum()), np.int64)
    comm.Allgatherv(said, [everything, counts[:, 0]])
    edges = everything.reshape(-1, 3)
    incoming, outgoing = edges[edges[:, 1] == comm.rank], edges[edges[:, 0] == comm.rank]
    known = (incoming[:, 2].tolist(), outgoing[:, 2].tolist()) if counts[:, 1].any() else None
    return _distributed(comm, incoming[:, 0].tolist(), outgoing[:, 1].tolist(), known)


def _distributed(
    comm: Comm, sources: list[int], destinations: list[int], weights: tuple[list[int], list[int]] | None
) -> Distgraphcomm:
    comm._splits += 1
    make = functools.partial(Distgraphcomm, sources=sources, destinations=destinations, weights=weights)
    return groups.among(comm, range(comm.size), f"graph {comm._splits}", make)


def _check_ranks(ranks: Sequence[int], size: int, what: str) -> None:
    if any(not 0 <= rank < size for rank in ranks):
        raise InvalidArgument(f"{what} {list(ranks)} are not all ranks from 0 to {size - 1}")
