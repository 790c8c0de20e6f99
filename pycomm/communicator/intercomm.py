"""Intercomm: two groups of ranks, where messages go from one to the other, and so does what collectives give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..data.buffer import as_array
from ..data.layout import give_back
from ..data.op import NAMED
from ..data.status import Status
from ..errors import InvalidArgument
from ..job import keys
from ..selection.machine import Machine, one_host
from . import groups, objects
from .groups import Group
from .messages import ANY_SOURCE, ANY_TAG, PROC_NULL
from .request import All, Request

if TYPE_CHECKING:
    from .comm import Comm

ROOT = -3  # the root of a collective says so in its own group; the others of that group say PROC_NULL
_SUM = NAMED["SUM"]


class Intercomm:
    """Two groups without a rank in common. A rank number of a message, or of a root, is one of the other group.

    Made by Comm.Create_intercomm. In collectives each group gets what the other one gives, and IN_PLACE has no meaning;
    those with a root are called with `root=ROOT` by the root, PROC_NULL by the others of its group, and the root's rank
    by the other group. They go by way of rank 0 of each group.

    Args:
        local: a communicator of this rank's own group, which is used by nobody else.
        union: one of both groups, likewise.
        first: how many ranks the group has whose ranks come first there.
        ahead: whether that is this one's.
    """

    is_inter, is_intra = True, False

    def __init__(self, local: Comm, union: Comm, first: int, ahead: bool) -> None:
        self._local, self._union = local, union
        self._collective = union.Dup()
        self._offset = first if ahead else 0  # of the other group's ranks in the union
        self._ahead = ahead
        self.name = ""

    # ---- who is there -------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This process's number in its own group."""
        return self._local.rank

    @property
    def size(self) -> int:
        """How many ranks its own group has."""
        return self._local.size

    @property
    def remote_size(self) -> int:
        """How many ranks the other group has."""
        return self._union.size - self._local.size

    @property
    def group(self) -> Group:
        """This rank's own group."""
        return self._local.Get_group()

    @property
    def remote_group(self) -> Group:
        """The other group."""
        members = self._union.Get_group().members[self._offset :][: self.remote_size]
        return Group(members, self._union.Get_group().members[self._union.rank])

    def Get_rank(self) -> int:
        """Return this process's number in its own group."""
        return self.rank

    def Get_size(self) -> int:
        """Return how many ranks its own group has."""
        return self.size

    def Get_remote_size(self) -> int:
        """Return how many ranks the other group has."""
        return self.remote_size

    def Get_group(self) -> Group:
        """Return this rank's own group."""
        return self.group

    def Get_remote_group(self) -> Group:
        """Return the other group."""
        return self.remote_group

    def Is_inter(self) -> bool:
        """Return True."""
        return True

    def Is_intra(self) -> bool:
        """Return False."""
        return False

    def Get_name(self) -> str:
        """Return the name that Set_name has given."""
        return self.name

    def Set_name(self, name: str) -> None:
        """Give the communicator a name, for people."""
        self.name = name

    # ---- communicators ------------------------------------------------------------------------------------------

    def Merge(self, high: bool = False) -> Comm:
        """Return a communicator of both groups.

        Args:
            high: whether this group's ranks come behind the other's; if both say the same, that of the union's first.
        """
        said = np.array([high, not self._ahead])
        other = np.empty_like(said)
        self._swap(said, other)
        self._local.Bcast(other)
        ours_behind = high if high != bool(other[0]) else not self._ahead
        ours, theirs = self.group.members, self.remote_group.members
        order = [*theirs, *ours] if ours_behind else [*ours, *theirs]
        places = {member: place for place, member in enumerate(self._union.Get_group().members)}
        self._union._splits += 1
        members = [places[member] for member in order]
        return groups.among(self._union, members, f"merge {self._union._splits}", self._union._plain())

    def Dup(self, info: object = None) -> Intercomm:
        """Return another one of the same groups, whose traffic is its own; `info` changes nothing."""
        first = self.size if self._ahead else self.remote_size
        return Intercomm(self._local.Dup(), self._union.Dup(), first, self._ahead)

    Clone = Dup

    def Free(self) -> None:
        """Leave the communicator, as of Comm."""
        for comm in (self._collective, self._union, self._local):
            comm.Free()

    Disconnect = Free

    def Abort(self, why: str | int = 0) -> None:
        """Do as of Comm, on the ranks of both groups."""
        self._union.Abort(why)

    def set_timeout(self, seconds: float) -> None:
        """Set how long calls may take when they do not say so themselves."""
        for comm in (self._collective, self._union, self._local):
            comm.set_timeout(seconds)

    # ---- messages: arguments as of Comm's, ranks of the other group ----------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a message."""
        self._union.Send(buf, self._there(dest), tag)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Start a Send."""
        return self._union.Isend(buf, self._there(dest), tag)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a message; returns when its receive has been found."""
        self._union.Ssend(buf, self._there(dest), tag)

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Start an Ssend."""
        return self._union.Issend(buf, self._there(dest), tag)

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receive a message."""
        self.Irecv(buf, source, tag).Wait(status)

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Start a Recv."""
        return self._heard(self._union.Irecv(buf, self._there(source), tag))

    def Sendrecv(self, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
                 recvtag: int = ANY_TAG, status: Status | None = None) -> None:  # fmt: skip
        """Send one message and receive another."""
        received = self.Irecv(recvbuf, source, recvtag)
        All([self.Isend(sendbuf, dest, sendtag), received]).Wait(status)

    def Probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Literal[True]:
        """Wait until there is a message, and leave it there."""
        self._union.Probe(self._there(source), tag, status)
        self._here(status)
        return True

    def Iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Return whether there is a message."""
        there = self._union.Iprobe(self._there(source), tag, status)
        if there:
            self._here(status)
        return there

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object."""
        self._union.send(obj, self._there(dest), tag)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Start a send."""
        return self._union.isend(obj, self._there(dest), tag)

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        return self.irecv(buf, source, tag).wait(status)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Start a recv."""
        return self._heard(self._union.irecv(buf, self._there(source), tag))

    def sendrecv(self, sendobj: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
                 recvtag: int = ANY_TAG, status: Status | None = None) -> Any:  # fmt: skip
        """Send an object and receive another."""
        received = self.irecv(recvbuf, source, recvtag)
        sent = self.isend(sendobj, dest, sendtag)
        value = received.wait(status)
        sent.Wait()
        return value

    def _there(self, rank: int) -> int:
        """Return the number in the union of a rank of the other group."""
        if rank in (PROC_NULL, ANY_SOURCE):
            return rank
        if not 0 <= rank < self.remote_size:
            raise InvalidArgument(f"there is no rank {rank} in the other group, of {self.remote_size}")
        return rank + self._offset

    def _here(self, status: Status | None) -> None:
        """Have a status name the source as a rank of its group."""
        if status is not None and status.source >= 0:
            status.source -= self._offset

    def _heard(self, request: Request) -> Request:
        before = request._after

        def heard(status: Status) -> Any:
            value = None if before is None else before(status)
            self._here(status)
            return value

        if request._waits:  # else nothing will come
            request._after = heard
        return request

    # ---- collectives of arrays ----------------------------------------------------------------------------------

    def Barrier(self) -> None:
        """Wait until all ranks of both groups have come here."""
        self._collective.Barrier()

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Give the root's buffer to the other group."""
        if self._gives(root):
            self._to_leader(as_array(buf, "buf"))
        elif root >= 0:
            array = as_array(buf, "buf", writes=True)
            self._from(array, root)
            self._local.Bcast(array)
            give_back(array)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank of the other group its block of the root's buffer."""
        if self._gives(root):
            self._to_leader(as_array(sendbuf, "sendbuf", blocks=self.remote_size))
        elif root >= 0:
            out = as_array(recvbuf, "recvbuf", writes=True)
            everything = np.empty(self._of_leader(out.size * self.size), out.dtype)
            self._from(everything, root)
            self._local.Scatter(everything, out)
            give_back(out)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each block of the other group to the root."""
        if self._gives(root):
            self._from_leader(as_array(recvbuf, "recvbuf", writes=True, blocks=self.remote_size))
        elif root >= 0:
            own = as_array(sendbuf, "sendbuf")
            everything = np.empty(self._of_leader(own.size * self.size), own.dtype)
            self._local.Gather(own, everything)
            self._to(everything, root)

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: int = _SUM, root: int = 0) -> None:
        """Reduce over the other group; the root gets the result."""
        if self._gives(root):
            self._from_leader(as_array(recvbuf, "recvbuf", writes=True))
        elif root >= 0:
            own = as_array(sendbuf, "sendbuf")
            total = np.empty(self._of_leader(own.size), own.dtype)
            self._local.Reduce(own, total, op)
            self._to(total, root)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank the blocks of the other group."""
        own, out = as_array(sendbuf, "sendbuf"), as_array(recvbuf, "recvbuf", writes=True, blocks=self.remote_size)
        everything = np.empty(self._of_leader(own.size * self.size), own.dtype)
        self._local.Gather(own, everything)
        self._swap(everything, out)
        self._local.Bcast(out)
        give_back(out)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: int = _SUM) -> None:
        """Reduce over the other group; each rank gets the result."""
        own, out = as_array(sendbuf, "sendbuf"), as_array(recvbuf, "recvbuf", writes=True)
        total = np.empty(self._of_leader(own.size), own.dtype)
        self._local.Reduce(own, total, op)
        self._swap(total, out)
        self._local.Bcast(out)
        give_back(out)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give a block to each rank of the other group, and get one from each."""
        out = as_array(recvbuf, "recvbuf", writes=True, blocks=self.remote_size)
        own = as_array(sendbuf, "sendbuf", blocks=self.remote_size)
        if own.size % self.remote_size or out.size % self.remote_size:
            raise InvalidArgument(f"the buffers of {own.size} and {out.size} elements are no {self.remote_size} blocks")
        peers = range(self._offset, self._offset + self.remote_size)
        into, from_ = (np.split(each.reshape(-1), self.remote_size) for each in (out, own))
        received = [self._collective.Irecv(block, peer) for block, peer in zip(into, peers, strict=True)]
        sent = [self._collective.Isend(block, peer) for block, peer in zip(from_, peers, strict=True)]
        Request.Waitall([*received, *sent])
        give_back(out)

    # ---- collectives of objects ---------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until all ranks of both groups have come here."""
        self.Barrier()

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the root's object in the other group; None in the root's own."""
        if self._gives(root):
            objects.send(self._collective, obj, self._offset)
            return None
        if root < 0:
            return None
        came = objects.recv(self._collective, None, self._there(root)) if self.rank == 0 else None
        return self._local.bcast(came)

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Return the rank-th of the root's objects in the other group; None in the root's own."""
        if self._gives(root):
            if sendobj is None or len(sendobj) != self.remote_size:
                raise InvalidArgument(f"sendobj must have {self.remote_size} objects, one a rank of the other group")
            objects.send(self._collective, list(sendobj), self._offset)
            return None
        if root < 0:
            return None
        came = objects.recv(self._collective, None, self._there(root)) if self.rank == 0 else None
        return self._local.scatter(came)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Return the other group's objects on the root; None elsewhere."""
        if self._gives(root):
            came: list[Any] = objects.recv(self._collective, None, self._offset)
            return came
        if root >= 0:
            everyone = self._local.gather(sendobj)
            if self.rank == 0:
                objects.send(self._collective, everyone, self._there(root))
        return None

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return the other group's objects."""
        everyone: list[Any] = self._swapped(self._local.gather(sendobj))
        return everyone

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give an object to each rank of the other group, and return one from each."""
        if len(sendobj) != self.remote_size:
            raise InvalidArgument(f"sendobj has {len(sendobj)} objects and the other group {self.remote_size} ranks")
        peers = range(self._offset, self._offset + self.remote_size)
        received = [objects.irecv(self._collective, None, peer) for peer in peers]
        Request.Waitall([objects.isend(self._collective, *each) for each in zip(sendobj, peers, strict=True)])
        return Request.waitall(received)

    def reduce(self, sendobj: Any, op: Callable[[Any, Any], Any] = _SUM, root: int = 0) -> Any:
        """Return the reduction over the other group on the root; None elsewhere."""
        if self._gives(root):
            return objects.recv(self._collective, None, self._offset)
        if root >= 0:
            total = self._local.reduce(sendobj, op)
            if self.rank == 0:
                objects.send(self._collective, total, self._there(root))
        return None

    def allreduce(self, sendobj: Any, op: Callable[[Any, Any], Any] = _SUM) -> Any:
        """Return the reduction over the other group."""
        return self._swapped(self._local.reduce(sendobj, op))

    # ---- by way of rank 0 of each group -------------------------------------------------------------------------

    def _gives(self, root: int) -> bool:
        """Return whether this rank is the root."""
        if root < 0 and root not in (ROOT, PROC_NULL):
            raise InvalidArgument(f"root is {root}: give ROOT, PROC_NULL, or the root's rank in the other group")
        if root >= 0:
            self._there(root)
        return root == ROOT

    def _of_leader(self, elements: int) -> int:
        """Return how many elements this rank needs room for, which is none if it is not rank 0."""
        return elements if self.rank == 0 else 0

    def _to_leader(self, array: Any) -> None:
        self._collective.Send(array, self._offset)

    def _from_leader(self, array: Any) -> None:
        self._collective.Recv(array, self._offset)
        give_back(array)

    def _to(self, array: Any, root: int) -> None:
        if self.rank == 0:
            self._collective.Send(array, self._there(root))

    def _from(self, array: Any, root: int) -> None:
        if self.rank == 0:
            self._collective.Recv(array, self._there(root))

    def _swap(self, own: Any, theirs: Any) -> None:
        """Have both ranks 0 exchange arrays."""
        if self.rank == 0:
            self._collective.Sendrecv(own, self._offset, 0, theirs, self._offset)

    def _swapped(self, own: Any) -> Any:
        """Return on all ranks what the other group's rank 0 has."""
        theirs = self._collective.sendrecv(own, self._offset, 0, None, self._offset) if self.rank == 0 else None
        return self._local.bcast(theirs)


def create(local: Comm, local_leader: int, peer: Comm | None, remote_leader: int, tag: int) -> Intercomm:
    """Make an intercommunicator of two communicators' ranks; see Comm.Create_intercomm."""
    local._splits += 1
    told = None
    if local._check_root(local_leader):
        if peer is None:
            raise InvalidArgument("the leader of a group needs a communicator in which both leaders are")
        own = (local._ranks, local._ident, local._splits)
        other = objects.sendrecv(peer, own, remote_leader, tag, None, remote_leader, tag)
        first, second = sorted((own, other))
        told = first, second, _machine(peer, (*first[0], *second[0]))
    first, second, machine = local.bcast(told, local_leader)
    both = set(first[0]) & set(second[0])
    if both:
        raise InvalidArgument(f"rank {min(both)} of the job is in both groups")
    name = f"inter {first[1:]}/{second[1:]}/{tag}"
    ident = int.from_bytes(keys.derive(b"split", name, 8), "little")
    union = local._plain()(local._world, ident, [*first[0], *second[0]], machine)
    if local._timeout is not None:
        union.set_timeout(local._timeout)
    own_side = groups.among(local, range(local.size), name, local._plain())
    return Intercomm(own_side, union, len(first[0]), first[0] == local._ranks)


def _machine(peer: Comm, members: Sequence[int]) -> Machine:
    """Return what both leaders know of some ranks of the job, by the communicator that they share."""
    places = {member: rank for rank, member in enumerate(peer._ranks)}
    if all(member in places for member in members):
        return peer.machine.among({places[member]: place for place, member in enumerate(members)})
    return one_host(len(members), 1, shared=False, table=peer.machine.table)
