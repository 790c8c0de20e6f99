"""Messages between two ranks: what Comm's Send, Recv and their relatives do. Each function is a method of Comm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core import check, dtype_code, dtype_name, ffi, lib, quick_receive, quick_send
from ..data import pickles
from ..data.buffer import Array, as_array
from ..data.layout import give_back, giving_back
from ..data.status import Status
from ..errors import InvalidArgument, Mismatch, Truncated
from . import calls
from .request import All, Request

if TYPE_CHECKING:
    from .comm import Comm

ANY_SOURCE, ANY_TAG = lib.PCM_ANY_SOURCE, lib.PCM_ANY_TAG
PROC_NULL = -2  # the rank beyond an edge: what is sent there is gone, what is received from there is nothing
MOST_TAG = (1 << 31) - 1
_BYTE = dtype_code(np.uint8)


@quick_send(starts=False)
def Send(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> None:
    """Send a message; returns when `buf` may be used again, which for long messages is when it is being received.

    Args:
        buf: any number of elements.
        dest: the receiver's rank, or PROC_NULL.
        tag: number, 0 or more, that the receive must name.
        timeout: seconds.
    """
    Isend(comm, buf, dest, tag, timeout=timeout).Wait()


@quick_send(starts=True)
def Isend(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> Request:
    """Start a Send."""
    return _start_send(comm, lib.pcm_send_start, as_array(buf, "buf"), dest, tag, timeout)


def Ssend(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> None:
    """Send a message; returns when its receive has been found, however short it is."""
    Issend(comm, buf, dest, tag, timeout=timeout).Wait()


def Issend(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> Request:
    """Start an Ssend."""
    return _start_send(comm, lib.pcm_ssend_start, as_array(buf, "buf"), dest, tag, timeout)


def Bsend(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> None:
    """Send a copy of a buffer; returns at once. The copy is the library's: no buffer need be attached."""
    Ibsend(comm, buf, dest, tag, timeout=timeout)


def Ibsend(comm: Comm, buf: Any, dest: int, tag: int = 0, *, timeout: float | None = None) -> Request:
    """Do as Bsend; the request is done at once."""
    return _buffered(Isend(comm, as_array(buf, "buf").copy(), dest, tag, timeout=timeout))


@quick_receive(starts=False)
def Recv(comm: Comm, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None, *,
         timeout: float | None = None) -> None:  # fmt: skip
    """Receive a message.

    Args:
        buf: at least as many elements as the message has, of its dtype.
        source: the sender's rank, ANY_SOURCE (which connects to all ranks), or PROC_NULL.
        tag: its tag, or ANY_TAG.
        status: is told source, tag and length.
        timeout: seconds.

    Raises:
        Truncated: the message is longer than `buf`. Mismatch: it has another dtype.
    """
    Irecv(comm, buf, source, tag, timeout=timeout).Wait(status)


@quick_receive(starts=True)
def Irecv(comm: Comm, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, *,
          timeout: float | None = None) -> Request:  # fmt: skip
    """Start a Recv."""
    array = as_array(buf, "buf", writes=True)
    if source == PROC_NULL:
        return Request(done=Status(PROC_NULL, ANY_TAG))
    check_message(comm, source, tag, timeout)
    request = Request(array, giving_back(array))
    check(lib.pcm_recv_start(comm._live(), ffi.from_buffer(array), array.nbytes, dtype_code(array.dtype), source, tag,
                             timeout or 0, request.handle))  # fmt: skip
    return request


def Sendrecv(comm: Comm, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
             recvtag: int = ANY_TAG, status: Status | None = None, *,
             timeout: float | None = None) -> None:  # fmt: skip
    """Send one message and receive another, in whichever order they can.

    Args:
        sendbuf, dest, sendtag: as of Send.
        recvbuf, source, recvtag, status: as of Recv; another memory than sendbuf.
        timeout: seconds.
    """
    Isendrecv(comm, sendbuf, dest, sendtag, recvbuf, source, recvtag, timeout=timeout).Wait(status)


def Isendrecv(comm: Comm, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
              recvtag: int = ANY_TAG, *, timeout: float | None = None) -> Request:  # fmt: skip
    """Start a Sendrecv."""
    own = as_array(sendbuf, "sendbuf")  # what is wrong with it must be known before a receive is under way
    check_send(comm, dest, sendtag, timeout)
    dtype_code(own.dtype)
    received = Irecv(comm, recvbuf, source, recvtag, timeout=timeout)
    return All([Isend(comm, own, dest, sendtag, timeout=timeout), received])


def Sendrecv_replace(comm: Comm, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE,
                     recvtag: int = ANY_TAG, status: Status | None = None, *,
                     timeout: float | None = None) -> None:  # fmt: skip
    """Send a copy of a buffer and receive into it. Arguments as of Sendrecv."""
    Isendrecv_replace(comm, buf, dest, sendtag, source, recvtag, timeout=timeout).Wait(status)


def Isendrecv_replace(comm: Comm, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE,
                      recvtag: int = ANY_TAG, *, timeout: float | None = None) -> Request:  # fmt: skip
    """Start a Sendrecv_replace."""
    return Isendrecv(comm, as_array(buf, "buf").copy(), dest, sendtag, buf, source, recvtag, timeout=timeout)


def check_message(comm: Comm, peer: int, tag: int, timeout: float | None) -> None:
    """Raise InvalidArgument unless a message can have this other end and this tag."""
    calls.check_timeout(timeout)
    if not -1 <= peer < comm.size:
        raise InvalidArgument(f"there is no rank {peer} in a communicator of {comm.size}")
    if not -1 <= tag <= MOST_TAG:
        raise InvalidArgument(f"a tag is a number from 0 to {MOST_TAG}, and this one is {tag}")


def check_send(comm: Comm, dest: int, tag: int, timeout: float | None) -> None:
    """Raise InvalidArgument unless a message can go to a rank with this tag."""
    if dest != PROC_NULL:
        check_message(comm, dest, tag, timeout)
        if dest < 0 or tag < 0:
            raise InvalidArgument(f"a message goes to a rank with a tag of 0 or more, not to {dest} with {tag}")


def _start_send(comm: Comm, how: Any, array: Array, dest: int, tag: int, timeout: float | None) -> Request:
    if dest == PROC_NULL:
        return Request(done=Status())
    check_message(comm, dest, tag, timeout)
    request = Request(array)
    check(how(comm._live(), ffi.from_buffer(array), array.nbytes, dtype_code(array.dtype), dest, tag, timeout or 0,
              request.handle))  # fmt: skip
    return request


# ---- what is sent from a copy ---------------------------------------------------------------------------------------

_copies: list[Request] = []  # messages on their way
_attached: list[Any] = []  # buffers that a program has given, for Detach_buffer to return


def _buffered(request: Request) -> Request:
    """Let a message go its way; returns a request that is done."""
    _copies[:] = [each for each in _copies if not each.Test()]
    _copies.append(request)
    return Request(done=Status())


def flush_buffered() -> None:
    """Wait until what Bsend and its relatives have sent in this process need not be kept any more."""
    while _copies:
        _copies.pop().Wait()


def Flush_buffer(comm: Comm) -> None:
    """Wait until what Bsend and its relatives have sent in this process need not be kept any more."""
    flush_buffered()


def attach(buf: Any) -> None:
    """Keep a buffer that nobody needs: Bsend makes room for itself."""
    _attached.append(buf)


def detach() -> Any:
    """Wait as flush_buffered does, and return the buffer that was given; None if none was."""
    flush_buffered()
    return _attached.pop() if _attached else None


def Attach_buffer(comm: Comm, buf: Any) -> None:
    """Keep a buffer for Detach_buffer to return; Bsend makes room for itself."""
    attach(buf)


def Detach_buffer(comm: Comm) -> Any:
    """Do as Flush_buffer, and return the buffer that was attached."""
    return detach()


# ---- messages whose length is not known -----------------------------------------------------------------------------


class Inbox:
    """Where the core puts a message of any length: memory that it allocates when the message comes."""

    def __init__(self) -> None:
        self.pointer = ffi.new("void **")

    def __del__(self) -> None:
        lib.pycomm_free(self.pointer[0])

    def take(self, nbytes: int) -> memoryview:
        """Return the message's bytes, which are freed with the last reference to them."""
        memory = ffi.gc(ffi.cast("char *", self.pointer[0]), lib.pycomm_free, nbytes)
        self.pointer[0] = ffi.NULL
        return memoryview(ffi.buffer(memory, nbytes))


def receive_any(comm: Comm, source: int, tag: int, timeout: float | None = None) -> Request:
    """Start to receive a message of any length and dtype; the request's `wait` returns its bytes."""
    if source == PROC_NULL:
        return Request(done=Status(PROC_NULL, ANY_TAG))
    check_message(comm, source, tag, timeout)
    inbox = Inbox()
    request = Request(inbox, lambda status: inbox.take(status.nbytes))
    check(lib.pcm_recv_any_start(comm._live(), inbox.pointer, source, tag, timeout or 0, request.handle))
    return request


def Probe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None, *,
          timeout: float | None = None) -> Literal[True]:  # fmt: skip
    """Wait until there is a message that a Recv with this source and tag would get, and leave it there.

    Args:
        source, tag: as of Recv.
        status: is told the message's source, tag and length.
        timeout: seconds.
    """
    if source == PROC_NULL:
        return Request(done=Status(PROC_NULL, ANY_TAG)).Wait(status)
    check_message(comm, source, tag, timeout)
    request = Request()
    check(lib.pcm_probe_start(comm._live(), source, tag, timeout or 0, request.handle))
    return request.Wait(status)


def Iprobe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
    """Return whether there is a message that a Recv with this source and tag would get."""
    if source == PROC_NULL:
        return Request(done=Status(PROC_NULL, ANY_TAG)).Wait(status)
    check_message(comm, source, tag, None)
    info = ffi.new("struct pcm_status_info *")
    code = lib.pcm_probe(comm._live(), source, tag, info, ffi.NULL, 0, ffi.NULL)
    if code == lib.PCM_AGAIN:
        return False
    check(code)
    if status is not None:
        status.become(Status(info.source, info.tag, info.bytes, dtype=info.dtype))
    return True


def Mprobe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None, *,
           timeout: float | None = None) -> Message:  # fmt: skip
    """Wait for a message and take it out of everybody else's reach. Arguments as of Probe."""
    return Message(receive_any(comm, source, tag, timeout), status)


def Improbe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message | None:
    """Take a message out of everybody else's reach, if there is one; None otherwise."""
    if source == PROC_NULL:
        return Mprobe(comm, source, tag, status)
    check_message(comm, source, tag, None)
    info, inbox = ffi.new("struct pcm_status_info *"), Inbox()
    request = Request(inbox, lambda status: inbox.take(status.nbytes))
    code = lib.pcm_probe(comm._live(), source, tag, info, inbox.pointer, 0, request.handle)
    if code == lib.PCM_AGAIN:
        return None
    check(code)
    return Message(request, status)


class Message:
    """A message that Mprobe or Improbe has taken: it has come as a whole, and is received once.

    Args:
        request: of receive_any.
        status: is told source, tag and length.
    """

    def __init__(self, request: Request | None = None, status: Status | None = None) -> None:
        self._status = Status()
        self._bytes: memoryview | None = None if request is None else request.wait(self._status)
        self._null = request is None
        if status is not None:
            status.become(self._status)

    def __bool__(self) -> bool:
        return not self._null

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Message) and self._null and other._null)

    __hash__ = object.__hash__

    @classmethod
    def Probe(cls, comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        """Do as Comm.Mprobe."""
        return Mprobe(comm, source, tag, status)

    @classmethod
    def Iprobe(
        cls, comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Message | None:
        """Do as Comm.Improbe."""
        return Improbe(comm, source, tag, status)

    probe, iprobe = Probe, Iprobe

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        """Copy the message into a buffer.

        Raises:
            Truncated: it is longer than `buf`. Mismatch: it has another dtype.
        """
        array = as_array(buf, "buf", writes=True)
        if self._bytes is not None and self._status.dtype != dtype_code(array.dtype):
            raise Mismatch(
                f"rank {self._status.source} has sent {dtype_name(self._status.dtype)} with tag {self._status.tag}, "
                f"which is received as {array.dtype}",
                self._status.source,
            )
        if self._status.nbytes > array.nbytes:
            raise Truncated(
                f"a message of {self._status.nbytes} bytes from rank {self._status.source} with tag "
                f"{self._status.tag} does not fit into a buffer of {array.nbytes} bytes"
            )
        data = self._claim()
        array.reshape(-1).view(np.uint8)[: len(data)] = data
        give_back(array)
        if status is not None:
            status.become(self._status)

    def Irecv(self, buf: Any) -> Request:
        """Do as Recv; the request is done at once."""
        self.Recv(buf)
        return Request(done=self._status)

    def recv(self, status: Status | None = None) -> Any:
        """Return the object that was sent by a lower-case method."""
        if status is not None:
            status.become(self._status)
        data = self._claim()
        return unpickled(data, self._status) if len(data) else None

    def irecv(self) -> Request:
        """Do as recv; the request is done at once."""
        value = self.recv()
        return Request(after=lambda _: value, done=self._status)

    def _claim(self) -> memoryview:
        if self._null:
            raise InvalidArgument("the message has been received")
        data, self._bytes, self._null = self._bytes, None, True
        return memoryview(b"") if data is None else data


def unpickled(data: memoryview, status: Status) -> Any:
    """Return the object of a message, which must be one that a lower-case method has sent."""
    if status.dtype != _BYTE:
        raise Mismatch(
            f"rank {status.source} has sent an array of {dtype_name(status.dtype)} with tag {status.tag}, where an "
            "object is received: use Recv, or send",
            status.source,
        )
    return pickles.loads(data)
