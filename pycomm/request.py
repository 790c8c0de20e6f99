"""Requests: operations that go on while Python computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .core import check, ffi, lib
from .errors import DeadlineExceeded

_TURN = 0.2  # seconds in the core before Python may handle a signal


_dropped: deque[tuple[Any, Any]] = deque()  # operations that nobody will wait for, with their buffers


def _sweep() -> None:
    """Let go of the dropped operations that are done."""
    for _ in range(len(_dropped)):
        try:
            handle, keep = _dropped.popleft()
        except IndexError:  # another thread sweeps too
            return
        if lib.pcm_wait(handle, 0.0, ffi.NULL) == lib.PCM_AGAIN:
            _dropped.append((handle, keep))


def drop_late(keep: Any) -> None:
    """Let a blocking call go on that has not ended in time and that the caller was torn away from."""
    request = Request(keep)
    lib.pcm_late_request(request.handle)


@dataclass
class Status:
    """What is known of a received message.

    Attributes:
        source: the sender's rank.
        tag: the message's tag.
        nbytes: its length in bytes.
    """

    source: int = -1
    tag: int = -1
    nbytes: int = 0


class Request:
    """An operation that was started. It keeps its buffers alive until it is done, even if it is dropped before.

    Made by Isend, Irecv and the I* collectives; progress is made by whoever waits, else by a thread of the library.
    """

    __slots__ = ("_keep", "_status", "handle")

    def __init__(self, keep: Any) -> None:
        if _dropped:
            _sweep()
        self.handle = ffi.new(
            "pcm_request **"
        )  # the core fills it: so no moment is left at which a signal could lose it
        self._keep = keep
        self._status = Status()

    def __del__(self) -> None:
        if (
            hasattr(self, "handle") and self.handle[0]
        ):  # not collected; nothing but this may be done here, where the world may be locked
            _dropped.append((self.handle[0], self._keep))

    def Wait(self, status: Status | None = None, *, timeout: float | None = None) -> None:
        """Wait until the operation is done.

        Args:
            status: filled with source, tag and length of a received message.
            timeout: seconds after which to give up waiting; the operation goes on. None: until its own deadline.

        Raises:
            DeadlineExceeded: `timeout` passed, or the operation's own deadline.
            PycommError: whatever made the operation fail.
        """
        left = timeout
        while not self._poll(_TURN if left is None else min(_TURN, left)):
            if left is not None:
                left -= _TURN
                if left <= 0:
                    raise DeadlineExceeded(f"the operation is not done after {timeout} s; it goes on")
        self._report(status)

    def Test(self, status: Status | None = None, *, within: float = 0.0) -> bool:
        """Return whether the operation is done, or is within some seconds; raise if it failed."""
        done = self._poll(within)
        if done:
            self._report(status)
        return done

    def _poll(self, seconds: float) -> bool:
        if not self.handle[0]:
            return True
        info = ffi.new("struct pcm_status_info *")
        status = lib.pycomm_wait(self.handle, seconds, info)
        if status == lib.PCM_AGAIN:
            return False
        self._keep = None
        self._status = Status(info.source, info.tag, info.bytes)
        check(status)
        return True

    def _report(self, status: Status | None) -> None:
        if status is not None:
            status.source, status.tag, status.nbytes = self._status.source, self._status.tag, self._status.nbytes

    @staticmethod
    def Waitall(requests: Iterable[Request]) -> None:
        """Wait until all are done; if some fail, wait for the others too and raise the first error."""
        first: BaseException | None = None
        for request in requests:
            try:
                request.Wait()
            except Exception as error:
                first = first or error
        if first is not None:
            raise first
