"""A rank's end of the control plane: it exchanges addresses with all ranks, then tells of losses until it is closed."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pycomm.errors import Aborted, AuthenticationError, DeadlineExceeded, LaunchError, PeerLost, PycommError
from pycomm.job.environment import Job

if TYPE_CHECKING:
    from pycomm.job.control import Control

# How long (s) a rank waits, after its deadline, for the hub to say who has not arrived.
_VERDICT_SECONDS = 1.0

_open: set[Rendezvous] = set()
# How many rendezvous this process has made, by job.
_made: dict[int, int] = {}


class Rendezvous:
    """A meeting of all ranks of a job: the k-th that each rank makes. The rank that the Job names also runs the hub.

    One parked thread does all the work, so that every method may be called from any thread. A job of one rank needs
    neither thread nor socket. When the interpreter ends, an open rendezvous is closed; after an unhandled exception
    the others are told of it.
    """

    def __init__(self, job: Job, timeout: float = 60.0) -> None:
        """Begin to connect, without waiting. `timeout` (s) is the deadline of each exchange.

        Raises SystemRefused if this process runs the hub and cannot listen at the job's endpoint.
        """
        self._job = job
        self._timeout = timeout
        self._pid = os.getpid()
        self._closed = False
        self._changed = threading.Condition()
        self._exchanges = 0
        self._pending: dict[int, bytes] = {}
        self._replies: dict[int, list[bytes]] = {}
        self._absent: dict[int, tuple[str, str]] = {}
        self._lost: dict[int, str] = {}
        self._untold: deque[tuple[int, str]] = deque()
        self._on_lost: Callable[[int, str], None] | None = None
        self._failure: PycommError | None = None
        self._control: Control | None = None
        if job.size > 1:
            from pycomm.job.control import Control  # here, so that a job of one rank does not load zmq

            ordinal = _made.get(job.job_id, 0)
            self._control = Control(job, ordinal, self._deliver)
            _made[job.job_id] = ordinal + 1
        _open.add(self)

    @property
    def refused(self) -> int:
        """How many connections the hub in this process refused because they did not prove to belong to the job."""
        return self._control.hub.refused if self._control and self._control.hub else 0

    def exchange(self, mine: bytes, timeout: float | None = None) -> list[bytes]:
        """Give one blob, of up to 1 MB, and return those of all ranks, by rank.

        Args:
            mine: this rank's blob.
            timeout: seconds to wait; by default the rendezvous's own.

        Raises DeadlineExceeded naming the ranks that have not arrived, PeerLost naming a rank that died, Aborted if the
        job is being ended, AuthenticationError if the hub does not accept this process's secret, LaunchError if two
        processes contradict each other about ranks or size.
        """
        if self._closed:
            raise Aborted("this rendezvous is closed")
        if self._control is None:
            return [mine]
        timeout = self._timeout if timeout is None else timeout
        end = time.monotonic() + timeout
        with self._changed:
            number = self._exchanges
            self._exchanges += 1
            self._pending[number] = mine
            self._control.post([b"blob", b"%d" % number, mine])
            if not self._changed.wait_for(lambda: self._settled(number), end - time.monotonic()):
                self._control.post([b"who", b"%d" % number])
                self._changed.wait_for(lambda: self._settled(number) or number in self._absent, _VERDICT_SECONDS)
            self._pending.pop(number, None)
            if number in self._replies:
                return self._replies.pop(number)
            raise self._verdict(number, timeout)

    def watch(self, on_lost: Callable[[int, str], None]) -> None:
        """From now on call `on_lost(rank, why)`, in a thread of its own, once for each rank that dies or is aborted.

        Losses that are already known are told at once, in this thread. Rank -1 stands for the whole job: its launcher
        ends it, or died. An orderly `close` is no loss. Once the rank that runs the hub has left in order, no more
        losses are told.
        """
        with self._changed:
            self._on_lost = on_lost
        self._tell()

    def abort(self, rank: int, why: str) -> None:
        """Tell every other rank that `rank`, this one or another, is lost and why."""
        if self._control is not None and not self._closed:
            self._control.post([b"abort", b"%d" % rank, why.encode()])

    def close(self) -> None:
        """Leave, without a loss for the others. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        _open.discard(self)
        # A forked child inherits the object, but neither its thread nor the right to speak for the rank.
        if self._control is not None and self._pid == os.getpid():
            self._control.post([b"bye"])
            self._control.stop()

    def _settled(self, number: int) -> bool:
        return number in self._replies or self._failure is not None or bool(self._lost)

    def _verdict(self, number: int, timeout: float) -> PycommError:
        job = self._job
        if self._failure is not None:
            return self._failure
        for rank, why in self._lost.items():
            return Aborted(why) if rank < 0 else PeerLost(f"rank {rank} was lost while the ranks met: {why}", rank)
        if number not in self._absent:
            who = "the launcher" if job.hub < 0 else f"rank {job.hub}"
            return DeadlineExceeded(
                f"rank {job.rank} could not reach the job's hub, in {who} at {job.endpoint}, within {timeout:g} s: "
                f"check that {who} runs and that nothing blocks the way", job.hub,
            )  # fmt: skip
        absent, note = self._absent[number]
        ranks = absent.split(",")
        noun = "ranks" if len(ranks) > 1 else "rank"
        text = f"{noun} {', '.join(ranks)} of {job.size} did not arrive within {timeout:g} s"
        return DeadlineExceeded(f"{text} ({note})" if note else text, int(ranks[0]))

    def _deliver(self, message: list[bytes]) -> None:
        """Take in one message of the control thread."""
        kind = message[0]
        with self._changed:
            if kind == b"all":
                self._replies[int(message[1])] = message[2:]
            elif kind == b"absent":
                self._absent[int(message[1])] = (message[2].decode(), message[3].decode())
            elif kind == b"lost" and int(message[1]) not in self._lost:
                loss = (int(message[1]), message[2].decode())
                self._lost[loss[0]] = loss[1]
                self._untold.append(loss)
            elif kind == b"refused":
                self._failure = LaunchError(message[1].decode())
            elif kind == b"denied":
                self._failure = AuthenticationError(
                    f"the hub at {self._job.endpoint} does not accept rank {self._job.rank}'s secret: give every rank "
                    "the same PYCOMM_SECRET_FILE, and this job a PYCOMM_RENDEZVOUS of its own"
                )
            elif kind == b"again" and self._control is not None:
                for number, blob in self._pending.items():
                    self._control.post([b"blob", b"%d" % number, blob])
            elif kind == b"deaf" and not self._lost and not self._failure:
                self._failure = PeerLost(f"rank {self._job.hub}, which ran the job's hub, has left", self._job.hub)
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        while self._on_lost is not None:
            try:
                rank, why = self._untold.popleft()
            except IndexError:
                return
            try:
                self._on_lost(rank, why)
            except Exception:
                # The callback is the program's: its mistake must not end the thread that hears of the next loss.
                sys.excepthook(*sys.exc_info())


def close_all() -> None:
    """Close every open rendezvous of this process; after an unhandled exception, tell the others of it."""
    failure = getattr(sys, "last_value", None)
    for rendezvous in list(_open):
        if failure is not None:
            rendezvous.abort(rendezvous._job.rank, f"it raised {type(failure).__name__}: {failure}")
        rendezvous.close()


atexit.register(close_all)
os.register_at_fork(after_in_child=_open.clear)
