"""Ranks on a grid: Cartcomm, whose ranks have coordinates and neighbours, and Compute_dims, which shapes grids."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..world import World
from . import groups
from .comm import Comm
from .messages import PROC_NULL
from .neighbours import Topocomm

if TYPE_CHECKING:
    from ..selection.machine import Machine

CART = 1  # what Get_topology returns


class Cartcomm(Topocomm):
    """A communicator whose ranks lie on a grid, the last dimension's neighbours having neighbouring ranks.

    Made by Comm.Create_cart. Neighbours are the two in each dimension, first that below (coordinate - 1), then that
    above.

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

    # ---- neighbours ---------------------------------------------------------------------------------------------

    @property
    def inedges(self) -> list[int]:
        """The ranks from which blocks come: in each dimension that below, then that above."""
        return [rank for direction in range(self.dim) for rank in self.Shift(direction, 1)]

    @property
    def outedges(self) -> list[int]:
        """The ranks to which blocks go, in the same order."""
        return self.inedges

    def _tags(self) -> tuple[list[int], list[int]]:
        """Return the places of edges: what goes down comes from above, which a ring of two would not tell."""
        places = range(2 * self.dim)
        return [place ^ 1 for place in places], list(places)


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
