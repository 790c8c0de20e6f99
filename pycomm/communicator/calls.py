"""How a call of a communicator becomes one of the core: its arguments checked and described."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from ..core import check, fail, ffi, know_python, lib
from ..data.buffer import IN_PLACE, Array, Blocks
from ..data.layout import Borrowed
from ..errors import InvalidArgument
from ..schedules import registry
from ..schedules.contract import Contract
from ..schedules.schedule import Lowered
from ..schedules.view import View
from ..selection.machine import OFFLOAD
from .request import Request, drop_late

Algorithm = str | Callable[[View], None]
Groups = Sequence[Any]

_AGAIN, _NO_PLAN = lib.PCM_AGAIN, lib.PCM_NO_PLAN


class How(TypedDict, total=False):
    """The keywords of every collective; see Comm."""

    algorithm: Algorithm | None
    slices: int | None
    timeout: float | None


class Prepared(NamedTuple):
    """A call as the core takes it, and what choosing a schedule for it needs to know."""

    call: Any
    keep: Any  # buffers and counts, alive as long as the call
    collective: str
    nbytes: int
    uneven: bool
    how: How
    after: Callable[[object], None] | None = None  # called when it is done

    @property
    def repeats(self) -> bool:
        """Whether it can be started again as it is, because no buffer is a copy. Of a communicator's calls."""
        return not any(isinstance(data_of(buffer), Borrowed) for buffer in self.keep[:2] if buffer is not None)


def finish(status: int, keep: Any) -> None:
    """Wait for a call that takes longer than a moment, or raise its error."""
    if status != _AGAIN:
        fail(status)
    request = Request(keep)
    lib.pcm_late_request(request.handle)
    request.Wait()


know_python(IN_PLACE, finish, drop_late)


def is_users(algorithm: Algorithm, found: registry.Algorithm) -> bool:
    """Return whether the library's own tests cannot have verified an algorithm."""
    composed = isinstance(algorithm, str) and "(" in algorithm
    return composed or not found.shipped


def create(lowered: Lowered) -> Any:
    """Hand a lowered schedule to the core, which copies it."""
    handle = ffi.new("pcm_schedule **")
    name = ffi.new("char[]", lowered.name.encode())
    description = ffi.new("struct pcm_schedule_desc *", {
        "name": name,
        "steps": ffi.cast("struct pcm_step *", ffi.from_buffer(lowered.steps)),
        "nsteps": len(lowered.steps), "nchunks": lowered.nchunks,
        "in_at": ffi.cast("int32_t *", ffi.from_buffer(lowered.in_at)),
        "out_at": ffi.cast("int32_t *", ffi.from_buffer(lowered.out_at)),
        "like": ffi.cast("uint32_t *", ffi.from_buffer(lowered.like)),
        "in_blocks": lowered.in_blocks, "out_blocks": lowered.out_blocks, "cut": lowered.cut,
        "passed_at": ffi.cast("int32_t *", ffi.from_buffer(lowered.passed_at)), "passed_blocks": len(lowered.passed),
    })  # fmt: skip
    check(lib.pcm_schedule_create(description, handle))
    return handle[0]


def create_offloaded(promise: Contract, rank: int, size: int, root: int) -> Any:
    """Make a schedule without steps, for what a transport runs whole."""
    handle = ffi.new("pcm_schedule **")
    name = ffi.new("char[]", OFFLOAD.encode())
    description = ffi.new("struct pcm_schedule_desc *", {
        "name": name, "offload": 1, "cut": 1,
        "in_blocks": len(promise.brings(rank, size, root)), "out_blocks": len(promise.gets(rank, size, root)),
    })  # fmt: skip
    check(lib.pcm_schedule_create(description, handle))
    return handle[0]


def describe(call: Any, side: str, buffer: Array | Blocks | None) -> Any:
    """Fill one side of a call; returns what must be kept alive meanwhile."""
    if buffer is None:
        return None
    data = ffi.from_buffer(data_of(buffer))
    setattr(call, side, data)
    if not isinstance(buffer, Blocks):
        return data
    counts = ffi.cast("uint64_t *", ffi.from_buffer(buffer.counts))
    displs = ffi.cast("uint64_t *", ffi.from_buffer(buffer.displs))
    setattr(call, side + "_counts", counts)
    setattr(call, side + "_displs", displs)
    return data, buffer


def data_of(buffer: Array | Blocks) -> Array:
    """Return the array that holds a buffer."""
    return buffer.data if isinstance(buffer, Blocks) else buffer


def whole(array: Array, count: int, what: str) -> Blocks:
    """Return a buffer that is one block, checked against the count that it should have."""
    if array.size != count:
        raise InvalidArgument(f"{what} has {array.size} elements and the counts say {count}")
    return Blocks(array.reshape(-1), np.array([count], np.uint64), np.zeros(1, np.uint64))


def check_apart(call: Any, own: Array, out: Array) -> None:
    """Refuse an input that begins where a longer or shorter output does, which to the core would mean IN_PLACE."""
    if own is not out and own.size != out.size and own.size and out.size and getattr(call, "in") == call.out:
        raise InvalidArgument("sendbuf and recvbuf overlap: give two buffers, or IN_PLACE")


def check_how(how: How) -> None:
    """Raise InvalidArgument for an unknown keyword, or a timeout that is none."""
    unknown = how.keys() - How.__optional_keys__
    if unknown:
        raise InvalidArgument(
            f"there is no keyword {sorted(unknown)[0]!r}: a collective takes {', '.join(How.__annotations__)}"
        )
    check_timeout(how.get("timeout"))


def check_timeout(timeout: float | None) -> None:
    """Raise InvalidArgument unless a timeout is positive, or None."""
    if timeout is not None and not timeout > 0:
        raise InvalidArgument(f"timeout is {timeout} and must be a positive number of seconds, or None")


def int64(number: Any, what: str) -> int:
    """Return an integer that fits into 64 bits; raise InvalidArgument naming `what` otherwise."""
    try:
        value = operator.index(number)
    except TypeError:
        raise InvalidArgument(f"{what} must be a whole number, not {number!r}") from None
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(f"{what} is {number} and must fit into 64 bits")
    return value


def kept_groups(groups: Any, places: Mapping[int, int]) -> Any:
    """Return nested groups without the ranks that have no place, and the others by their places."""
    if isinstance(groups, int):
        return places.get(groups)
    return [kept for group in groups if (kept := kept_groups(group, places)) is not None and kept != []]


def check_sizes(own: Array, out: Array, own_blocks: int, out_blocks: int) -> None:
    """Raise InvalidArgument unless two buffers' sizes are as their numbers of blocks."""
    if own.size * out_blocks != out.size * own_blocks or own.size % own_blocks:
        raise InvalidArgument(
            f"sendbuf has {own.size} elements and recvbuf {out.size}: they must be as {own_blocks} to {out_blocks}"
        )


def listed(groups: Any) -> Any:
    """Return nested groups as lists, which a program may change."""
    return groups if isinstance(groups, int) else [listed(group) for group in groups]


def frozen(groups: Any) -> Any:
    """Return nested sequences of ranks as nested tuples, which can be a key."""
    return groups if isinstance(groups, int) else tuple(frozen(g) for g in groups)
