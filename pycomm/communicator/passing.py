"""Uneven all-to-alls by way of other ranks: those that pass blocks on are told by near ones how long these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import ffi, lib
from ..data.buffer import IN_PLACE
from ..schedules.registry import find
from ..schedules.view import View, emit, leaves, task_of
from . import calls
from .calls import Algorithm, How, Prepared

if TYPE_CHECKING:
    from .comm import Comm

_OFTEN = 64  # calls, after which ranks agree anew on how much they send; before, after 1, 2, 4, ...


class _Way(NamedTuple):
    """What is the same in all calls by one algorithm within the same groups."""

    tell: Prepared | None  # the exchange of counts; None: nobody passes anything on
    sources: npt.NDArray[np.intp]  # of the blocks that this rank passes on,
    targets: npt.NDArray[np.intp]  # in the order in which the core wants their lengths


class Passing:
    """Makes ready a communicator's uneven all-to-alls, which some algorithms lead through ranks of the same group.

    Such a rank does not know how long the blocks are that it passes on. All come from ranks of its own outermost group,
    so that an exchange within that group tells it: where groups are hosts, in shared memory.

    Which algorithm is best depends on how much is sent, of which a rank knows its own part only. It costs time, and
    nothing else, if all are wrong about it; so ranks agree on it by an allreduce at first, and from time to time.

    Args:
        comm: the communicator.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._ways: dict[Any, _Way] = {}
        self._tells: dict[Any, Prepared] = {}
        self._rows = np.empty(0, np.int64)  # everybody's counts, of which only those of near ranks are used
        self._calls = self._most = self._agreed = 0

    def ready(self, prepared: Prepared) -> Prepared:
        """Return a blocking call with its algorithm, and with the lengths of what this rank passes on.

        All ranks must make the call ready, as this may be an exchange between them.
        """
        algorithm = prepared.how.get("algorithm") or self._chosen(prepared.call)
        if algorithm is None or not find("alltoall", algorithm).grouped:
            return prepared
        how: How = {**prepared.how, "algorithm": algorithm}
        groups = None if self._comm.groups is None else calls.frozen(self._comm.groups)
        prepared.call.variant = self._comm._variant(how, groups)
        lengths = self._lengths(self._way(algorithm, groups), prepared.call)
        prepared.call.passed_counts = ffi.cast("uint64_t *", ffi.from_buffer(lengths))
        return prepared._replace(how=how, keep=[prepared.keep, lengths])

    def _chosen(self, call: Any) -> str | None:
        selector = self._comm._selector
        named = selector.named("alltoall")
        if named or self._comm.groups is None or not selector.passes:
            return named
        return selector.choose_passing(self._most_bytes(call))

    def _most_bytes(self, call: Any) -> int:
        """Return how much the rank with the most had to send or to receive in a call, as all ranks know it."""
        element, sides = int(lib.pcm_dtype_size(call.dtype)), (call.in_counts, call.out_counts)
        self._most = max(self._most, *(element * int(self._counts(call, counts).sum()) for counts in sides))
        self._calls += 1
        if self._calls & (self._calls - 1) == 0 or self._calls % _OFTEN == 0:
            most = np.array([self._most])
            self._comm.Allreduce(IN_PLACE, most, lib.PCM_MAX)
            self._most, self._agreed = 0, int(most[0])
        return self._agreed

    def _way(self, algorithm: Algorithm, groups: Any) -> _Way:
        comm = self._comm
        if (algorithm, groups) not in self._ways:
            task = task_of(algorithm, "alltoall", comm.size, 0, groups)
            passed = task.schedule(comm.rank).lower().passed.astype(np.intp)
            nested = task.groups or ()
            tell = None
            if nested and isinstance(nested[0], tuple):
                if groups not in self._tells:
                    near = next(leaves(group) for group in nested if comm.rank in leaves(group))
                    self._tells[groups] = self._telling(_among(near))
                tell = self._tells[groups]
            self._ways[algorithm, groups] = _Way(tell, *np.divmod(passed, comm.size))
        return self._ways[algorithm, groups]

    def _lengths(self, way: _Way, call: Any) -> npt.NDArray[np.int64]:
        """Return the length of each block that this rank passes on; and a 0, so that there is one."""
        lengths = np.zeros(len(way.sources) + 1, np.int64)
        if way.tell is not None:
            own = self._counts(call, call.in_counts)
            setattr(way.tell.call, "in", ffi.from_buffer(own))
            way.tell.call.timeout = call.timeout
            self._comm._run(way.tell._replace(keep=[own, way.tell.keep]))
            lengths[:-1] = self._rows.reshape(self._comm.size, -1)[way.sources, way.targets]
        return lengths

    def _telling(self, tell: Callable[[View], None]) -> Prepared:
        """Return an all-gather of counts, whose input is still to be given."""
        comm = self._comm
        if not self._rows.size:
            self._rows = np.empty(comm.size * comm.size, np.int64)
        comm._know("allgather", tell, emit(tell, "allgather", size=comm.size, rank=comm.rank).lower())
        return comm._prepare("allgather", np.zeros(comm.size, np.int64), self._rows, comm.size, {"algorithm": tell})

    def _counts(self, call: Any, counts: Any) -> npt.NDArray[np.int64]:
        if counts == ffi.NULL:  # this side's blocks are equal
            return np.full(self._comm.size, call.count, np.int64)
        return np.frombuffer(ffi.buffer(counts, 8 * self._comm.size), np.int64)


def _among(near: tuple[int, ...]) -> Callable[[View], None]:
    """Return an all-gather among near ranks alone, which leaves the blocks of all others as they are."""

    def lengths(v: View) -> None:
        find("allgather", "bruck").write(v.sub(near, [[rank] for rank in near]))

    return lengths
