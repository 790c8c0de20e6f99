"""Topocomm: a communicator whose ranks have neighbours, and the collectives among these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.buffer import Blocks, as_array, as_blocks
from ..data.layout import give_back
from ..errors import InvalidArgument
from . import groups, mixed, objects
from .comm import Comm
from .persistent import persistent
from .request import All, Request


class Topocomm(Comm):
    """A communicator whose ranks have neighbours: those that blocks come from, and those that they go to, in order.

    Neighbourhood collectives go by messages to these, on a communicator of their own. Where there is no neighbour
    (PROC_NULL, at the edge of a grid), a block of recvbuf is left as it is. A rank may be a neighbour several times:
    its blocks then go in the order in which it stands among the neighbours on both sides.
    """

    _neighbourly: Comm | None = None

    @property
    def inedges(self) -> list[int]:
        """The ranks from which blocks come, in order."""
        raise NotImplementedError

    @property
    def outedges(self) -> list[int]:
        """The ranks to which blocks go, in order."""
        raise NotImplementedError

    @property
    def inoutedges(self) -> tuple[list[int], list[int]]:
        """The ranks from which blocks come, and those to which they go."""
        return self.inedges, self.outedges

    @property
    def indegree(self) -> int:
        """From how many neighbours blocks come."""
        return len(self.inedges)

    @property
    def outdegree(self) -> int:
        """To how many neighbours blocks go."""
        return len(self.outedges)

    @property
    def degrees(self) -> tuple[int, int]:
        """From how many neighbours blocks come, and to how many they go."""
        return self.indegree, self.outdegree

    def _tags(self) -> tuple[list[int], list[int]]:
        """Return what tells messages from one neighbour apart: a tag for each of inedges, and of outedges."""
        return _turns(self.inedges), _turns(self.outedges)

    # ---- arrays -------------------------------------------------------------------------------------------------

    def Neighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give this rank's block to all neighbours, and get one from each.

        Args:
            sendbuf: n elements.
            recvbuf: indegree * n elements.
        """
        self.Ineighbor_allgather(sendbuf, recvbuf).Wait()

    def Ineighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_allgather."""
        own = as_array(sendbuf, "sendbuf").reshape(-1)
        return self._exchange([own] * self.outdegree, _equal(recvbuf, self.indegree, "recvbuf", writes=True))

    def Neighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give this rank's block to all neighbours, and get one from each, where blocks differ in length.

        Args:
            sendbuf: this rank's block.
            recvbuf: [data, counts] or [data, (counts, displs)], one a neighbour.
        """
        self.Ineighbor_allgatherv(sendbuf, recvbuf).Wait()

    def Ineighbor_allgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_allgatherv."""
        own = as_array(sendbuf, "sendbuf").reshape(-1)
        into = as_blocks(recvbuf, self.indegree, "recvbuf", writes=True)
        return self._exchange([own] * self.outdegree, _cut(into))

    def Neighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a block to each neighbour, and get one from each.

        Args:
            sendbuf: outdegree * n elements.
            recvbuf: indegree * n elements.
        """
        self.Ineighbor_alltoall(sendbuf, recvbuf).Wait()

    def Ineighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_alltoall."""
        out = _equal(sendbuf, self.outdegree, "sendbuf")
        return self._exchange(out, _equal(recvbuf, self.indegree, "recvbuf", writes=True))

    def Neighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a block to each neighbour, and get one from each, where blocks differ in length.

        Args:
            sendbuf, recvbuf: [data, counts] or [data, (counts, displs)], one a neighbour.
        """
        self.Ineighbor_alltoallv(sendbuf, recvbuf).Wait()

    def Ineighbor_alltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_alltoallv."""
        out = as_blocks(sendbuf, self.outdegree, "sendbuf")
        into = as_blocks(recvbuf, self.indegree, "recvbuf", writes=True)
        return self._exchange(_cut(out), _cut(into))

    def Neighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a block to each neighbour, and get one from each, where each block has a datatype of its own.

        Args:
            sendbuf, recvbuf: [data, (counts, displs), types], one of each a neighbour, displacements in bytes; or
                [data, types].
        """
        self.Ineighbor_alltoallw(sendbuf, recvbuf).Wait()

    def Ineighbor_alltoallw(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_alltoallw."""
        here, leaving = mixed.places(sendbuf, self.outdegree, "sendbuf", writes=False)
        there, arriving = mixed.places(recvbuf, self.indegree, "recvbuf", writes=True)
        came = [np.empty(len(index), np.uint8) for index in arriving]
        edges = self.inedges
        request = self._exchange([here[index] for index in leaving], came)

        def unpack(_: object) -> None:
            for index, block, peer in zip(arriving, came, edges, strict=True):
                if peer >= 0:
                    there[index] = block
            give_back(there)

        return request.then(unpack)

    Neighbor_allgather_init = persistent(Ineighbor_allgather, binds=False)
    Neighbor_allgatherv_init = persistent(Ineighbor_allgatherv, binds=False)
    Neighbor_alltoall_init = persistent(Ineighbor_alltoall, binds=False)
    Neighbor_alltoallv_init = persistent(Ineighbor_alltoallv, binds=False)
    Neighbor_alltoallw_init = persistent(Ineighbor_alltoallw, binds=False)

    # ---- objects ------------------------------------------------------------------------------------------------

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """Give an object to all neighbours, and return one from each; None where there is none."""
        return self.neighbor_alltoall([sendobj] * self.outdegree)

    def neighbor_alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give an object to each neighbour, and return one from each; None where there is none."""
        sources, targets = self.inoutedges
        if len(sendobj) != len(targets):
            raise InvalidArgument(f"sendobj has {len(sendobj)} objects and there are {len(targets)} neighbours")
        comm, (intags, outtags) = self._between_neighbours(), self._tags()
        received = [objects.irecv(comm, None, *edge) for edge in zip(sources, intags, strict=True)]
        sent = [objects.isend(comm, each, *edge) for each, *edge in zip(sendobj, targets, outtags, strict=True)]
        Request.Waitall(sent)
        return Request.waitall(received)

    # ---- how it is done -----------------------------------------------------------------------------------------

    def _exchange(self, out: list[Any], into: list[Any]) -> Request:
        """Start to send a block to each neighbour and to receive one from each."""
        comm, (intags, outtags) = self._between_neighbours(), self._tags()
        received = [comm.Irecv(block, *edge) for block, *edge in zip(into, self.inedges, intags, strict=True)]
        sent = [comm.Isend(block, *edge) for block, *edge in zip(out, self.outedges, outtags, strict=True)]
        return All([*sent, *received])

    def _between_neighbours(self) -> Comm:
        """Return the communicator whose messages the program does not see, made at the first call."""
        if self._neighbourly is None:
            self._neighbourly = groups.among(self, range(self.size), "neighbours", Comm)
        return self._neighbourly

    def Free(self) -> None:
        """Leave the communicator, as of Comm."""
        if self._neighbourly is not None:
            self._neighbourly.Free()
        super().Free()


def _turns(edges: Sequence[int]) -> list[int]:
    """Return for each of some ranks how often it stands before in the list."""
    before: Counter[int] = Counter()
    turns = []
    for rank in edges:
        turns.append(before[rank])
        before[rank] += 1
    return turns


def _equal(buffer: Any, degree: int, what: str, *, writes: bool = False) -> list[Any]:
    """Return a buffer's equal blocks."""
    if not degree:
        return []
    array = as_array(buffer, what, writes=writes, blocks=degree).reshape(-1)
    if array.size % degree:
        raise InvalidArgument(f"{what} has {array.size} elements, which are not those of {degree} blocks")
    return np.split(array, degree)


def _cut(blocks: Blocks) -> list[Any]:
    counts, displs = blocks.counts.tolist(), blocks.displs.tolist()
    return [blocks.data[at : at + count] for count, at in zip(counts, displs, strict=True)]
