"""Ranks on a grid: Cartcomm, whose ranks have coordinates and neighbours, and Compute_dims, which shapes grids."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.buffer import as_array
from ..errors import InvalidArgument
from ..world import World
from . import groups, objects
from .comm import Comm
from .messages import PROC_NULL
from .request import All, Request

if TYPE_CHECKING:
    from ..selection.machine import Machine

CART = 1  # what Get_topology returns


class Cartcomm(Comm):
    """A communicator whose ranks lie on a grid, the last dimension's neighbours having neighbouring ranks.

    Made by Comm.Create_cart. Neighbourhood collectives go by messages to the two neighbours in each dimension, first
    that below (coordinate - 1), then that above, from which blocks come in the same order; where there is none, a block
    of recvbuf is left as it is.

    Attributes:
        dims: ranks in each dimension.
        periods: whether a dimension's last rank is next to its first.
        coords: this rank's coordinates.
    """

    def __init__(
        self,
        world: World,
        ident: int,
        ranks: Sequence[int],
        machine: Machine | None = None,
        *,
        dims: Sequence[int],
        periods: Sequence[bool],
    ) -> None:
        super().__init__(world, ident, ranks, machine)
        self.dims, self.periods = list(dims), [bool(each) for each in periods]
        self._neighbourly: Comm | None = None

    def _maker(self) -> Callable[..., Comm]:
        return functools.partial(Cartcomm, dims=self.dims, periods=self.periods)

    @property
    def dim(self) -> int:
        """How many dimensions."""
        return len(self.dims)

    ndim = dim

    @property
    def coords(self) -> list[int]:
        """This rank's coordinates."""
        return self.Get_coords(self.rank)

    @property
    def topo(self) -> tuple[list[int], list[bool], list[int]]:
        """Dimensions, periods and this rank's coordinates."""
        return self.Get_topo()

    def Get_dim(self) -> int:
        """Return how many dimensions there are."""
        return len(self.dims)

    def Get_topo(self) -> tuple[list[int], list[bool], list[int]]:
        """Return dimensions, periods and this rank's coordinates."""
        return self.dims, self.periods, self.coords

    def Get_topology(self) -> int:
        """Return CART."""
        return CART

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        """Return the rank at some coordinates, which wrap around in periodic dimensions."""
        if len(coords) != self.dim:
            raise InvalidArgument(f"{len(coords)} coordinates were given for {self.dim} dimensions")
        rank = 0
        for at, size, period in zip(coords, self.dims, self.periods, strict=True):
            if not period and not 0 <= at < size:
                raise InvalidArgument(f"coordinates {list(coords)} are not on the grid of {self.dims}")
            rank = rank * size + at % size
        return rank

    def Get_coords(self, rank: int) -> list[int]:
        """Return a rank's coordinates."""
        if not 0 <= rank < self.size:
            raise InvalidArgument(f"there is no rank {rank} in a communicator of {self.size}")
        coords = []
        for size in reversed(self.dims):
            coords.append(rank % size)
            rank //= size
        return coords[::-1]

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """Return whom to receive from and whom to send to, if all data moves along a dimension; or PROC_NULL.

        Args:
            direction: the dimension.
            disp: by how many ranks; downwards if negative.
        """
        if not 0 <= direction < self.dim:
            raise InvalidArgument(f"there is no dimension {direction} among {self.dim}")
        return self._along(direction, -disp), self._along(direction, disp)

    def _along(self, direction: int, disp: int) -> int:
        coords = self.coords
        coords[direction] += disp
        if not self.periods[direction] and not 0 <= coords[direction] < self.dims[direction]:
            return PROC_NULL
        return self.Get_cart_rank(coords)

    def Sub(self, remain_dims: Sequence[bool]) -> Cartcomm:
        """Return the communicator of the ranks that differ from this one in the remaining dimensions alone.

        No message is needed for it.
        """
        if len(remain_dims) != self.dim:
            raise InvalidArgument(f"remain_dims has {len(remain_dims)} and there are {self.dim} dimensions")
        ranges = [
            range(size) if stays else [at] for size, stays, at in zip(self.dims, remain_dims, self.coords, strict=True)
        ]
        members = [self.Get_cart_rank(coords) for coords in itertools.product(*ranges)]
        self._splits += 1
        make = functools.partial(
            Cartcomm,
            dims=list(itertools.compress(self.dims, remain_dims)),
            periods=list(itertools.compress(self.periods, remain_dims)),
        )
        return groups.whole(groups.among(self, members, f"sub {self._splits}/{members}", make))

    # ---- neighbourhood collectives ------------------------------------------------------------------------------

    @property
    def inoutedges(self) -> tuple[list[int], list[int]]:
        """The ranks from which blocks come, and those to which they go, in order."""
        return self.inedges, self.outedges

    @property
    def inedges(self) -> list[int]:
        """The ranks from which blocks come, in order."""
        return [rank for direction in range(self.dim) for rank in self.Shift(direction, 1)]

    @property
    def outedges(self) -> list[int]:
        """The ranks to which blocks go, in order."""
        return self.inedges

    def Neighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give this rank's block to all neighbours, and get one from each.

        Args:
            sendbuf: n elements.
            recvbuf: 2 * dim * n elements.
        """
        self.Ineighbor_allgather(sendbuf, recvbuf).Wait()

    def Ineighbor_allgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_allgather."""
        own = as_array(sendbuf, "sendbuf").reshape(-1)
        return self._exchange([own] * (2 * self.dim), self._divided(recvbuf, "recvbuf", writes=True))

    def Neighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a block to each neighbour, and get one from each.

        Args:
            sendbuf, recvbuf: 2 * dim * n elements.
        """
        self.Ineighbor_alltoall(sendbuf, recvbuf).Wait()

    def Ineighbor_alltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start a Neighbor_alltoall."""
        return self._exchange(self._divided(sendbuf, "sendbuf"), self._divided(recvbuf, "recvbuf", writes=True))

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """Give an object to all neighbours, and return one from each; None where there is none."""
        return self.neighbor_alltoall([sendobj] * (2 * self.dim))

    def neighbor_alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give an object to each neighbour, and return one from each; None where there is none."""
        if len(sendobj) != 2 * self.dim:
            raise InvalidArgument(f"sendobj has {len(sendobj)} objects and there are {2 * self.dim} neighbours")
        comm = self._between_neighbours()
        received = [objects.irecv(comm, None, peer, tag ^ 1) for tag, peer in enumerate(self.inedges)]
        sent = [objects.isend(comm, sendobj[tag], peer, tag) for tag, peer in enumerate(self.outedges)]
        Request.Waitall(sent)
        return Request.waitall(received)

    def _divided(self, buffer: Any, what: str, *, writes: bool = False) -> list[Any]:
        array = as_array(buffer, what, writes=writes, blocks=2 * self.dim).reshape(-1)
        if array.size % (2 * self.dim):
            raise InvalidArgument(f"{what} has {array.size} elements, which are not those of {2 * self.dim} blocks")
        return np.split(array, 2 * self.dim)

    def _exchange(self, out: list[Any], into: list[Any]) -> Request:
        """Start to send a block to each neighbour and to receive one; what goes down comes from above."""
        comm = self._between_neighbours()
        received = [
            comm.Irecv(block, peer, tag ^ 1) for tag, (block, peer) in enumerate(zip(into, self.inedges, strict=True))
        ]
        sent = [comm.Isend(block, peer, tag) for tag, (block, peer) in enumerate(zip(out, self.outedges, strict=True))]
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


def create_cart(
    comm: Comm, dims: Sequence[int], periods: Sequence[bool] | bool | None = None, reorder: bool = False
) -> Cartcomm | None:
    """Make a communicator whose ranks lie on a grid; see Comm.Create_cart."""
    sizes = [dims] if isinstance(dims, int) else [int(each) for each in dims]
    around = [bool(periods)] * len(sizes) if periods is None or isinstance(periods, bool) else list(periods)
    if len(around) != len(sizes) or any(size < 1 for size in sizes) or math.prod(sizes) > comm.size:
        raise InvalidArgument(
            f"dims {sizes} with periods {around} are no grid of at most {comm.size} ranks: give a period a dimension"
        )
    comm._splits += 1
    if comm.rank >= math.prod(sizes):
        return None
    make = functools.partial(Cartcomm, dims=sizes, periods=around)
    return groups.whole(groups.among(comm, range(math.prod(sizes)), f"cart {comm._splits}", make))


def Compute_dims(nnodes: int, dims: int | Sequence[int]) -> list[int]:
    """Return the shape of a grid of ranks, as equal in all dimensions as can be, the longest first.

    Args:
        nnodes: how many ranks.
        dims: how many dimensions; or their lengths, where 0 is to be chosen.
    """
    given = [0] * dims if isinstance(dims, int) else list(dims)
    fixed = math.prod(size for size in given if size)
    if nnodes < 1 or any(size < 0 for size in given) or nnodes % fixed:
        raise InvalidArgument(f"{nnodes} ranks are no grid of {given}")
    free = iter(_balanced(nnodes // fixed, given.count(0)))
    return [size or next(free) for size in given]


@functools.cache
def _balanced(number: int, factors: int) -> tuple[int, ...]:
    """Return factors of a number, descending, of which the largest is the least possible, then the next, and so on."""
    if factors == 0:
        if number != 1:
            raise InvalidArgument(f"no dimension is left for a factor of {number}")
        return ()
    if factors == 1:
        return (number,)
    least = next(k for k in itertools.count(1) if k**factors >= number)
    fitting = (
        (first, *rest)
        for first in range(least, number + 1)
        if number % first == 0 and (rest := _balanced(number // first, factors - 1))[0] <= first
    )
    return next(fitting)
