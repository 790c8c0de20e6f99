"""Groups of ranks, and communicators made of others. The functions are methods of Comm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..data.status import UNDEFINED, Status
from ..errors import InvalidArgument
from ..job import keys
from . import calls
from .info import Info
from .request import Request

if TYPE_CHECKING:
    from .comm import Comm

_C = TypeVar("_C", bound="Comm")

IDENT, CONGRUENT, SIMILAR, UNEQUAL = range(4)  # what Compare returns
COMM_TYPE_SHARED = 1


class Group:
    """Ranks in an order, without a communicator.

    Args:
        members: their numbers among all ranks of the job.
        own: this process's number among these; None: of an empty group, which has none.
    """

    def __init__(self, members: Iterable[int] = (), own: int | None = None) -> None:
        self._members, self._own = tuple(members), own

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self._members == other._members

    def __hash__(self) -> int:
        return hash(self._members)

    def __repr__(self) -> str:
        return f"pycomm.MPI.Group({list(self._members)})"

    @property
    def members(self) -> tuple[int, ...]:
        """The ranks' numbers in the job."""
        return self._members

    @property
    def size(self) -> int:
        """How many ranks."""
        return len(self._members)

    @property
    def rank(self) -> int:
        """This process's place, or UNDEFINED."""
        return self._members.index(self._own) if self._own in self._members else UNDEFINED

    def Get_size(self) -> int:
        """Return how many ranks there are."""
        return self.size

    def Get_rank(self) -> int:
        """Return this process's place, or UNDEFINED."""
        return self.rank

    def Translate_ranks(self, ranks: Sequence[int] | None = None, group: Group | None = None) -> list[int]:
        """Return the places that ranks of this group (all by default) have in another one; UNDEFINED: none.

        Without another group, the places in the job.
        """
        there = None if group is None else {member: place for place, member in enumerate(group._members)}
        places = range(self.size) if ranks is None else ranks
        members = [place if place == PROC_NULL else self._at(place) for place in places]
        if there is None:
            return members
        return [member if member == PROC_NULL else there.get(member, UNDEFINED) for member in members]

    def Compare(self, group: Group) -> int:
        """Return IDENT, SIMILAR (the same ranks in another order) or UNEQUAL."""
        if self._members == group._members:
            return IDENT
        return SIMILAR if sorted(self._members) == sorted(group._members) else UNEQUAL

    def Dup(self) -> Group:
        """Return an equal group."""
        return Group(self._members, self._own)

    @classmethod
    def Union(cls, group1: Group, group2: Group) -> Group:
        """Return the ranks of the first group, then those of the second that are not in it."""
        more = [member for member in group2._members if member not in set(group1._members)]
        return cls((*group1._members, *more), group1._own if group2._own is None else group2._own)

    @classmethod
    def Intersection(cls, group1: Group, group2: Group) -> Group:
        """Return the ranks of the first group that are in the second."""
        return group1._with(member for member in group1._members if member in set(group2._members))

    @classmethod
    def Difference(cls, group1: Group, group2: Group) -> Group:
        """Return the ranks of the first group that are not in the second."""
        return group1._with(member for member in group1._members if member not in set(group2._members))

    Intersect = Intersection

    def Incl(self, ranks: Sequence[int]) -> Group:
        """Return the group of these ranks, in this order."""
        _check_different(ranks)
        return self._with(self._at(rank) for rank in ranks)

    def Excl(self, ranks: Sequence[int]) -> Group:
        """Return the group without these ranks."""
        _check_different(ranks)
        out = {self._at(rank) for rank in ranks}
        return self._with(member for member in self._members if member not in out)

    def Range_incl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Return the group of the ranks in some ranges (first, last, stride)."""
        return self.Incl([rank for each in ranks for rank in _range(*each)])

    def Range_excl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Return the group without the ranks in some ranges (first, last, stride)."""
        return self.Excl([rank for each in ranks for rank in _range(*each)])

    def Free(self) -> None:
        """Do nothing: Python does it."""

    def _at(self, rank: int) -> int:
        if not 0 <= rank < self.size:
            raise InvalidArgument(f"there is no rank {rank} in a group of {self.size}")
        return self._members[rank]

    def _with(self, members: Iterable[int]) -> Group:
        return Group(members, self._own)


PROC_NULL = -2  # as in messages, which know no groups
GROUP_EMPTY = Group()


def _check_different(ranks: Sequence[int]) -> None:
    if len(set(ranks)) != len(ranks):
        raise InvalidArgument(f"a rank stands twice in {list(ranks)}")


def _range(first: int, last: int, stride: int) -> range:
    if not stride:
        raise InvalidArgument("a range's stride must not be 0")
    return range(first, last + (1 if stride > 0 else -1), stride)


# ---- methods of Comm ------------------------------------------------------------------------------------------------


def Get_group(comm: Comm) -> Group:
    """Return the group of the communicator's ranks."""
    return Group(comm._ranks, comm._ranks[comm.rank])


def Split(comm: Comm, color: int | None = 0, key: int = 0) -> Comm | None:
    """Make a communicator of the ranks that give the same color, ordered by key, then by rank.

    Args:
        color: which one to join; None or UNDEFINED: none of them.
        key: place in it.
    """
    if color == UNDEFINED:
        color = None
    mine = np.array([color is not None, calls.int64(color or 0, "color"), calls.int64(key, "key")], np.int64)
    everyone = np.empty((comm.size, 3), np.int64)
    comm.Allgather(mine, everyone)
    comm._splits += 1
    if color is None:
        return None
    members = [r for r in range(comm.size) if everyone[r, 0] and everyone[r, 1] == color]
    members.sort(key=lambda r: (int(everyone[r, 2]), r))
    return whole(among(comm, members, f"{comm._splits}/{color}", comm._plain()))


def Split_type(comm: Comm, split_type: int, key: int = 0, info: Info | None = None) -> Comm | None:
    """Make a communicator of the ranks that have something in common.

    Args:
        split_type: COMM_TYPE_SHARED: the host, and with it its memory. UNDEFINED: this rank joins none.
        key: place in it.
        info: changes nothing.
    """
    if split_type not in (COMM_TYPE_SHARED, UNDEFINED):
        raise InvalidArgument(f"split_type is {split_type}: only COMM_TYPE_SHARED is known, and UNDEFINED")
    host = comm.machine.host_of(comm.rank)
    return Split(comm, None if split_type == UNDEFINED else host, key)


def Dup(comm: Comm, info: Info | None = None) -> Comm:
    """Make a communicator of the same ranks, whose traffic is its own. Only in a job of MPI are messages needed for it.

    Args:
        info: hints for it; None: those of this one.
    """
    comm._splits += 1
    twin = among(comm, range(comm.size), f"dup {comm._splits}", comm._maker())
    twin.groups = comm.groups
    twin._info = Info(comm._info if info is None else info)
    comm._attributes.copy_to(twin)
    return whole(twin)


def Clone(comm: Comm) -> Comm:
    """Do as Dup."""
    return Dup(comm)


def Idup(comm: Comm, info: Info | None = None) -> tuple[Comm, Request]:
    """Do as Dup; the request is done at once."""
    return Dup(comm, info), Request(done=Status())


def Create(comm: Comm, group: Group) -> Comm | None:
    """Make a communicator of a group; all ranks of this one call it, and those that are not in their group get None.

    Groups that ranks give must be equal, or have no rank in common.
    """
    place = group.Translate_ranks(None, Get_group(comm))
    if UNDEFINED in place:
        raise InvalidArgument("the group has a rank that is not in the communicator")
    member = comm.rank in place
    return Split(comm, min(place) if member else None, place.index(comm.rank) if member else 0)


def Create_group(comm: Comm, group: Group, tag: int = 0) -> Comm | None:
    """Make a communicator of a group, which its ranks alone call; others get None.

    Only in a job of MPI are messages needed for it.

    Args:
        group: the same on all its ranks.
        tag: tells it from others that are made at the same time.
    """
    members = group.Translate_ranks(None, Get_group(comm))
    if UNDEFINED in members:
        raise InvalidArgument("the group has a rank that is not in the communicator")
    if comm.rank not in members:
        return None
    key = (tuple(members), tag)
    comm._made[key] = turn = comm._made.get(key, 0) + 1
    return whole(among(comm, members, f"group {members}/{tag}/{turn}", comm._plain()))


def Compare(comm: Comm, other: Comm) -> int:
    """Return IDENT (the same), CONGRUENT (the same ranks in the same order), SIMILAR (the same ranks) or UNEQUAL."""
    if comm is other:
        return IDENT
    compared = Get_group(comm).Compare(Get_group(other))
    return CONGRUENT if compared == IDENT else compared


def whole(made: _C) -> _C:
    """Return a communicator that was just made, and that MPI's own collectives serve if there are any; collective."""
    made.muster()
    return made


def among(comm: Comm, members: Sequence[int], name: str, make: Callable[..., _C]) -> _C:
    """Return a communicator of some of a communicator's ranks.

    Args:
        comm: the communicator.
        members: in their new order; this rank is one of them.
        name: the same on all of them, and of no other communicator that is made of this one.
        make: the class, or what makes an object of it.
    """
    ident = int.from_bytes(keys.derive(b"split", f"{comm._ident}/{name}", 8), "little")
    places = {r: i for i, r in enumerate(members)}
    made = make(comm._world, ident, [comm._ranks[r] for r in members], comm.machine.among(places))
    made.groups = None if comm.groups is None else calls.kept_groups(comm.groups, places)
    if comm._timeout is not None:
        made.set_timeout(comm._timeout)
    return made
