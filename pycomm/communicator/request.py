"""Requests: operations that go on while Python computes, and waiting for one, some or all of several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from ..core import Operation, fail, ffi, know_requests, lib, waits, waits_for_all
from ..data.status import UNDEFINED, Status
from ..errors import DeadlineExceeded

_TURN = 0.2  # seconds in the core before Python may handle a signal
_GLANCE = 1e-3  # seconds that who waits for any of several gives to one of them, before it looks at all again

_dropped: deque[tuple[int, Any]] = deque()  # operations that nobody will wait for, with their buffers


def _sweep() -> None:
    """Let go of the dropped operations that are done."""
    for _ in range(len(_dropped)):
        try:
            handle, keep = _dropped.popleft()
        except IndexError:  # another thread sweeps too
            return
        if lib.pcm_wait(ffi.cast("pcm_request *", handle), 0.0, ffi.NULL) == lib.PCM_AGAIN:
            _dropped.append((handle, keep))


def drop_late(keep: Any) -> None:
    """Let a blocking call go on that has not ended in time and that the caller was torn away from."""
    request = Request(keep)
    lib.pcm_late_request(request.handle)


class Request(Operation):
    """An operation that was started. It keeps its buffers alive until it is done, even if it is dropped before.

    Made by Isend, Irecv and the I* collectives; progress is made by whoever waits, else by a thread of the library.
    Once it has been waited for it is false, and equal to REQUEST_NULL, which is a request of nothing.

    Args:
        keep: what must live as long as the operation.
        after: called with the status, once, by who finds the operation done; what it returns, `wait` returns.
        done: of what was done at once; the status that it has.
    """

    __slots__ = ()

    def __init__(
        self, keep: Any = None, after: Callable[[Status], Any] | None = None, *, done: Status | None = None
    ) -> None:
        if _dropped:
            _sweep()
        self._keep, self._after = keep, after
        if done is not None:
            self._status, self._done = done, True

    @property
    def handle(self) -> Any:
        """Where the core puts its handle: in the request itself, so that no signal comes between them."""
        return ffi.cast("pcm_request **", self._slot)

    def __bool__(self) -> bool:
        return self._active()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Request) and not self and not other)

    __hash__ = object.__hash__  # an entry of a set or a dict is found again although it is equal to others later

    def _active(self) -> bool:
        """Whether it is to be waited for."""
        return self._done or self._waits

    def then(self, after: Callable[[Status], Any]) -> Request:
        """Have one more function called by who finds the operation done; returns the request."""
        before = self._after

        def both(status: Status) -> Any:
            if before is not None:
                before(status)
            return after(status)

        self._after = both
        return self

    # ---- one ----------------------------------------------------------------------------------------------------

    @waits
    def Wait(self, status: Status | None = None, *, timeout: float | None = None) -> Literal[True]:
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
        self._tell(status)
        return True

    def Test(self, status: Status | None = None, *, within: float = 0.0) -> bool:
        """Return whether the operation is done, or is within some seconds; raise if it failed."""
        done = self._poll(within)
        if done:
            self._tell(status)
        return done

    def Get_status(self, status: Status | None = None) -> bool:
        """Return whether the operation is done, but leave the request to be waited for; raise if it failed."""
        done = self._poll(0.0)
        if done and status is not None:
            status.become(self._status)
        return done

    def wait(self, status: Status | None = None) -> Any:
        """Wait until the operation is done and return the object that was received; None if it received none."""
        self.Wait(status)
        return self._take()

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Return whether the operation is done, and then the object that was received."""
        done = self.Test(status)
        return done, self._take() if done else None

    def get_status(self, status: Status | None = None) -> bool:
        """Do as Get_status."""
        return self.Get_status(status)

    def Cancel(self) -> None:
        """Take back a receive that no message has come for; other operations go on. It is waited for as usual.

        Status.Is_cancelled then tells whether it was taken back.
        """
        if self._waits and lib.pcm_cancel(self.handle[0]) == lib.PCM_OK:
            self._cancelled = True

    def cancel(self) -> None:
        """Do as Cancel."""
        self.Cancel()

    def Free(self) -> None:
        """Forget the operation, which goes on; nobody will hear of its end or its failure."""
        self._drop()

    def free(self) -> None:
        """Do as Free, for what has been waited for too."""
        self.Free()

    def _tell(self, status: Status | None) -> None:
        self._done = False
        if status is not None:
            status.become(self._status)

    def _take(self) -> Any:
        value, self._value = self._value, None
        return value

    # ---- several ------------------------------------------------------------------------------------------------

    @classmethod
    @waits_for_all
    def Waitall(cls, requests: Iterable[Request], statuses: list[Status] | None = None) -> Literal[True]:
        """Wait until all are done; if some fail, wait for the others too and raise the first error.

        Args:
            requests: to wait for.
            statuses: filled with a status for each, and made as long as that.
        """
        first: BaseException | None = None
        for request, status in zip(requests, _each(statuses), strict=False):
            try:
                request.Wait(status)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first
        return True

    @classmethod
    def Testall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Return whether all are done; if so, they count as waited for."""
        polled = [request._poll(0.0) for request in requests]  # each of them makes progress
        return all(polled) and cls.Waitall(requests, statuses)

    @classmethod
    def Waitany(cls, requests: Sequence[Request], status: Status | None = None) -> int:
        """Wait until one is done and return its place; UNDEFINED if there is nothing to be waited for."""
        place: int = cls._await(requests, lambda: cls.Testany(requests, status)[0])
        return place

    @classmethod
    def Testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        """Return the place of one that is done, and whether there is one; (UNDEFINED, True): none is under way."""
        waits = False
        for place, request in enumerate(requests):
            if not request._active():
                continue
            waits = True
            if request.Test(status):
                return place, True
        if not waits and status is not None:
            status.become(Status())
        return UNDEFINED, not waits

    @classmethod
    def Waitsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """Wait until some are done and return their places; None if there is nothing to be waited for."""
        places: list[int] | None = cls._await(requests, lambda: cls.Testsome(requests, statuses))
        return places

    @classmethod
    def Testsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """Return the places of those that are done; None if there is nothing to be waited for."""
        if not any(request._active() for request in requests):
            return None
        done = [place for place, request in enumerate(requests) if request._active() and request._poll(0.0)]
        cls.Waitall([requests[place] for place in done], statuses)
        return done

    @classmethod
    def Get_status_all(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Return whether all are done, but leave them to be waited for."""
        seen = [request.Get_status(status) for request, status in zip(requests, _each(statuses), strict=False)]
        return all(seen)

    @classmethod
    def waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[Any]:
        """Wait until all are done and return the objects that were received."""
        cls.Waitall(requests, statuses)
        return [request._take() for request in requests]

    @classmethod
    def testall(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[bool, list[Any] | None]:
        """Return whether all are done, and then the objects that were received."""
        done = cls.Testall(requests, statuses)
        return done, [request._take() for request in requests] if done else None

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        """Wait until one is done; return its place and the object that was received."""
        place = cls.Waitany(requests, status)
        return place, None if place == UNDEFINED else requests[place]._take()

    @classmethod
    def testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool, Any]:
        """Return the place of one that is done, whether there is one, and the object that was received."""
        place, done = cls.Testany(requests, status)
        return place, done, None if place == UNDEFINED else requests[place]._take()

    @classmethod
    def waitsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Wait until some are done; return their places and the objects that were received."""
        return _with_objects(requests, cls.Waitsome(requests, statuses))

    @classmethod
    def testsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Return the places of those that are done and the objects that were received."""
        return _with_objects(requests, cls.Testsome(requests, statuses))

    @classmethod
    def _await(cls, requests: Sequence[Request], look: Callable[[], Any]) -> Any:
        """Look until something is done, or nothing is left; between two looks the next one's progress is waited for."""
        turn = 0
        while True:
            left = [request for request in requests if request._active()]
            found = look()
            if not left or (found != UNDEFINED and found != []):
                return found
            left[turn % len(left)]._poll(_GLANCE)
            turn += 1


def _each(statuses: list[Status] | None) -> Iterator[Status | None]:
    """Yield a status for each of any number of requests, from a list that becomes as long as they are many."""
    place = 0
    while True:
        if statuses is not None and place == len(statuses):
            statuses.append(Status())
        yield None if statuses is None else statuses[place]
        place += 1


def _with_objects(requests: Sequence[Request], places: list[int] | None) -> tuple[list[int] | None, list[Any] | None]:
    return places, None if places is None else [requests[place]._take() for place in places]


class All(Request):
    """Several operations as one: it is done when all are, and tells of the last. Made by Isendrecv, for example.

    Args:
        requests: the operations.
    """

    __slots__ = ("_requests",)

    def __init__(self, requests: Iterable[Request]) -> None:
        super().__init__()
        self._compound = True
        self._status = Status()
        self._requests = list(requests)

    def _active(self) -> bool:
        return self._done or any(request._active() for request in self._requests)

    def _poll(self, seconds: float) -> bool:
        for request in self._requests:
            if request._active():
                if not request.Test(self._status, within=seconds):
                    return False
                self._done = True
        after, self._after = self._after, None
        if after is not None:
            self._value = after(self._status)
        return True

    def Cancel(self) -> None:
        """Do nothing: what is sent cannot be taken back."""

    def Free(self) -> None:
        """Forget the operations, which go on."""
        for request in self._requests:
            request.Free()
        self._done = False


know_requests(Request, Status, _dropped, _sweep, fail)
REQUEST_NULL = Request()
