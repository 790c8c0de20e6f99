"""A rank's connection to the hub, at one of its addresses, and what becomes of it."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import zmq

from pycomm.job.environment import Job
from pycomm.job.keys import curve_pair
from pycomm.job.sockets import RANK_SILENCE_MS, monitored_event, set_heartbeat

# How often (ms) a rank tries to reach a hub that does not listen yet, at first and at most.
_RETRY = (10, 200)
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Line:
    """A connection, which is tried until it succeeds, and made anew when it has ended.

    Attributes:
        endpoint: where the hub listens.
        dealer: the socket.
        monitor: becomes readable when something has happened to the connection; then call `event`.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], job: Job, endpoint: str) -> None:
        """Begin to connect. Raises zmq.ZMQError if the endpoint makes no sense."""
        self.endpoint = endpoint
        self.dealer = context.socket(zmq.DEALER)
        self.dealer.curve_publickey, self.dealer.curve_secretkey = curve_pair(job.secret, "rank")
        self.dealer.curve_serverkey = curve_pair(job.secret, "hub")[0]
        self.dealer.reconnect_ivl, self.dealer.reconnect_ivl_max = _RETRY
        self.dealer.linger = 0
        self.dealer.ipv6 = True
        set_heartbeat(self.dealer, endpoint, RANK_SILENCE_MS)
        self.monitor = self.dealer.get_monitor_socket(_EVENTS)
        try:
            self.dealer.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def send(self, message: list[bytes]) -> None:
        """Send a message, once there is a connection."""
        self.dealer.send_multipart(message, zmq.NOBLOCK)

    def event(self) -> int:
        """Return the next event of the connection."""
        return monitored_event(self.monitor)

    def close(self) -> None:
        """Give it up; what was sent still goes for as long as the dealer lingers."""
        self.dealer.disable_monitor()
        self.monitor.close(0)
        self.dealer.close()


class Knock:
    """A plain attempt to connect, for the kernel's word on why a line cannot: zmq does not tell.

    Attributes:
        socket: becomes writable when there is an answer.
    """

    def __init__(self, endpoint: str) -> None:
        """Knock at tcp://ADDRESS:PORT. Raises OSError if the address cannot be resolved."""
        where = urlsplit(endpoint)
        found = socket.getaddrinfo(where.hostname, where.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        self._error = self.socket.connect_ex(address)

    def refused(self) -> bool:
        """Once there is an answer, return whether the host lives and nobody listens there."""
        error = self._error if self._error != errno.EINPROGRESS else 0
        error = error or self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error == errno.ECONNREFUSED

    def close(self) -> None:
        """Stop waiting."""
        self.socket.close()
