"""Any Python object instead of a buffer: what the lower-case methods of Comm do. Each function is one of them.

Objects are pickled (see pickles); what is unpickled has come from ranks of the communicator alone. All of these have
proved to the transport that they know the job's secret; `run_threads` has no secret, as its ranks are one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..core import lib
from ..data import pickles
from ..data.op import NAMED
from ..data.status import Status
from ..errors import InvalidArgument
from . import messages
from .messages import ANY_SOURCE, ANY_TAG, Message, receive_any, unpickled
from .request import All, Request

if TYPE_CHECKING:
    from .comm import Comm

Combine = Callable[[Any, Any], Any]
Bytes = npt.NDArray[np.uint8]
_SUM = NAMED["SUM"]


# ---- messages -------------------------------------------------------------------------------------------------------


def send(comm: Comm, obj: Any, dest: int, tag: int = 0) -> None:
    """Send an object; returns when it has been copied, or is being received."""
    isend(comm, obj, dest, tag).Wait()


def isend(comm: Comm, obj: Any, dest: int, tag: int = 0) -> Request:
    """Start a send. The object may be changed at once: it has been pickled."""
    return messages._start_send(comm, lib.pcm_send_start, _pickled(obj), dest, tag, None)


def ssend(comm: Comm, obj: Any, dest: int, tag: int = 0) -> None:
    """Send an object; returns when its receive has been found."""
    issend(comm, obj, dest, tag).Wait()


def issend(comm: Comm, obj: Any, dest: int, tag: int = 0) -> Request:
    """Start an ssend."""
    return messages._start_send(comm, lib.pcm_ssend_start, _pickled(obj), dest, tag, None)


def bsend(comm: Comm, obj: Any, dest: int, tag: int = 0) -> None:
    """Send an object; returns at once."""
    ibsend(comm, obj, dest, tag)


def ibsend(comm: Comm, obj: Any, dest: int, tag: int = 0) -> Request:
    """Do as bsend; the request is done at once."""
    return messages._buffered(isend(comm, obj, dest, tag))


def recv(
    comm: Comm, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
) -> Any:
    """Receive an object.

    Args:
        buf: ignored; mpi4py receives into it.
        source: the sender's rank, ANY_SOURCE, or PROC_NULL: None is returned.
        tag: the message's tag, or ANY_TAG.
        status: is told source, tag and length of the pickle.
    """
    return irecv(comm, buf, source, tag).wait(status)


def irecv(comm: Comm, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
    """Start a recv, of an object of any length. The request's `wait` returns it."""
    inner = receive_any(comm, source, tag)
    before = inner._after
    if before is None:
        return inner
    inner._after = lambda status: unpickled(before(status), status)
    return inner


def sendrecv(comm: Comm, sendobj: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
             recvtag: int = ANY_TAG, status: Status | None = None) -> Any:  # fmt: skip
    """Send an object and receive another; recvbuf is ignored."""
    messages.check_send(comm, dest, sendtag, None)
    received = irecv(comm, recvbuf, source, recvtag)
    All([isend(comm, sendobj, dest, sendtag), received]).Wait(status)
    return received._take()


def probe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Literal[True]:
    """Wait until there is an object that a recv with this source and tag would get."""
    return messages.Probe(comm, source, tag, status)


def iprobe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
    """Return whether there is an object that a recv with this source and tag would get."""
    return messages.Iprobe(comm, source, tag, status)


def mprobe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
    """Wait for an object and take it out of everybody else's reach."""
    return messages.Mprobe(comm, source, tag, status)


def improbe(comm: Comm, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message | None:
    """Take an object out of everybody else's reach, if there is one."""
    return messages.Improbe(comm, source, tag, status)


# ---- collectives ----------------------------------------------------------------------------------------------------


def barrier(comm: Comm) -> None:
    """Wait until all ranks have come here."""
    comm.Barrier()


def bcast(comm: Comm, obj: Any, root: int = 0) -> Any:
    """Return the root's object on every rank; the root gets its own back."""
    here = comm._check_root(root)
    frame = _pickled(obj) if here else None
    length = np.array([frame.size if frame is not None else 0])
    comm.Bcast(length, root)
    room = np.empty(_room(int(length[0])), np.uint8)
    if frame is not None:
        room[: frame.size] = frame
    comm.Bcast(room, root)
    return obj if here else pickles.loads(room.data)


def gather(comm: Comm, sendobj: Any, root: int = 0) -> list[Any] | None:
    """Return everybody's object on the root, by rank; None elsewhere."""
    here = comm._check_root(root)
    frame = _pickled(sendobj)
    lengths = np.empty(comm.size if here else 0, np.int64)
    comm.Gather(np.array([frame.size]), lengths if here else None, root)
    if not here:
        comm.Gatherv(frame, None, root)
        return None
    everything = np.empty(lengths.sum(), np.uint8)
    comm.Gatherv(frame, [everything, lengths], root)
    return _objects(everything, lengths)


def scatter(comm: Comm, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
    """Return the rank-th of the root's objects; it gives one a rank."""
    here = comm._check_root(root)
    length = np.empty(1, np.int64)
    if not here:
        comm.Scatter(None, length, root)
        frame = np.empty(length[0], np.uint8)
        comm.Scatterv(None, frame, root)
        return pickles.loads(frame.data)
    frames, lengths = _frames(comm, sendobj)
    comm.Scatter(lengths, length, root)
    frame = np.empty(length[0], np.uint8)
    comm.Scatterv([np.concatenate(frames), lengths], frame, root)
    return pickles.loads(frame.data)


def allgather(comm: Comm, sendobj: Any) -> list[Any]:
    """Return everybody's object, by rank."""
    frame = _pickled(sendobj)
    lengths = np.empty(comm.size, np.int64)
    comm.Allgather(np.array([frame.size]), lengths)
    everything = np.empty(lengths.sum(), np.uint8)
    comm.Allgatherv(frame, [everything, lengths])
    return _objects(everything, lengths)


def alltoall(comm: Comm, sendobj: Sequence[Any]) -> list[Any]:
    """Give the r-th object to rank r, and return what each rank gives to this one."""
    frames, lengths = _frames(comm, sendobj)
    there = np.empty(comm.size, np.int64)
    comm.Alltoall(lengths, there)
    everything = np.empty(there.sum(), np.uint8)
    comm.Alltoallv([np.concatenate(frames), lengths], [everything, there])
    return _objects(everything, there)


def reduce(comm: Comm, sendobj: Any, op: Combine = _SUM, root: int = 0) -> Any:
    """Return ((x0 op x1) op x2) ... on the root, where xr is rank r's object; None elsewhere.

    Args:
        sendobj: this rank's object.
        op: an op, or any function of two objects.
        root: the rank that combines, and gets the result.
    """
    everyone = gather(comm, sendobj, root)
    return None if everyone is None else functools.reduce(_function(op), everyone)


def allreduce(comm: Comm, sendobj: Any, op: Combine = _SUM) -> Any:
    """Return what `reduce` does on every rank; rank 0 combines."""
    return bcast(comm, reduce(comm, sendobj, op))


def scan(comm: Comm, sendobj: Any, op: Combine = _SUM) -> Any:
    """Return the reduction over the ranks up to and including this one."""
    return functools.reduce(_function(op), allgather(comm, sendobj)[: comm.rank + 1])


def exscan(comm: Comm, sendobj: Any, op: Combine = _SUM) -> Any:
    """Return the reduction over the ranks before this one; None on rank 0."""
    before = allgather(comm, sendobj)[: comm.rank]
    return functools.reduce(_function(op), before) if before else None


def _function(op: Any) -> Combine:
    """Return what combines two objects."""
    if not callable(op):
        raise InvalidArgument(f"op is {op!r} and must be an op, such as SUM, or a function of two objects")
    return op  # type: ignore[no-any-return]


def _pickled(obj: Any) -> Bytes:
    return np.frombuffer(pickles.dumps(obj), np.uint8)


def _frames(comm: Comm, objects: Sequence[Any] | None) -> tuple[list[Bytes], npt.NDArray[np.int64]]:
    """Return the frames of one object a rank, and their lengths."""
    given = [] if objects is None else list(objects)
    if len(given) != comm.size:
        raise InvalidArgument(f"sendobj has {len(given)} objects and must have {comm.size}, one a rank")
    frames = [_pickled(obj) for obj in given]
    return frames, np.array([frame.size for frame in frames])


def _objects(everything: Bytes, lengths: Any) -> list[Any]:
    ends = np.cumsum(lengths)
    return [pickles.loads(everything[end - n : end].data) for end, n in zip(ends, lengths, strict=True)]


def _room(nbytes: int) -> int:
    """Return a length at least as large, one of few: each length of a broadcast needs a plan, which is kept."""
    step = 1 << max(6, nbytes.bit_length() - 4)
    return -(-nbytes // step) * step
