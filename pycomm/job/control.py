"""The thread that holds a rank's connection to the hub and, in the rank that runs it, the hub itself."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import zmq

from pycomm.errors import LaunchError
from pycomm.job import host, publication
from pycomm.job.environment import Job
from pycomm.job.hub import Hub
from pycomm.job.line import Knock, Line

# After so many refused handshakes a rank believes that the hub has another secret; one may be an accident of a dying
# hub.
_REFUSALS_BELIEVED = 3
_LINGER_MS = 1000
# How long (s) the hub's rank, when it leaves, waits for others to hear of it.
_GOODBYE = 1.0
# How long (s) a rank whose connection has failed dials the hub's addresses before it takes the hub for dead.
_DIALLING = 2.5
# What was sent so long (s) before a connection was found silent may not have arrived.
_UNSURE = 6.0


class Control:
    """A connection to the hub that joins, joins again if the hub was still an earlier one's, and notices its death.

    Over tcp a connection that fails is no death yet: the rank dials all addresses of the hub, which listens on each
    network that may lead to it, and goes on over the first that answers. What may have been lost is sent again.

    `deliver` is called in the thread with every message from the hub: [b"all", exchange, blob...], [b"lost", rank,
    why], [b"refused", why], [b"absent", exchange, ranks, note]; and with three of this class's own: [b"denied"] when
    the hub does not accept the secret, [b"again"] when what was posted before is lost and must be posted again,
    [b"deaf"] when no more will come.
    """

    def __init__(self, job: Job, ordinal: int, deliver: Callable[[list[bytes]], None]) -> None:
        """Begin to connect.

        Args:
            job: this rank's place.
            ordinal: how many rendezvous of the job this process has made before.
            deliver: takes the messages.

        Raises SystemRefused if this rank runs the hub and cannot listen, LaunchError if the endpoint makes no sense.
        """
        self._job = job
        self._ordinal = ordinal
        self._deliver = deliver
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self.hub: Hub | None = None
        if job.rank == job.hub:
            try:
                self.hub = Hub(self._context, job.endpoint, job.size, job.job_id, job.secret, on_met=self.withdraw)
            except BaseException:
                self._context.destroy(linger=0)  # with what the hub has opened
                self.withdraw()
                raise
        try:
            self._line = Line(self._context, job, job.endpoint)
        except zmq.ZMQError as why:
            if self.hub:
                self.hub.close()
            self._context.term()
            raise LaunchError(f"cannot use PYCOMM_RENDEZVOUS={job.endpoint}: {why.strerror}") from why
        self._line.send([b"hello", *self._facts()])
        # The hub's other addresses; the lines on which it is dialled, and until when (time.monotonic()).
        self._others: list[str] = []
        self._dials: list[Line] = []
        self._dials_end = 0.0
        self._knock: Knock | None = None
        self._sent: deque[tuple[float, list[bytes]]] = deque()
        # Connected: what is sent may be lost if the connection ends. Joined: the hub has welcomed this rank. Met: an
        # exchange has succeeded, so that this is the job's hub for good.
        self._connected = self._joined = self._met = self._deaf = False
        self._refusals = 0
        self._posts: deque[list[bytes]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # wakes the thread; -1: it has ended
        self._ringing = threading.Lock()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="pycomm-control", daemon=True)
        self.thread.start()

    def post(self, message: list[bytes]) -> None:
        """Send the message to the hub soon; from any thread."""
        self._posts.append(message)
        self._ring()

    def stop(self) -> None:
        """Send what was posted, close everything and end the thread; from any thread, once."""
        self._stopping = True
        self._ring()
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _ring(self) -> None:
        with self._ringing:  # the thread may be about to end
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def withdraw(self) -> None:
        """Take back the file by which the other ranks found this one."""
        if self._job.published:
            publication.withdraw(self._job.published)

    def _facts(self) -> list[bytes]:
        job = self._job
        numbers = [b"%d" % number for number in (job.rank, job.size, job.job_id, self._ordinal, os.getpid())]
        return [*numbers, socket.gethostname().encode(), host.node_identity().encode()]

    def _run(self) -> None:
        while not self._stopping:
            self._wait()
            if self.hub:
                self.hub.turn()
            if self._dials:
                self._listen_to_dials()
            self._send_posts()
            if not self._deaf and not self._dials:
                self._listen()
        while self._dials:  # who leaves must say so
            self._wait()
            if self._dials:
                self._listen_to_dials()
        self._send_posts()
        self._finish()

    def _wait(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        for line in self._dials or ([] if self._deaf else [self._line]):
            poller.register(line.dealer, zmq.POLLIN)
            poller.register(line.monitor, zmq.POLLIN)
        patience = None
        if self.hub:
            for pollable in self.hub.pollables():
                poller.register(pollable, zmq.POLLIN)
            patience = self.hub.patience()
        if self._dials:
            left = max(0.0, self._dials_end - time.monotonic())
            patience = left if patience is None else min(patience, left)
        if self._knock:
            poller.register(self._knock.socket, zmq.POLLOUT)
        ready = dict(poller.poll(None if patience is None else 1 + int(1000 * patience)))
        if self._bell in ready:
            os.eventfd_read(self._bell)
        if self._knock and self._knock.socket.fileno() in ready:
            self._answered(self._knock)

    def _send_posts(self) -> None:
        while self._posts and not self._dials:
            message = self._posts.popleft()
            if not self._deaf:
                self._line.send(message)
                self._note(message)

    def _note(self, message: list[bytes]) -> None:
        now = time.monotonic()
        self._sent.append((now, message))
        while self._sent[0][0] < now - _UNSURE:
            self._sent.popleft()

    def _listen(self) -> None:
        self._read()
        while not self._deaf and not self._dials and self._line.monitor.poll(0):
            event = self._line.event()
            # A broken connection may only be the end of what the last message announces, which may have come just now.
            self._read()
            if self._deaf:
                return
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif event == zmq.EVENT_DISCONNECTED:
                self._disconnected()
            elif event != zmq.EVENT_CLOSED:
                self._refused()

    def _read(self) -> None:
        while not self._deaf and self._line.dealer.poll(0):
            # The hub is authenticated, so a malformed message is a bug of its; it must not end this thread.
            with contextlib.suppress(ValueError, IndexError):
                self._hear(self._line.dealer.recv_multipart())

    def _refused(self) -> None:
        self._refusals += 1
        if self._refusals == _REFUSALS_BELIEVED:
            self._deliver([b"denied"])
            self._become_deaf()

    def _hear(self, message: list[bytes]) -> None:
        kind = message[0]
        if kind == b"welcome":
            self._joined = True
            self._others = [other.decode() for other in message[1:]]
            self._line.dealer.linger = _LINGER_MS
        elif kind == b"closing":
            # If the ranks have not met yet, this was the hub of an earlier rendezvous at the same address.
            self._joined = False
            if self._met:
                self._line.send([b"bye"])  # for which the hub waits
                self._become_deaf()
        elif kind == b"unknown":  # another hub has answered than the one that this rank had joined
            if self._met:
                self._lost()
            else:
                self._join_again()
        elif kind != b"probe":
            self._met = self._met or kind == b"all"
            self._deliver(message)

    def _disconnected(self) -> None:
        if self._joined and self._job.endpoint.startswith("tcp://"):
            self._dial()
        elif self._joined:
            self._lost()
        elif self._connected:
            self._connected = False
            self._join_again()

    def _join_again(self) -> None:
        self._joined = False
        self._line.send([b"hello", *self._facts()])
        self._deliver([b"again"])

    def _dial(self) -> None:
        """Call the hub at all of its addresses, that of the line which has failed among them."""
        self._line.dealer.linger = 0
        self._line.close()
        self._dials_end = time.monotonic() + _DIALLING
        for endpoint in (self._job.endpoint, *self._others):
            with contextlib.suppress(zmq.ZMQError):  # of a family that this host lacks
                self._dials.append(Line(self._context, self._job, endpoint))
                self._dials[-1].send([b"call"])

    def _listen_to_dials(self) -> None:
        for line in list(self._dials):
            if line.dealer.poll(0):
                self._go_on(line)
                return
            while line.monitor.poll(0):
                failed = line.event() == zmq.EVENT_CLOSED
                # A refusal at an address that never answered proves nothing: it may be somebody else's in our networks.
                if failed and line.endpoint == self._line.endpoint and not self._knock:
                    with contextlib.suppress(OSError):
                        self._knock = Knock(line.endpoint)
        if time.monotonic() >= self._dials_end:
            self._lost()

    def _answered(self, knock: Knock) -> None:
        self._knock = None
        if knock.refused():
            self._lost()
        knock.close()

    def _go_on(self, line: Line) -> None:
        """Take a line on which the hub has answered, and send again what it may lack."""
        self._dials.remove(line)
        self._close_dials()
        self._line = line
        line.dealer.recv_multipart()  # the answer
        line.send([b"back", *self._facts()])
        for _, message in self._sent:
            line.send(message)
        self._deliver([b"again"])

    def _lost(self) -> None:
        who = "the launcher" if self._job.hub < 0 else f"rank {self._job.hub}, which runs the job's hub,"
        why = f"the connection to {who} ended: its process, its host or the link died"
        self._deliver([b"lost", b"%d" % self._job.hub, why.encode()])
        self._become_deaf()

    def _become_deaf(self) -> None:
        self._joined = False
        self._deaf = True
        if self._dials:
            self._close_dials()
        else:
            self._line.close()
        self._deliver([b"deaf"])

    def _close_dials(self) -> None:
        while self._dials:
            self._dials.pop().close()
        if self._knock:
            self._knock.close()
            self._knock = None

    def _finish(self) -> None:
        if self.hub:
            self.hub.turn()
            self.hub.close(_GOODBYE)
            self.withdraw()
        if self._dials:
            self._close_dials()
        elif not self._deaf:
            self._line.close()
        self._context.term()
        with self._ringing:
            os.close(self._bell)
            self._bell = -1
