"""The thread that holds a rank's connection to the hub and, in the rank that runs it, the hub itself."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable

import zmq

from pycomm import host, publication
from pycomm.environment import Job
from pycomm.errors import LaunchError
from pycomm.hub import Hub
from pycomm.keys import curve_pair
from pycomm.sockets import monitored_event, set_heartbeat

# How often (ms) a rank tries to reach a hub that does not listen yet, at first and at most.
_RETRY = (10, 200)
# After so many refused handshakes a rank believes that the hub has another secret; one may be an accident of a dying
# hub.
_REFUSALS_BELIEVED = 3
_LINGER_MS = 1000
# How long (s) the hub's rank, when it leaves, waits for others to hear of it.
_GOODBYE = 1.0
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


class Control:
    """A connection to the hub that joins, joins again if the hub was still an earlier one's, and notices its death.

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
                self._context.term()
                self.withdraw()
                raise
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.curve_publickey, self._dealer.curve_secretkey = curve_pair(job.secret, "rank")
        self._dealer.curve_serverkey = curve_pair(job.secret, "hub")[0]
        self._dealer.reconnect_ivl, self._dealer.reconnect_ivl_max = _RETRY
        self._dealer.linger = 0
        self._dealer.ipv6 = True
        set_heartbeat(self._dealer, job.endpoint)
        self._monitor = self._dealer.get_monitor_socket(_EVENTS)
        try:
            self._dealer.connect(job.endpoint)
        except zmq.ZMQError as why:
            self._close_dealer()
            if self.hub:
                self.hub.close()
            self._context.term()
            raise LaunchError(f"cannot use PYCOMM_RENDEZVOUS={job.endpoint}: {why.strerror}") from why
        self._dealer.send_multipart(self._hello())
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

    def _hello(self) -> list[bytes]:
        job = self._job
        numbers = [b"%d" % number for number in (job.rank, job.size, job.job_id, self._ordinal, os.getpid())]
        return [b"hello", *numbers, socket.gethostname().encode(), host.node_identity().encode()]

    def _run(self) -> None:
        while not self._stopping:
            self._wait()
            self._send_posts()
            if self.hub:
                self.hub.turn()
            if not self._deaf:
                self._listen()
        self._send_posts()
        self._finish()

    def _wait(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        if not self._deaf:
            poller.register(self._dealer, zmq.POLLIN)
            poller.register(self._monitor, zmq.POLLIN)
        patience = None
        if self.hub:
            for pollable in self.hub.pollables():
                poller.register(pollable, zmq.POLLIN)
            patience = self.hub.patience()
        ready = dict(poller.poll(None if patience is None else 1 + int(1000 * patience)))
        if self._bell in ready:
            os.eventfd_read(self._bell)

    def _send_posts(self) -> None:
        while self._posts:
            message = self._posts.popleft()
            if not self._deaf:
                self._dealer.send_multipart(message, zmq.NOBLOCK)

    def _listen(self) -> None:
        self._read()
        while not self._deaf and self._monitor.poll(0):
            event = monitored_event(self._monitor)
            # A broken connection may only be the end of what the last message announces, which may have come just now.
            self._read()
            if self._deaf:
                return
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif event == zmq.EVENT_DISCONNECTED:
                self._disconnected()
            else:
                self._refused()

    def _read(self) -> None:
        while not self._deaf and self._dealer.poll(0):
            self._hear(self._dealer.recv_multipart())

    def _refused(self) -> None:
        self._refusals += 1
        if self._refusals == _REFUSALS_BELIEVED:
            self._deliver([b"denied"])
            self._become_deaf()

    def _hear(self, message: list[bytes]) -> None:
        kind = message[0]
        if kind == b"welcome":
            self._joined = True
            self._dealer.linger = _LINGER_MS
        elif kind == b"closing":
            # If the ranks have not met yet, this was the hub of an earlier rendezvous at the same address.
            self._joined = False
            if self._met:
                self._dealer.send_multipart([b"bye"], zmq.NOBLOCK)  # for which the hub waits
                self._become_deaf()
        elif kind != b"probe":
            self._met = self._met or kind == b"all"
            self._deliver(message)

    def _disconnected(self) -> None:
        if self._joined:
            who = "the launcher" if self._job.hub < 0 else f"rank {self._job.hub}, which runs the job's hub,"
            why = f"the connection to {who} ended: its process, its host or the link died"
            self._deliver([b"lost", b"%d" % self._job.hub, why.encode()])
            self._become_deaf()
        elif self._connected:
            self._connected = False
            self._dealer.send_multipart(self._hello(), zmq.NOBLOCK)
            self._deliver([b"again"])

    def _become_deaf(self) -> None:
        self._joined = False
        self._deaf = True
        self._close_dealer()
        self._deliver([b"deaf"])

    def _close_dealer(self) -> None:
        self._dealer.disable_monitor()
        self._monitor.close(0)
        self._dealer.close()

    def _finish(self) -> None:
        if self.hub:
            self.hub.turn()
            self.hub.close(_GOODBYE)
            self.withdraw()
        if not self._deaf:
            self._close_dealer()
        self._context.term()
        with self._ringing:
            os.close(self._bell)
            self._bell = -1
