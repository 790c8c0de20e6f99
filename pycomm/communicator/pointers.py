"""Calls on memory that is given by addresses, for adapters whose tensors are not arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..core import COLLECTIVES, check, ffi, lib
from ..errors import InvalidArgument, PycommError
from ..selection.candidates import Choice
from . import calls
from .calls import Prepared
from .comm import Comm
from .messages import check_message
from .request import Request, drop_late

_NO_PLAN = lib.PCM_NO_PLAN


class Side(NamedTuple):
    """One buffer of a call.

    Attributes:
        address: where it begins; 0: this rank has none.
        counts: elements of each block, where blocks may differ in length; None: they are equal.
        displs: where each block begins, in elements; None: one after the other.
    """

    address: int
    counts: Sequence[int] | None = None
    displs: Sequence[int] | None = None


NOTHING = Side(0)
_ELSEWHERE = 1  # an address that nothing has


def apart(own: Side, out: Side) -> Side:
    """Return the input's side of a call that is not in place, also if both are empty and so lie at the same address."""
    return own._replace(address=_ELSEWHERE) if own.address == out.address else own


class Pointers:
    """A communicator's calls on addresses. Dtypes and ops are the core's codes; whoever calls keeps the memory alive.

    They raise what Comm's methods raise.

    Args:
        comm: the communicator.
    """

    def __init__(self, comm: Comm) -> None:
        self.comm = comm

    def quick(self, told: Callable[[PycommError], PycommError]) -> Callable[[int, int, int, int, int, Any], bool]:
        """Return a function that tries to run a call in one crossing; False: use `prepare` and `run`.

        Args:
            told: turns an error into the one that is raised.

        The function's arguments are collective | op << 8 | root << 32, the input's and the output's address (0: none;
        the same: IN_PLACE), the elements a block, the dtype, and what must be kept alive should the call outlive the
        caller.
        """
        run, address = lib.pycomm_run_pointers, int(ffi.cast("uintptr_t", self.comm._live()))

        def quick(what: int, own: int, out: int, count: int, dtype: int, keep: Any) -> bool:
            try:
                status = run(address, what, own, out, count, dtype)
            except BaseException:  # of a signal's handler, such as KeyboardInterrupt: the call goes on
                drop_late(keep)
                raise
            if not status:
                return True
            if status < 0 or status == _NO_PLAN:
                return False
            try:
                calls.finish(status, keep)
            except PycommError as error:
                raise told(error) from None
            return True

        return quick

    def prepare(self, collective: str, own: Side, out: Side, count: int, dtype: int, keep: Any, *, op: int = 0,
                root: int = 0, timeout: float | None = None) -> Prepared:  # fmt: skip
        """Describe a call.

        Args:
            collective: e.g. "allreduce".
            own, out: input and output; the same address means IN_PLACE.
            count: elements a block, where blocks are equal.
            dtype, op: codes.
            keep: what must stay alive as long as the call, such as the tensors.
            root: rank.
            timeout: seconds; None: the communicator's.
        """
        self.comm._live()
        call = ffi.new("struct pcm_call *", {
            "collective": COLLECTIVES[collective], "dtype": dtype, "op": op, "root": root, "count": count,
            "timeout": timeout or 0,
        })  # fmt: skip
        held = [keep, _describe(call, "in", own), _describe(call, "out", out)]
        uneven = own.counts is not None or out.counts is not None
        nbytes = self.comm._nbytes(collective, call, int(lib.pcm_dtype_size(dtype)), uneven)
        return Prepared(call, held, collective, nbytes, uneven, {})

    def choice(self, prepared: Prepared) -> Choice:
        """Return how a call is run."""
        return self.comm._choose(prepared)

    def ready(self, prepared: Prepared) -> Prepared:
        """Return an uneven all-to-all that may go by way of near ranks, if all ranks make it ready and then run it."""
        return self.comm._passing.ready(prepared)

    def run(self, prepared: Prepared) -> None:
        """Run a call to its end."""
        self.comm._run(prepared)

    def start(self, prepared: Prepared) -> Request:
        """Start a call."""
        return self.comm._start(prepared)

    def send(self, address: int, nbytes: int, dtype: int, dest: int, tag: int, keep: Any,
             timeout: float | None = None) -> Request:  # fmt: skip
        """Start to send a message, as Comm.Isend does."""
        check_message(self.comm, dest, tag, timeout)
        request = Request(keep)
        check(lib.pcm_send_start(self.comm._live(), ffi.cast("void *", address), nbytes, dtype, dest, tag,
                                 timeout or 0, request.handle))  # fmt: skip
        return request

    def recv(self, address: int, nbytes: int, dtype: int, source: int, tag: int, keep: Any,
             timeout: float | None = None) -> Request:  # fmt: skip
        """Start to receive a message, as Comm.Irecv does."""
        check_message(self.comm, source, tag, timeout)
        request = Request(keep)
        check(lib.pcm_recv_start(self.comm._live(), ffi.cast("void *", address), nbytes, dtype, source, tag,
                                 timeout or 0, request.handle))  # fmt: skip
        return request

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this, only who waits for an operation works on it: for many that are started in a row."""
        handle = self.comm._live()
        lib.pcm_comm_hold(handle, 1)
        try:
            yield
        finally:
            lib.pcm_comm_hold(handle, 0)

    def calls(self) -> int:
        """Return how many collectives have been called."""
        return int(lib.pcm_comm_calls(self.comm._live()))


def _describe(call: Any, side: str, buffer: Side) -> Any:
    """Fill one side of a call; returns what must be kept alive meanwhile."""
    setattr(call, side, ffi.cast("void *", buffer.address))
    if buffer.counts is None:
        return None
    counts = np.array(buffer.counts, np.int64)
    displs = np.cumsum(counts) - counts if buffer.displs is None else np.array(buffer.displs, np.int64)
    if (counts < 0).any() or (displs < 0).any():
        raise InvalidArgument(f"the counts {list(buffer.counts)} of a call's blocks must not be negative")
    setattr(call, side + "_counts", ffi.cast("uint64_t *", ffi.from_buffer(counts)))
    setattr(call, side + "_displs", ffi.cast("uint64_t *", ffi.from_buffer(displs)))
    return counts, displs
