"""Work: a collective or message under way, as torch's callers wait for it; and the thread that completes futures."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..communicator.request import Request
from ..core import lib
from ..data.status import Status
from ..errors import DeadlineExceeded, InvalidArgument, PycommError
from .errors import as_torch

_POLL = 0.2  # seconds after which a waiting thread lets Python handle signals
Then = Callable[[], None]


class Work(dist.Work):  # type: ignore[misc]
    """Operations that were started, and what is to be done once they have ended.

    Progress does not depend on anybody's waiting. A result that lands in temporary memory is put into the tensors by
    whoever finds the operations done: `wait`, `is_completed`, or the thread that completes the future.

    Args:
        requests: the operations, which may be other Works; none: done already.
        result: the tensors that hold the results.
        then: is called once when all have ended well, before anybody is told.
        completer: the thread for futures.
        otherwise: is called with the error if they have failed.
        pending: where it is until it has ended, for who must know what is under way; also if the caller drops it.
    """

    def __init__(
        self,
        requests: Sequence[Request | Work],
        result: list[Any],
        then: Then | None = None,
        completer: Completer | None = None,
        pending: set[Work] | None = None,
        otherwise: Callable[[PycommError], None] | None = None,
    ) -> None:
        super().__init__()
        self._requests, self._result, self._then, self._completer = tuple(requests), result, then, completer
        self._pending, self._otherwise = pending, otherwise
        if pending is not None:
            pending.add(self)
        self._lock = threading.Lock()
        self._done = False
        self._at_end: Then | None = None
        self._error: PycommError | None = None
        self._future: torch.futures.Future[list[Any]] | None = None
        self._ended: threading.Event | None = None
        self.status = Status()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until the operation has ended.

        Args:
            timeout: after which to give up waiting, while the operation goes on; None or zero: its own deadline.

        Returns True.

        Raises:
            DeadlineExceeded: the time is over. PycommError: what made the operation fail; also a DistBackendError.
        """
        if not self._done:
            # torch's own callers give zero for no limit
            seconds = timeout.total_seconds() if timeout is not None else 0.0
            until = time.monotonic() + seconds if seconds > 0 else None
            if not self._settle(until):
                raise as_torch(DeadlineExceeded(f"the operation has not ended after {seconds:g} s; it goes on"))
        if self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        """Wait until the operation has ended."""
        self.wait()

    def is_completed(self) -> bool:
        """Return whether the operation has ended, well or not."""
        return self._done or self._settle(0.0)

    def is_success(self) -> bool:
        """Return whether the operation has ended well."""
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        """Return what made the operation fail; None: it has not failed, or not ended."""
        return self._error if self.is_completed() else None

    def result(self) -> list[Any]:
        """Return the tensors that hold the results; they do once the operation has ended."""
        return self._result

    def source_rank(self) -> int:
        """Return the sender's rank in the group, of a receive that has ended.

        Raises:
            InvalidArgument: it has not ended, or is no receive.
        """
        if not self._done or self.status.source < 0:
            raise as_torch(InvalidArgument("only a receive that has ended knows its sender: wait for it first"))
        return self.status.source

    _source_rank = source_rank

    def at_end(self, call: Then) -> None:
        """Have something called by whoever finds that the operation has ended, well or not; now if that is known."""
        with self._lock:
            if not self._done:
                self._at_end = call
                return
        call()

    def get_future(self) -> torch.futures.Future[list[Any]]:
        """Return a future of the result's tensors; a thread completes it as soon as the operation has ended."""
        with self._lock:
            if self._future is None:
                self._future = torch.futures.Future()
                if self._done:
                    self._fulfil()
                else:
                    assert self._completer is not None
                    self._ended = threading.Event()
                    if not self._completer.is_this_thread():
                        self._completer.follow(self)
                        return self._future
        if self._ended is not None and not self._ended.is_set():
            self._complete_within_a_callback()
        return self._future

    def _complete_within_a_callback(self) -> None:
        """Complete the future now if this is the thread that would: a callback of another future may wait for it."""
        if self._completer is not None and self._completer.is_this_thread():
            self.complete()

    def _settle(self, until: float | None) -> bool:
        """Wait until the operation has ended or a time (of the monotonic clock) has come; return whether it has."""
        if self._ended is not None:  # the requests are the completer's now
            if until is None:
                self._complete_within_a_callback()
            while not self._ended.is_set():
                left = _POLL if until is None else min(_POLL, until - time.monotonic())
                if not self._ended.wait(max(0.0, left)) and until is not None and time.monotonic() >= until:
                    return self._ended.is_set()
            return True
        if not self._lock.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
            return False
        try:
            if self._ended is None:
                return self._done or self.advance(until)
        finally:
            self._lock.release()
        return self._settle(until)

    def advance(self, until: float | None) -> bool:
        """Wait on the requests themselves, by the one thread that may; return whether all have ended."""
        for request in self._requests:
            try:
                if isinstance(request, Work):
                    if not request._settle(until):
                        return False
                    self._error, self.status = self._error or request._error, request.status
                elif until is None:
                    request.Wait(self.status)
                elif not _done_until(request, self.status, until):
                    return False
            except PycommError as failure:
                self._error = self._error or failure
        try:
            if self._then is not None and self._error is None:
                self._then()
        except PycommError as failure:
            self._error = failure
        if self._error is not None:
            if self._otherwise is not None:
                self._otherwise(self._error)
            self._error = as_torch(self._error)
        if self._at_end is not None:
            self._at_end()
        self._requests, self._then, self._otherwise, self._at_end = (), None, None, None
        self._done = True
        if self._pending is not None:
            self._pending.discard(self)
        return True

    def complete(self) -> None:
        """End the operation and its future: the completer's part. A second call does nothing."""
        assert self._ended is not None
        if self._ended.is_set():
            return
        self.advance(None)
        self._ended.set()
        self._fulfil()

    def _fulfil(self) -> None:
        assert self._future is not None
        if self._error is None:
            self._future.set_result(self._result)
        else:
            self._future._set_unwrap_func(_Failure.throw)
            self._future.set_result(_Failure(self._error))


class _Failure:
    """The value of a failed future, as Future.set_exception would leave the error itself.

    Waiting in Python raises the error. C++, such as DDP's, takes it for a value and pickles it to find its tensors: so
    that raises the error too, rather than some complaint about a value without tensors.
    """

    def __init__(self, error: PycommError) -> None:
        self._error = error

    def throw(self) -> None:
        """Raise the error."""
        raise self._error

    def __reduce__(self) -> str:
        raise self._error


def _done_until(request: Request, status: Status, until: float) -> bool:
    """Wait for a request until a time has come; return whether it is done."""
    while True:
        left = until - time.monotonic()
        if request.Test(status, within=max(0.0, min(_POLL, left))):
            return True
        if left <= 0:
            return False


class Completer:
    """A thread that completes futures in the order of their operations; it is started by the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def follow(self, work: Work) -> None:
        """Complete the future of a work."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._works.put(work)

    def is_this_thread(self) -> bool:
        """Return whether the caller is the thread, which then runs a future's callback."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """Stop once all that is followed has ended."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._works.put(None)
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        lib.pcm_thread_patient()
        while (work := self._works.get()) is not None:
            work.complete()
