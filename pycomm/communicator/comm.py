"""Comm: a group of ranks and its collectives, with mpi4py's names and argument order."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import numpy as np

from .. import knobs
from ..core import COLLECTIVES, Handle, check, dtype_code, ffi, lib, quick
from ..data.buffer import IN_PLACE, Array, Blocks, as_array, as_blocks
from ..data.layout import copied, give_back, giving_back
from ..data.op import NAMED, is_own
from ..data.status import UNDEFINED
from ..errors import InvalidArgument
from ..schedules.contract import contract
from ..schedules.registry import find
from ..schedules.schedule import Lowered
from ..schedules.view import emit
from ..selection.candidates import Choice
from ..selection.machine import OFFLOAD, Machine, one_host
from ..selection.select import selector_of
from ..selection.table import merge, residuals_of, save
from ..world import World
from . import attributes, calls, errhandler, folding, groups, messages, mixed, objects
from . import info as hints
from .attributes import Attributes
from .calls import Algorithm, Groups, How, Prepared
from .confirm import Trials
from .groups import Group
from .passing import Passing
from .persistent import persistent
from .request import Request, drop_late

if TYPE_CHECKING:
    from mpi4py import MPI

    from .cartesian import Cartcomm
    from .explain import Explanation
    from .graphs import Distgraphcomm, Graphcomm
    from .info import Info
    from .intercomm import Intercomm

SUM, PROD, MIN, MAX, AVG = (NAMED[name] for name in ("SUM", "PROD", "MIN", "MAX", "AVG"))
LAND, LOR, LXOR, BAND, BOR, BXOR = (NAMED[name] for name in ("LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR"))
MINLOC, MAXLOC = NAMED["MINLOC"], NAMED["MAXLOC"]

_NO_PLAN = lib.PCM_NO_PLAN
_MOST_SLICES = 1 << 20
_TURN = 0.2  # seconds in the core before Python may handle a signal


class Comm(Handle):
    """A group of ranks. Every collective must be called by all of them, in the same order, with fitting arguments.

    Buffers are numpy arrays, or anything with DLPack or the buffer protocol, or mpi4py's lists of these with a count
    and a datatype. They are used in place, never copied, unless their elements do not lie one after the other (strided
    views, derived datatypes): then a copy is made of what is sent, or of what was received.
    Reductions of float16, bfloat16 and float8 combine two operands in float32 and round once to nearest even; AVG of
    float16 and float8 divides the inputs before adding them, so that the sum overflows hardly before the average would,
    and all others after, integers towards zero. Every rank gets the same bits.

    All collectives take these keywords, `**how`:
        algorithm: a name (`pycomm.schedules.registry.names`) or a function of one view, verified at its first use.
        slices: how many pieces of the buffer go through the rounds one after the other; None: chosen.
        timeout: seconds until the call gives up; None: the communicator's.
    Each has a twin with an I before its name, which starts it and returns a Request; the buffers must then be left
    alone until the request is done.

    They raise:
        InvalidArgument: an argument is wrong.
        Mismatch: the ranks disagree on the call (raised on both sides).
        PeerLost: a rank has died or left. DeadlineExceeded: the call took too long. Aborted: somebody aborted it.
    After one of the last four the communicator is of no further use: every call raises the same error.

    Attributes:
        rank: this process's number in the group.
        size: how many ranks.
        groups: ranks that are near each other (nested lists), for hierarchical algorithms; at first, those of one host,
            in it of a socket, memory node or cache that they are bound to, and beyond it of a site.
        machine: what all ranks know of each other's places, by which algorithms are chosen.
        mpi: the communicator of mpi4py that `from_mpi` made this one of, with the same ranks; None elsewhere.
    """

    def __init__(
        self, world: World | Comm, ident: int = 0, ranks: Sequence[int] = (), machine: Machine | None = None
    ) -> None:
        """Make a communicator of some ranks of a world; or, of a communicator alone, another name of it.

        The other name is for classes that are derived from Comm, as mpi4py has it. It is equal to the communicator, and
        freed with it; calls by it do not take the quick way, which its address could not be taken from when that ends.
        """
        if isinstance(world, Comm):
            self.__dict__ = world.__dict__
            return
        self._itself = self  # which another name of it has to know
        handle = ffi.new("pcm_comm **")
        check(lib.pcm_comm_create(world.live(), ident, list(ranks), len(ranks), handle))
        self._handle = handle[0]
        self._address = int(ffi.cast("uintptr_t", self._handle))
        self._world, self._ident, self._ranks = world, ident, tuple(ranks)
        self.rank: int = lib.pcm_comm_rank(self._handle)
        self.size: int = lib.pcm_comm_size(self._handle)
        self.machine = one_host(self.size) if machine is None else machine
        self._passes = len(self.machine.hosts) > 1
        self.groups: Groups | None = None if machine is None else calls.listed(machine.groups)
        self._selector = selector_of(self.machine)
        self._trials: Trials | None = None
        self._passing = Passing(self)
        if knobs.ALGO.value().confirm:
            self.confirm()
        self.mpi: MPI.Intracomm | None = None
        self._splits = 0  # communicators that were made of this one, by all of its ranks
        self._made: dict[Any, int] = {}  # and by some of them
        self._attributes = Attributes(self)
        self._info = hints.Info()
        self.name = ""
        world.take()
        self._timeout: float | None = None
        self._schedules: dict[Any, Any] = {}
        self._variants: dict[Any, int] = {}
        world.at_close(self._forget)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comm) and self.__dict__ is other.__dict__

    def __hash__(self) -> int:
        return id(self.__dict__)

    @staticmethod
    def from_mpi(communicator: MPI.Intracomm, *, transports: str | None = None, timeout: float | None = None) -> Comm:
        """Make a communicator of those ranks of a job of MPI that are in one of mpi4py's; collective over it.

        The ranks keep their numbers. They meet by way of MPI, whichever library it is. What they then send goes over
        memory within a host and over MPI between; or over MPI alone (`transports="mpi"`), or not over MPI at all
        ("shm,tcp"). Over MPI it goes on a duplicate of the communicator, so that nothing is mixed up with the program's
        own messages. That ends with `Free` of this and of all that was split from it, when the program frees its
        communicator, or when MPI is finalized.

        Args:
            communicator: an intracommunicator of mpi4py, such as MPI.COMM_WORLD, or what its Split has made.
            transports: names in order of preference; None: PYCOMM_TRANSPORTS if that is set, "shm,mpi" else.
            timeout: seconds that each later call may take; None: PYCOMM_TIMEOUT.

        Raises:
            InvalidArgument: it is no communicator of mpi4py, none of this process's, or an intercommunicator.
            SystemRefused: MPI is not running, lacks something, or has refused to do something.
        """
        from ..mpi.job import from_mpi  # here: it stands on this module

        return from_mpi(communicator, transports, timeout)[0]

    def _forget(self) -> None:
        self._handle, self._address = None, 0
        for schedule, _ in self._schedules.values():
            lib.pcm_schedule_release(schedule)
        self._schedules.clear()

    # ---- reductions ---------------------------------------------------------------------------------------------

    @quick("allreduce", op=True)
    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> None:
        """Reduce over all ranks; everybody gets the result.

        Args:
            sendbuf: n elements, or IN_PLACE: they are in recvbuf.
            recvbuf: n elements of the same dtype.
            op: SUM, PROD, MIN, MAX, AVG, LAND, LOR, LXOR, BAND, BOR or BXOR; or MINLOC, MAXLOC, or what Op.Create made.
        """
        if is_own(op):
            folding.reduce(self, sendbuf, recvbuf, op, None, how).Wait()
            return
        self._run(self._prefix("allreduce", sendbuf, recvbuf, op, how))

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> Request:
        """Start an Allreduce."""
        if is_own(op):
            return folding.reduce(self, sendbuf, recvbuf, op, None, how)
        return self._start(self._prefix("allreduce", sendbuf, recvbuf, op, how))

    @quick("scan", op=True)
    def Scan(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> None:
        """Reduce over the ranks up to and including this one. Buffers and ops as in Allreduce, but for AVG."""
        if is_own(op):
            folding.scan(self, sendbuf, recvbuf, op, how, exclusive=False).Wait()
            return
        self._run(self._prefix("scan", sendbuf, recvbuf, op, how))

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> Request:
        """Start a Scan."""
        if is_own(op):
            return folding.scan(self, sendbuf, recvbuf, op, how, exclusive=False)
        return self._start(self._prefix("scan", sendbuf, recvbuf, op, how))

    @quick("exscan", op=True)
    def Exscan(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> None:
        """Reduce over the ranks before this one. As Scan; rank 0's recvbuf is left as it is."""
        if is_own(op):
            folding.scan(self, sendbuf, recvbuf, op, how, exclusive=True).Wait()
            return
        self._run(self._prefix("exscan", sendbuf, recvbuf, op, how))

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> Request:
        """Start an Exscan."""
        if is_own(op):
            return folding.scan(self, sendbuf, recvbuf, op, how, exclusive=True)
        return self._start(self._prefix("exscan", sendbuf, recvbuf, op, how))

    @quick("reduce", op=True, root=True)
    def Reduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, root: int = 0, **how: Unpack[How]) -> None:
        """Reduce over all ranks; the root gets the result.

        Args:
            sendbuf: n elements, or (on the root) IN_PLACE: they are in recvbuf.
            recvbuf: n elements on the root, ignored elsewhere (None will do) and left as it is.
            op: as in Allreduce.
            root: the rank that gets the result.
        """
        if is_own(op):
            folding.reduce(self, sendbuf, recvbuf, op, self._checked(root), how).Wait()
            return
        self._run(self._reduce(sendbuf, recvbuf, op, root, how))

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Reduce."""
        if is_own(op):
            return folding.reduce(self, sendbuf, recvbuf, op, self._checked(root), how)
        return self._start(self._reduce(sendbuf, recvbuf, op, root, how))

    def _reduce(self, sendbuf: Any, recvbuf: Any, op: int, root: int, how: How) -> Prepared:
        here = self._check_root(root)
        out = as_array(recvbuf, "recvbuf", writes=True) if here else None
        own = out if sendbuf is IN_PLACE and here else as_array(sendbuf, "sendbuf")
        assert own is not None
        if out is not None:
            calls.check_sizes(own, out, 1, 1)
        return self._prepare("reduce", own, out, own.size, how, op=op, root=root)

    @quick("reduce_scatter", op=True)
    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> None:
        """Reduce over all ranks; rank r gets the r-th of `size` equal blocks.

        Args:
            sendbuf: size * n elements, or IN_PLACE: they are in recvbuf, whose first n elements get the result.
            recvbuf: n elements.
            op: as in Allreduce.
        """
        if is_own(op):
            folding.reduce_scatter(self, sendbuf, recvbuf, None, op, how).Wait()
            return
        self._run(self._reduce_scatter_block(sendbuf, recvbuf, op, how))

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: int = SUM, **how: Unpack[How]) -> Request:
        """Start a Reduce_scatter_block."""
        if is_own(op):
            return folding.reduce_scatter(self, sendbuf, recvbuf, None, op, how)
        return self._start(self._reduce_scatter_block(sendbuf, recvbuf, op, how))

    def _reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: int, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True)
        if sendbuf is IN_PLACE:
            own, out = out, out.reshape(-1)[: out.size // self.size]
        else:
            own = as_array(sendbuf, "sendbuf", blocks=self.size)
        calls.check_sizes(own, out, self.size, 1)
        return self._prepare("reduce_scatter", own, out, out.size, how, op=op, in_place=sendbuf is IN_PLACE)

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: int = SUM,
                       **how: Unpack[How]) -> None:  # fmt: skip
        """Reduce over all ranks; rank r gets recvcounts[r] elements, the blocks lying one after the other in sendbuf.

        Args:
            sendbuf: sum(recvcounts) elements, or IN_PLACE: a copy of what is in recvbuf.
            recvbuf: recvcounts[rank] elements.
            recvcounts: one count a rank, the same on all ranks; None: as many as each rank's recvbuf has, which ranks
                tell each other first.
            op: as in Allreduce.
        """
        counts = self._recvcounts(recvbuf, recvcounts)
        if is_own(op):
            folding.reduce_scatter(self, sendbuf, recvbuf, counts, op, how).Wait()
            return
        self._run(self._reduce_scatter(sendbuf, recvbuf, counts, op, how))

    def Ireduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: int = SUM, **how: Unpack[How]
    ) -> Request:
        """Start a Reduce_scatter; recvcounts that are None are told before it is."""
        counts = self._recvcounts(recvbuf, recvcounts)
        if is_own(op):
            return folding.reduce_scatter(self, sendbuf, recvbuf, counts, op, how)
        return self._start(self._reduce_scatter(sendbuf, recvbuf, counts, op, how))

    def _recvcounts(self, recvbuf: Any, recvcounts: Sequence[int] | None) -> Sequence[int]:
        if recvcounts is not None:
            return recvcounts
        counts = np.empty(self.size, np.int64)
        self.Allgather(np.array([as_array(recvbuf, "recvbuf").size]), counts)
        return list(map(int, counts))

    def _reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int], op: int, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True)
        in_place = sendbuf is IN_PLACE
        # the core cannot run an uneven one in place
        blocks = as_blocks([copied(out) if in_place else sendbuf, list(recvcounts)], self.size, "sendbuf")
        mine = int(blocks.counts[self.rank])
        into = calls.whole(out.reshape(-1)[:mine] if in_place else out, mine, "recvbuf")
        return self._prepare("reduce_scatter", blocks, into, 0, how, op=op)

    # ---- movement -----------------------------------------------------------------------------------------------

    @quick("broadcast", buffers=1, root=True)
    def Bcast(self, buf: Any, root: int = 0, **how: Unpack[How]) -> None:
        """Give the root's buffer to everybody.

        Args:
            buf: n elements: read on the root, written elsewhere.
            root: whose buffer.
        """
        self._run(self._bcast(buf, root, how))

    def Ibcast(self, buf: Any, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Bcast."""
        return self._start(self._bcast(buf, root, how))

    def _bcast(self, buf: Any, root: int, how: How) -> Prepared:
        here = self._check_root(root)
        array = as_array(buf, "buf", writes=not here)
        return self._prepare("broadcast", array if here else None, array, array.size, how, root=root)

    @quick("allgather")
    def Allgather(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> None:
        """Give everybody's block to everybody.

        Args:
            sendbuf: n elements, or IN_PLACE: they are at their place in recvbuf.
            recvbuf: size * n elements: rank r's block is the r-th.
        """
        self._run(self._allgather(sendbuf, recvbuf, how))

    def Iallgather(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> Request:
        """Start an Allgather."""
        return self._start(self._allgather(sendbuf, recvbuf, how))

    def _allgather(self, sendbuf: Any, recvbuf: Any, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True, blocks=self.size)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf")
        calls.check_sizes(own, out, self.size if sendbuf is IN_PLACE else 1, self.size)
        return self._prepare("allgather", own, out, out.size // self.size, how)

    @quick("allgather", uneven=True)
    def Allgatherv(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> None:
        """Give everybody's block to everybody, where blocks differ in length.

        Args:
            sendbuf: this rank's block, or IN_PLACE.
            recvbuf: [data, counts] or [data, (counts, displs)], the same counts on all ranks.
        """
        self._run(self._allgatherv(sendbuf, recvbuf, how))

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> Request:
        """Start an Allgatherv."""
        return self._start(self._allgatherv(sendbuf, recvbuf, how))

    def _allgatherv(self, sendbuf: Any, recvbuf: Any, how: How) -> Prepared:
        out = as_blocks(recvbuf, self.size, "recvbuf", writes=True)
        if sendbuf is IN_PLACE:
            own = Blocks(out.data, out.counts[self.rank : self.rank + 1], out.displs[self.rank : self.rank + 1])
        else:
            own = calls.whole(as_array(sendbuf, "sendbuf"), int(out.counts[self.rank]), "sendbuf")
        return self._prepare("allgather", own, out, 0, how)

    @quick("gather", root=True)
    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> None:
        """Give everybody's block to the root.

        Args:
            sendbuf: n elements, or (on the root) IN_PLACE: they are at their place in recvbuf.
            recvbuf: size * n elements on the root, ignored elsewhere.
            root: the rank that gets the blocks.
        """
        self._run(self._gather(sendbuf, recvbuf, root, how))

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Gather."""
        return self._start(self._gather(sendbuf, recvbuf, root, how))

    def _gather(self, sendbuf: Any, recvbuf: Any, root: int, how: How) -> Prepared:
        if not self._check_root(root):
            own = as_array(sendbuf, "sendbuf")
            return self._prepare("gather", own, None, own.size, how, root=root)
        out = as_array(recvbuf, "recvbuf", writes=True, blocks=self.size)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf")
        calls.check_sizes(own, out, self.size if sendbuf is IN_PLACE else 1, self.size)
        return self._prepare("gather", own, out, out.size // self.size, how, root=root)

    @quick("gather", root=True, uneven=True)
    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> None:
        """Give everybody's block to the root, where blocks differ in length.

        Args:
            sendbuf: this rank's block.
            recvbuf: [data, counts] or [data, (counts, displs)] on the root, ignored elsewhere.
            root: the rank that gets the blocks.
        """
        self._run(self._gatherv(sendbuf, recvbuf, root, how))

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Gatherv."""
        return self._start(self._gatherv(sendbuf, recvbuf, root, how))

    def _gatherv(self, sendbuf: Any, recvbuf: Any, root: int, how: How) -> Prepared:
        own = as_array(sendbuf, "sendbuf")
        if not self._check_root(root):
            return self._prepare("gather", calls.whole(own, own.size, "sendbuf"), None, 0, how, root=root)
        out = as_blocks(recvbuf, self.size, "recvbuf", writes=True)
        own_block = calls.whole(own, int(out.counts[self.rank]), "sendbuf")
        return self._prepare("gather", own_block, out, 0, how, root=root)

    @quick("scatter", root=True)
    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> None:
        """Give each rank its block of the root's buffer.

        Args:
            sendbuf: size * n elements on the root, ignored elsewhere.
            recvbuf: n elements, or (on the root) IN_PLACE: its block stays where it is.
            root: whose buffer.
        """
        self._run(self._scatter(sendbuf, recvbuf, root, how))

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Scatter."""
        return self._start(self._scatter(sendbuf, recvbuf, root, how))

    def _scatter(self, sendbuf: Any, recvbuf: Any, root: int, how: How) -> Prepared:
        if not self._check_root(root):
            out = as_array(recvbuf, "recvbuf", writes=True)
            return self._prepare("scatter", None, out, out.size, how, root=root)
        own = as_array(sendbuf, "sendbuf", blocks=self.size)
        stays = recvbuf is IN_PLACE
        out = np.empty(own.size // self.size, own.dtype) if stays else as_array(recvbuf, "recvbuf", writes=True)
        calls.check_sizes(own, out, self.size, 1)
        return self._prepare("scatter", own, out, out.size, how, root=root)

    @quick("scatter", root=True, uneven=True)
    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> None:
        """Give each rank its block of the root's buffer, where blocks differ in length.

        Args:
            sendbuf: [data, counts] or [data, (counts, displs)] on the root, ignored elsewhere.
            recvbuf: this rank's block.
            root: whose buffer.
        """
        self._run(self._scatterv(sendbuf, recvbuf, root, how))

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0, **how: Unpack[How]) -> Request:
        """Start a Scatterv."""
        return self._start(self._scatterv(sendbuf, recvbuf, root, how))

    def _scatterv(self, sendbuf: Any, recvbuf: Any, root: int, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True)
        if not self._check_root(root):
            return self._prepare("scatter", None, calls.whole(out, out.size, "recvbuf"), 0, how, root=root)
        own = as_blocks(sendbuf, self.size, "sendbuf")
        return self._prepare("scatter", own, calls.whole(out, int(own.counts[self.rank]), "recvbuf"), 0, how, root=root)

    @quick("alltoall")
    def Alltoall(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> None:
        """Give the r-th block to rank r, and get rank r's as the r-th.

        Args:
            sendbuf: size * n elements, or IN_PLACE: they are in recvbuf.
            recvbuf: size * n elements.
        """
        self._run(self._alltoall(sendbuf, recvbuf, how))

    def Ialltoall(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> Request:
        """Start an Alltoall."""
        return self._start(self._alltoall(sendbuf, recvbuf, how))

    def _alltoall(self, sendbuf: Any, recvbuf: Any, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True, blocks=self.size)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf", blocks=self.size)
        calls.check_sizes(own, out, self.size, self.size)
        return self._prepare("alltoall", own, out, out.size // self.size, how)

    @quick("alltoall", uneven=True)
    def Alltoallv(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> None:
        """Give each rank its block, and get one from each, where blocks differ in length (and may be empty).

        Args:
            sendbuf: [data, counts] or [data, (counts, displs)]: what goes to each rank; or IN_PLACE: a copy of what is
                in recvbuf.
            recvbuf: [data, counts] or [data, (counts, displs)]: what comes from each.

        With algorithm="hierarchical", and without one where several hosts have several ranks each, the ranks of a host
        may tell each other their counts and send what is for another host together. So a call must be blocking on all
        ranks or on none: those that are only started do not do this.

        With algorithm="bruck", blocks are padded to the longest one of all ranks: for many ranks and small blocks.
        """
        if how.get("algorithm") == "bruck":
            self._alltoallv_padded(sendbuf, recvbuf, how)
        else:
            self._run(self._passing.ready(self._alltoallv(sendbuf, recvbuf, how)))

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> Request:
        """Start an Alltoallv."""
        return self._start(self._alltoallv(sendbuf, recvbuf, how))

    def _alltoallv(self, sendbuf: Any, recvbuf: Any, how: How) -> Prepared:
        out = as_blocks(recvbuf, self.size, "recvbuf", writes=True)
        in_place = sendbuf is IN_PLACE
        own = out._replace(data=copied(out.data)) if in_place else as_blocks(sendbuf, self.size, "sendbuf")
        return self._prepare("alltoall", own, out, 0, how)

    def _alltoallv_padded(self, sendbuf: Any, recvbuf: Any, how: How) -> None:
        """Do an uneven all-to-all as an even one: ranks that pass blocks on must know how long they are."""
        own = as_blocks(sendbuf, self.size, "sendbuf")
        out = as_blocks(recvbuf, self.size, "recvbuf", writes=True)
        longest = np.array([max(own.counts.max(), out.counts.max())])
        self.Allreduce(IN_PLACE, longest, MAX)
        padded, arrived = (np.zeros((self.size, int(longest[0])), own.data.dtype) for _ in range(2))
        for row, count, displ in zip(padded, own.counts, own.displs, strict=True):
            row[:count] = own.data[displ : displ + count]
        self.Alltoall(padded, arrived, **how)
        for row, count, displ in zip(arrived, out.counts, out.displs, strict=True):
            out.data[displ : displ + count] = row[:count]
        give_back(out.data)

    def Alltoallw(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> None:
        """Give each rank its block, and get one from each, where each block has a datatype of its own.

        Args:
            sendbuf: [data, (counts, displs), types], one of each a rank, displacements in bytes; or [data, types]; or
                IN_PLACE: what is to be sent is in recvbuf.
            recvbuf: [data, (counts, displs), types] or [data, types].
        """
        mixed.start(self, sendbuf, recvbuf, how).Wait()

    def Ialltoallw(self, sendbuf: Any, recvbuf: Any, **how: Unpack[How]) -> Request:
        """Start an Alltoallw."""
        return mixed.start(self, sendbuf, recvbuf, how)

    @quick("barrier", buffers=0)
    def Barrier(self, **how: Unpack[How]) -> None:
        """Wait until all ranks have come here."""
        self._run(self._prepare("barrier", None, None, 0, how))

    def Ibarrier(self, **how: Unpack[How]) -> Request:
        """Start a Barrier."""
        return self._start(self._prepare("barrier", None, None, 0, how))

    # ---- operations that are started many times -------------------------------------------------------------------

    Barrier_init = persistent(Ibarrier)
    Bcast_init = persistent(Ibcast)
    Gather_init, Gatherv_init = persistent(Igather), persistent(Igatherv)
    Scatter_init, Scatterv_init = persistent(Iscatter), persistent(Iscatterv)
    Allgather_init, Allgatherv_init = persistent(Iallgather), persistent(Iallgatherv)
    Alltoall_init, Alltoallv_init = persistent(Ialltoall), persistent(Ialltoallv)
    Alltoallw_init = persistent(Ialltoallw)
    Reduce_init, Allreduce_init = persistent(Ireduce), persistent(Iallreduce)
    Reduce_scatter_init = persistent(Ireduce_scatter, binds=False)
    Reduce_scatter_block_init = persistent(Ireduce_scatter_block)
    Scan_init, Exscan_init = persistent(Iscan), persistent(Iexscan)
    Send_init, Recv_init = persistent(messages.Isend), persistent(messages.Irecv)
    Ssend_init, Bsend_init = persistent(messages.Issend), persistent(messages.Ibsend)
    Rsend_init = Send_init

    # ---- messages -----------------------------------------------------------------------------------------------

    Send, Isend = messages.Send, messages.Isend
    Rsend, Irsend = messages.Send, messages.Isend  # a receive that is there already needs no other way
    Ssend, Issend = messages.Ssend, messages.Issend
    Bsend, Ibsend = messages.Bsend, messages.Ibsend
    Attach_buffer, Detach_buffer = messages.Attach_buffer, messages.Detach_buffer
    Flush_buffer = messages.Flush_buffer
    Recv, Irecv = messages.Recv, messages.Irecv
    Sendrecv, Isendrecv = messages.Sendrecv, messages.Isendrecv
    Sendrecv_replace, Isendrecv_replace = messages.Sendrecv_replace, messages.Isendrecv_replace
    Probe, Iprobe = messages.Probe, messages.Iprobe
    Mprobe, Improbe = messages.Mprobe, messages.Improbe

    # ---- objects ------------------------------------------------------------------------------------------------

    send, isend = objects.send, objects.isend
    ssend, issend = objects.ssend, objects.issend
    bsend, ibsend = objects.bsend, objects.ibsend
    recv, irecv = objects.recv, objects.irecv
    sendrecv = objects.sendrecv
    probe, iprobe = objects.probe, objects.iprobe
    mprobe, improbe = objects.mprobe, objects.improbe
    barrier = objects.barrier
    bcast = objects.bcast
    gather, allgather = objects.gather, objects.allgather
    scatter, alltoall = objects.scatter, objects.alltoall
    reduce, allreduce = objects.reduce, objects.allreduce
    scan, exscan = objects.scan, objects.exscan

    # ---- groups -------------------------------------------------------------------------------------------------

    Get_group = groups.Get_group
    Split, Split_type = groups.Split, groups.Split_type
    Dup, Clone, Idup = groups.Dup, groups.Clone, groups.Idup
    Create, Create_group = groups.Create, groups.Create_group
    Compare = groups.Compare
    Get_info, Set_info = hints.Get_info, hints.Set_info
    Dup_with_info, Idup_with_info = hints.Dup_with_info, hints.Idup_with_info
    info = property(hints.Get_info, hints.Set_info)

    @property
    def group(self) -> Group:
        """The group of the communicator's ranks."""
        return self.Get_group()

    def Create_cart(
        self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None, reorder: bool = False
    ) -> Cartcomm | None:
        """Make a communicator whose ranks lie on a grid; all ranks call it, and those beyond the grid get None.

        Args:
            dims: ranks in each dimension.
            periods: for each dimension, or for all, whether its last rank is next to its first; None: no.
            reorder: no rank is given another place on the grid than by its number.
        """
        from .cartesian import create_cart  # here: a Cartcomm is a Comm

        return create_cart(self, dims, periods, reorder)

    def Create_graph(self, index: Sequence[int], edges: Sequence[int], reorder: bool = False) -> Graphcomm | None:
        """Make a communicator whose ranks are a graph's nodes; all ranks call it, and those beyond get None.

        Args:
            index: for each node, where its neighbours end among the edges.
            edges: neighbours, one node's after the other's; the same on all ranks.
            reorder: no rank becomes another node than that of its number.
        """
        from .graphs import create_graph  # here: a Graphcomm is a Comm

        return create_graph(self, index, edges)

    def Create_dist_graph_adjacent(
        self,
        sources: Sequence[int],
        destinations: Sequence[int],
        sourceweights: Sequence[int] | None = None,
        destweights: Sequence[int] | None = None,
        info: Info | None = None,
        reorder: bool = False,
    ) -> Distgraphcomm:
        """Make a communicator whose ranks are a graph's nodes; each says its own edges, and no message is needed.

        Args:
            sources: the ranks from which this one gets blocks.
            destinations: those to which it gives blocks; each names this rank as a source, as often.
            sourceweights, destweights: numbers of one's own, an edge each.
            info, reorder: change nothing.
        """
        from .graphs import create_dist_graph_adjacent  # here: a Distgraphcomm is a Comm

        return create_dist_graph_adjacent(self, sources, destinations, sourceweights, destweights)

    def Create_dist_graph(
        self,
        sources: Sequence[int],
        degrees: Sequence[int],
        destinations: Sequence[int],
        weights: Sequence[int] | None = None,
        info: Info | None = None,
        reorder: bool = False,
    ) -> Distgraphcomm:
        """Make a communicator whose ranks are a graph's nodes, of edges that any ranks say.

        Args:
            sources: nodes from which edges go, any of them.
            degrees: for each of these, how many edges are said here.
            destinations: where these edges lead, one node's after the other's.
            weights: numbers of one's own, an edge each; on all ranks or on none.
            info, reorder: change nothing.
        """
        from .graphs import create_dist_graph  # here: a Distgraphcomm is a Comm

        return create_dist_graph(self, sources, degrees, destinations, weights)

    def Create_intercomm(
        self, local_leader: int, peer_comm: Comm | None, remote_leader: int, tag: int = 0
    ) -> Intercomm:
        """Make an intercommunicator of this group and another one, whose ranks call it likewise.

        Args:
            local_leader: a rank of this communicator, which speaks for it.
            peer_comm: a communicator in which both leaders are; on others than the leader ignored (None will do).
            remote_leader: the other group's leader, as a rank of peer_comm.
            tag: of the messages that the leaders exchange.
        """
        from .intercomm import create  # here: few programs need it in memory

        return create(self, local_leader, peer_comm, remote_leader, tag)

    def Get_rank(self) -> int:
        """Return this process's number in the group."""
        return self.rank

    def Get_size(self) -> int:
        """Return how many ranks there are."""
        return self.size

    def Get_name(self) -> str:
        """Return the name that Set_name has given."""
        return self.name

    def Set_name(self, name: str) -> None:
        """Give the communicator a name, for people."""
        self.name = name

    def Get_topology(self) -> int:
        """Return CART, GRAPH or DIST_GRAPH of a Topocomm, and UNDEFINED of others."""
        return UNDEFINED

    def Is_inter(self) -> bool:
        """Return False; an Intercomm is no Comm."""
        return False

    def Is_intra(self) -> bool:
        """Return True."""
        return True

    is_inter, is_intra = property(Is_inter), property(Is_intra)

    @property
    def topology(self) -> int:
        """CART, GRAPH or DIST_GRAPH of a Topocomm, and UNDEFINED of others."""
        return self.Get_topology()

    @property
    def is_topo(self) -> bool:
        """Whether the ranks have neighbours."""
        return self.Get_topology() != UNDEFINED

    def Get_attr(self, keyval: int) -> Any:
        """Return the value that is attached under a key; None if there is none."""
        return self._attributes.get(keyval)

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        """Attach a value under a key that Create_keyval has made."""
        self._attributes.set(keyval, attrval)

    def Delete_attr(self, keyval: int) -> None:
        """Take a value away."""
        self._attributes.delete(keyval)

    Get_errhandler, Set_errhandler = errhandler.Get_errhandler, errhandler.Set_errhandler
    Create_keyval = staticmethod(attributes.create_keyval)
    Free_keyval = staticmethod(attributes.free_keyval)

    def _maker(self) -> Callable[..., Comm]:
        """Return what makes a communicator like this one."""
        return Comm

    def _plain(self) -> Callable[..., Comm]:
        """Return what makes a communicator that is nothing else."""
        return Comm

    def Free(self) -> None:
        """Leave the communicator: connected ranks see a goodbye. Not collective; outstanding requests fail."""
        self._attributes.clear()
        itself = self._itself
        if self._world.not_at_close(itself._forget):  # else another thread, or the end of the world, frees it
            handle, itself._handle, itself._address = self._handle, None, 0
            lib.pcm_comm_free(handle)
            itself._forget()
            self._world.let_go()

    Disconnect = Free

    def Abort(self, why: str | int = 0) -> None:
        """Make every operation of the communicator fail with Aborted, here and on the other ranks.

        Args:
            why: what the error says. A number, as mpi4py has it, ends this process as well, with that exit code.
        """
        text = why if isinstance(why, str) else f"Abort was called with error code {why}"
        lib.pcm_comm_abort(self._live(), text.encode())
        if not isinstance(why, str):
            _leave(why)

    def set_timeout(self, seconds: float) -> None:
        """Set how long calls may take when they do not say so themselves."""
        calls.check_timeout(seconds)
        lib.pcm_comm_set_timeout(self._live(), seconds)
        self._timeout = seconds

    def transport(self, rank: int) -> str:
        """Return the name of the transport that reaches a rank of this communicator."""
        return self._world.transport(self._ranks[rank])

    def trace(self) -> list[dict[str, Any]]:
        """Return the flight recorder's latest collectives of this communicator; pycomm.h has the keys."""
        records = map(json.loads, self._world.trace().splitlines())
        return [record for record in records if record["comm"] == self._ident]

    def adopt(self, collective: str, sendbuf: Array | None, recvbuf: Array, choice: Choice, op: int = SUM,
              root: int = 0) -> None:  # fmt: skip
        """Run calls with such buffers as `choice` says from now on; every rank must say the same.

        Args:
            collective: the name, as `pycomm.schedules.registry` has it.
            sendbuf, recvbuf: arrays such as the calls get; of a broadcast the root gives its buffer twice, the others
                None and theirs.
            choice: algorithm, slices and window.
            op, root: of the calls.
        """
        elements = max(recvbuf.size, 0 if sendbuf is None else sendbuf.size)
        count = elements // (1 if contract(collective).blocks == "one" else self.size)
        prepared = self._prepare(collective, sendbuf, recvbuf, count, {}, op=op, root=root)
        self._take(prepared, choice.algorithm, choice.slices, min(choice.window, choice.slices))

    def explain(self, collective: str, nbytes: int) -> Explanation:
        """Return how such a call is run and why; not collective. Print it, or see its fields.

        Args:
            collective: the name, e.g. "allreduce".
            nbytes: of the larger of the two buffers of a rank.
        """
        from .explain import explain  # here: few programs ask

        return explain(collective, nbytes, self.machine, self._selector, records=self.trace(), settled=self._trials)

    def choice(self, collective: str, nbytes: int) -> Choice:
        """Return how such a call of equal blocks is run if nothing else is asked for; `nbytes` as in `explain`."""
        return self._selector.choose(collective, nbytes)

    def settle(self, machine: Machine) -> None:
        """Choose by what is known of the machine, from the next call on; all ranks must know the same."""
        self.machine, self.groups = machine, calls.listed(machine.groups)
        self._passes = len(machine.hosts) > 1
        self._selector = selector_of(machine)
        if self._trials is not None:
            self.confirm()

    def muster(self) -> bool:
        """Have MPI's own collectives ready as the algorithm "mpi", and return whether they are, the same on all ranks.

        Collective. What makes communicators in a job of MPI has called it; elsewhere it does nothing.
        """
        if not self.machine.mpi or self.size == 1:
            return False
        self.Barrier(algorithm="direct")  # so that nobody needs us while MPI waits for the others
        ready = np.array([not lib.pcm_comm_muster(self._live())], np.int32)
        self.Allreduce(IN_PLACE, ready, MIN, algorithm="doubling")
        if not ready[0]:
            lib.pcm_comm_dismiss(self._handle)
        return bool(ready[0])

    def confirm(self) -> None:
        """From now on, blocking calls of a kind try the best candidates in turn and then keep what was fastest.

        All ranks must call this, between the same calls. The first 21 calls of a collective and size run the model's
        best three, whose times all ranks compare with one small allreduce more; the results are right in all of them,
        but sums of floats may differ in the last bits from call to call, and after that from run to run. A call must
        be blocking on all ranks or on none: those that are only started are not tried. PYCOMM_ALGO=confirm does this
        for every communicator.
        """
        self._trials = Trials(self._selector, self.machine)

    def save_tuning(self, path: str | Path) -> None:
        """Write the table by which this communicator chooses, with what `confirm` has learnt; rank 0 does, alone."""
        if self.rank == 0:
            learnt = residuals_of(self._trials.learnt if self._trials else ())
            own = self.machine.table
            save(merge(own, replace(own, residuals=learnt, choices=())), Path(path))

    # ---- how calls are made -------------------------------------------------------------------------------------

    def _live(self) -> Any:
        """Return the handle, or raise if there is none any more."""
        if self._handle is None:
            raise InvalidArgument("the communicator was freed")
        return self._handle

    def _check_root(self, root: int) -> bool:
        if not 0 <= root < self.size:
            raise InvalidArgument(f"root is {root} and must be a rank of the communicator, 0 to {self.size - 1}")
        return root == self.rank

    def _checked(self, root: int) -> int:
        self._check_root(root)
        return root

    def _prefix(self, collective: str, sendbuf: Any, recvbuf: Any, op: int, how: How) -> Prepared:
        out = as_array(recvbuf, "recvbuf", writes=True)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf")
        calls.check_sizes(own, out, 1, 1)
        nothing = collective == "exscan" and self.rank == 0
        return self._prepare(collective, own, None if nothing else out, own.size, how, op=op)

    def _prepare(self, collective: str, own: Array | Blocks | None, out: Array | Blocks | None, count: int, how: How, *,
                 op: int = 0, root: int = 0, in_place: bool = False) -> Prepared:  # fmt: skip
        """Check two buffers against each other and describe the call to the core."""
        self._live()
        if how:
            calls.check_how(how)
        if not 0 <= op < lib.PCM_NOPS:
            raise InvalidArgument(f"op is {op}: use SUM, PROD, MIN, MAX, AVG, LAND, LOR, LXOR, BAND, BOR or BXOR")
        sample = out if own is None else own
        dtype = np.dtype(np.uint8) if sample is None else calls.data_of(sample).dtype
        for buffer in (own, out):
            if buffer is not None:
                dtype_code(calls.data_of(buffer).dtype)  # refuses what cannot be carried before it is compared
        if own is not None and out is not None and calls.data_of(own).dtype != calls.data_of(out).dtype:
            raise InvalidArgument(
                f"sendbuf has dtype {calls.data_of(own).dtype} and recvbuf {calls.data_of(out).dtype}"
            )
        call = ffi.new("struct pcm_call *", {
            "collective": COLLECTIVES[collective], "dtype": dtype_code(dtype), "op": op, "root": root, "count": count,
            "variant": self._variant(how), "timeout": how.get("timeout") or 0,
        })  # fmt: skip
        keep = [own, out, calls.describe(call, "in", own), calls.describe(call, "out", out)]
        if own is not None and out is not None and not in_place:
            calls.check_apart(call, calls.data_of(own), calls.data_of(out))
        uneven = isinstance(own, Blocks) or isinstance(out, Blocks)
        nbytes = self._nbytes(collective, call, dtype.itemsize, uneven)
        after = None if out is None else giving_back(calls.data_of(out))
        return Prepared(call, keep, collective, nbytes, uneven, how, after)

    def _nbytes(self, collective: str, call: Any, itemsize: int, uneven: bool) -> int:
        """Return the bytes by which a call's algorithm is chosen, the same on all ranks.

        That is not what lies in its buffers: of that a root has more, and would choose otherwise than the others.
        """
        if uneven:
            return int(lib.pcm_call_step(self._handle, call))
        return int(call.count) * itemsize * (1 if contract(collective).blocks == "one" else self.size)

    def _run(self, prepared: Prepared) -> None:
        """Run a call to its end."""
        try:
            status = lib.pcm_run(self._handle, prepared.call, _TURN)
            if status == _NO_PLAN:
                if self._trials and self._try(prepared, self._trials):
                    return
                self._plan(prepared)
                status = lib.pcm_run(self._handle, prepared.call, _TURN)
        except BaseException:
            drop_late(prepared.keep)
            raise
        if status:
            calls.finish(status, prepared.keep)
        if prepared.after is not None:
            prepared.after(None)

    def _start(self, prepared: Prepared) -> Request:
        """Start a call."""
        request = Request(prepared, prepared.after)
        status = lib.pcm_start(self._handle, prepared.call, request.handle)
        if status == _NO_PLAN:
            self._plan(prepared)
            status = lib.pcm_start(self._handle, prepared.call, request.handle)
        check(status)
        return request

    def _variant(self, how: How, groups: Any = None) -> int:
        """Return a small number that tells a caller's choice of algorithm and slices from all others.

        Args:
            how: the choice.
            groups: for which it was made; None: whichever there were at first.
        """
        algorithm, slices = choice = (how.get("algorithm"), how.get("slices"))
        if choice == (None, None):
            return 0
        if slices is not None and not 1 <= slices <= _MOST_SLICES:
            raise InvalidArgument(f"slices is {slices} and must be 1 or more; None lets the library choose")
        if algorithm is not None and not isinstance(algorithm, str) and not callable(algorithm):
            raise InvalidArgument(f"algorithm is {algorithm!r} and must be a name or a function of one view")
        number = self._variants.setdefault((choice, groups), len(self._variants) + 1)
        if number > 255:
            raise InvalidArgument("more than 255 different (algorithm, slices) pairs were used on one communicator")
        return number

    def _choose(self, prepared: Prepared) -> Choice:
        """Return how a call is run whose caller does not say."""
        settled = self._trials and self._trials.settled(prepared.collective, prepared.nbytes)
        if settled and not prepared.uneven:
            return settled
        choice = self._selector.choose(prepared.collective, prepared.nbytes, uneven=prepared.uneven)
        if choice.algorithm == OFFLOAD and not lib.pcm_comm_offers(self._handle, prepared.call):
            return self._selector.choose(prepared.collective, prepared.nbytes, offload=False)
        return choice

    def _try(self, prepared: Prepared, trials: Trials) -> bool:
        """Make a call as the next candidate of its trial would; False: nothing is to be tried."""
        collective, nbytes = prepared.collective, prepared.nbytes
        if prepared.uneven or prepared.call.variant:
            return False
        trial = trials.of(collective, nbytes)
        if trial is None:
            return False
        choice = trial.choice
        if choice is None:
            slowest = np.empty_like(trial.times)
            self.Allreduce(trial.times, slowest, MAX, algorithm="doubling")  # which is not tried, as it is asked for
            trials.settle(collective, nbytes, slowest)
            return False
        how: How = {**prepared.how, "algorithm": choice.algorithm, "slices": choice.slices}
        prepared.call.variant = self._variant(how)
        before = perf_counter()
        self._run(prepared._replace(how=how))
        trial.note(perf_counter() - before)
        return True

    def _plan(self, prepared: Prepared) -> None:
        """Choose a schedule for calls like this one and tell the core."""
        how = prepared.how
        said = how.get("algorithm") if how.get("slices") == 1 else None
        choice = self._choose(prepared) if said is None else Choice(str(said), 1, 1)  # nothing is left to choose
        algorithm = how.get("algorithm") or choice.algorithm
        slices = how.get("slices") or choice.slices
        self._take(prepared, algorithm, slices, min(choice.window, slices))

    def _take(self, prepared: Prepared, algorithm: Algorithm, slices: int, window: int) -> None:
        """Tell the core how calls like this one are run from now on."""
        asks_much = prepared.uneven and prepared.call.passed_counts == ffi.NULL
        schedule = self._schedule(prepared.collective, algorithm, prepared.call.root, asks_much)
        check(lib.pcm_comm_plan(self._handle, prepared.call, schedule, slices, window))

    def _key(self, collective: str, algorithm: Algorithm, root: int) -> Any:
        return collective, algorithm, root, None if self.groups is None else calls.frozen(self.groups)

    def _know(self, collective: str, algorithm: Algorithm, lowered: Lowered) -> None:
        """Take the library's own word for it that a schedule does what it is for."""
        self._schedules[self._key(collective, algorithm, 0)] = calls.create(lowered), False

    def _schedule(self, collective: str, algorithm: Algorithm, root: int, uneven: bool) -> Any:
        key = self._key(collective, algorithm, root)
        if key not in self._schedules and algorithm == OFFLOAD:
            self._schedules[key] = calls.create_offloaded(contract(collective), self.rank, self.size, root), True
        elif key not in self._schedules:
            found = find(collective, algorithm)
            may_be_uneven = found.uneven or collective in ("allgather", "reduce_scatter")  # where all know all counts
            if calls.is_users(algorithm, found):
                from ..schedules.verify import verify  # here: few programs need it in memory

                verdict = verify(algorithm, collective, size=self.size, root=root, groups=key[-1])
                may_be_uneven = verdict.uneven
            lowered = emit(algorithm, collective, size=self.size, rank=self.rank, root=root, groups=key[-1]).lower()
            self._schedules[key] = calls.create(lowered), may_be_uneven
        schedule, may_be_uneven = self._schedules[key]
        if uneven and not may_be_uneven:
            found = find(collective, algorithm)
            started = ", unless the call is blocking" if found.grouped and collective == "alltoall" else ""
            raise InvalidArgument(
                f"algorithm {found.name} passes on blocks whose lengths only others know: "
                f"it cannot do an uneven {collective}{started}"
            )
        return schedule


def _leave(code: int) -> NoReturn:
    """End the process at once, as MPI_Abort does: the program's own cleaning up might wait for other ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)
