"""The hub of a job's control plane: it lets only the job's ranks in, gathers their blobs and tells them of losses.

It has no thread of its own: whoever owns it, the launcher or rank 0's rendezvous thread, polls `pollables()` and
calls `turn()`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import zmq
from zmq.utils import z85

from pycomm import knobs
from pycomm.errors import LaunchError, SystemRefused
from pycomm.job import host, interfaces
from pycomm.job.keys import curve_pair
from pycomm.job.sockets import HUB_SILENCE_MS, monitored_event, set_heartbeat

# After a connection ended, the ranks are probed at these times (s): the router learns which of them it was a little
# later.
_PROBE_DELAYS = (0.0, 0.02, 0.1, 0.5)
# After how long (s) the probes have told which rank's connection ended, if it was a rank's.
_UNTIL_SETTLED = 0.25
# How long (s) a lost connection waits for the process's own end to be seen, which explains it better.
_UNTIL_EXPLAINED = 0.3
# How long (s) it waits over tcp, also for the rank to dial again over another network.
_UNTIL_DIALLED = 1.0
# How long (s) the end of a process waits for the end of its connection, before which stands what it said last. The
# kernel may tell of the process first, and long before where many ranks share processors; and of the connection never,
# where a child of the process holds it.
_UNTIL_READ = 1.0
_LARGEST_MESSAGE = 1 << 20
_DESCRIPTORS = (
    4  # that each rank costs the process of the hub: a connection; a launcher, its process, output and result
)
_OWN_DESCRIPTORS = 24  # of the process: what it has open anyway, and what its own sockets take


def allow_descriptors(size: int) -> None:
    """Let this process run the hub of so many ranks.

    Raises SystemRefused if it may not open as many descriptors.
    """
    needed = _OWN_DESCRIPTORS + _DESCRIPTORS * size
    allowed = host.allow_descriptors(needed)
    if allowed < needed:
        what = f"the hub of {size} ranks opens {needed} descriptors and may open {allowed}"
        raise SystemRefused(errno.EMFILE, f"{what}: raise the hard limit (`ulimit -Hn`)")


@dataclass
class _Member:
    """One rank of a session, as its hello described it."""

    rank: int
    route: bytes
    pid: int
    host: str
    here: bool
    left: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid} on {self.host})"


@dataclass(frozen=True)
class _Suspicion:
    """A rank that will be lost unless it turns out to have left.

    Attributes:
        due: when, on time.monotonic's clock.
        why: what others will be told.
        ended: whether it is its process that ended: then the end of its connection settles it.
    """

    due: float
    why: str
    ended: bool


@dataclass
class _Session:
    """One meeting of all ranks.

    Attributes:
        latest: the last exchange that was complete, and what all were sent: someone's may be lost with a connection.
        ordinal: each rank's process takes part in it with its k-th rendezvous, counted from 0. There may be several of
            one ordinal, if each rank's process was followed by another.
    """

    ordinal: int
    members: dict[int, _Member] = field(default_factory=dict)
    blobs: dict[int, dict[int, bytes]] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    latest: tuple[int, list[bytes]] | None = None
    met: bool = False
    failure: str = ""


class Hub:
    """The server side of the control plane.

    Attributes:
        refused: how many connections have ended without proving that they belong to the job.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        size: int,
        job_id: int,
        secret: bytes,
        *,
        listener: socket.socket | None = None,
        children: Callable[[], set[int]] = set,
        on_met: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen at the endpoint.

        Args:
            listener: an already listening socket at the endpoint, which the hub takes over.
            children: returns the processes whose ends the owner reports by `lose`; the hub watches only the others.
            on_met: called when all ranks of a session have met for the first time.

        Raises SystemRefused if the address cannot be had, or not as many descriptors as there are ranks; LaunchError if
        the endpoint names no host.
        """
        allow_descriptors(size)
        self.size = size
        self.job_id = job_id
        self.refused = 0
        self._children = children
        self._on_met = on_met
        self._closing = False
        self._node = host.node_identity()
        self._sessions: list[_Session] = []
        self._routes: dict[bytes, tuple[_Session, _Member]] = {}
        self._suspects: dict[bytes, _Suspicion] = {}
        # Ranks' processes on this host, by descriptors (pidfd) that become readable when the process ends.
        self._watched: dict[int, _Member] = {}
        self._ends = select.epoll()
        # Ranks whose processes ended, for the sessions that are still to come.
        self._gone: dict[int, str] = {}
        # Connections that said hello and are not known to have ended; how many there were; when the others ended.
        self._known: set[bytes] = set()
        self._hellos = 0
        self._ends_of_connections: deque[float] = deque()
        self._settled = 0
        self._probes: list[float] = []
        self._strangers: list[str] = []
        public, private = curve_pair(secret, "hub")
        self._rank_key: bytes = z85.decode(curve_pair(secret, "rank")[0])
        # ZAP: the context asks this socket about every key that a client shows.
        self._door = context.socket(zmq.REP)
        self._door.bind("inproc://zeromq.zap.01")
        self._router = context.socket(zmq.ROUTER)
        self._router.curve_server = True
        self._router.curve_secretkey = private
        self._router.curve_publickey = public
        self._router.router_mandatory = True
        self._router.maxmsgsize = _LARGEST_MESSAGE
        self._router.linger = 1000
        self._router.ipv6 = True
        self._router.backlog = 4096
        set_heartbeat(self._router, endpoint, HUB_SILENCE_MS)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._patience = _UNTIL_DIALLED if endpoint.startswith("tcp://") else _UNTIL_EXPLAINED
        # Where else this hub listens: on the other networks that may lead here.
        self._others: list[bytes] = []
        try:
            self._listen(endpoint, listener)
        except BaseException:
            self.close()
            raise

    def _listen(self, endpoint: str, listener: socket.socket | None) -> None:
        if listener is not None:
            self._router.use_fd = listener.detach()
        try:
            if endpoint.startswith("tcp://"):
                self._listen_tcp(endpoint)
            else:
                self._router.bind(endpoint)
        except zmq.ZMQError as why:
            raise SystemRefused(
                why.errno, f"cannot listen at {endpoint}: {why.strerror}. Choose another port in PYCOMM_RENDEZVOUS."
            ) from why

    def _listen_tcp(self, endpoint: str) -> None:
        name, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        try:
            found = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4]
        except OSError as why:
            raise LaunchError(f"cannot resolve the host of PYCOMM_RENDEZVOUS={endpoint}: {why.strerror}") from why
        address = interfaces.numeric(found)
        if host.is_own_name(name) and ipaddress.ip_address(address).is_loopback:
            self._router.bind(f"tcp://*:{port}")  # other hosts resolve the name to another address
            return
        try:
            self._router.bind(_endpoint(address, port))
            self._listen_beside(address)
        except zmq.ZMQError as why:
            # The name may be that of a forwarder in front of this host (containers, cloud machines).
            if why.errno not in (zmq.EADDRNOTAVAIL, errno.ENODEV):
                raise
            self._router.bind(f"tcp://*:{port}")

    def _listen_beside(self, address: str) -> None:
        allowed = knobs.SOCKET_IFNAME.value()
        usable = interfaces.addresses(allowed) if allowed.names else None
        for other in interfaces.beside(address):
            if usable is None or other in usable:
                with contextlib.suppress(zmq.ZMQError):  # an interface that goes away while this looks
                    self._router.bind(_endpoint(other, "*"))
                    self._others.append(self._router.get_string(zmq.LAST_ENDPOINT).encode())

    # What the owner does.

    def pollables(self) -> list[zmq.Socket[bytes] | int]:
        """Return the sockets and descriptors that become readable when `turn` has work."""
        return [self._router, self._door, self._monitor, self._ends.fileno()]

    def patience(self) -> float | None:
        """Return after how many seconds `turn` has work even if nothing becomes readable, None if never."""
        due = [*(suspicion.due for suspicion in self._suspects.values()), *self._probes[:1]]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def turn(self) -> None:
        """Do all that can be done without waiting."""
        while self._door.poll(0):
            self._admit(self._door.recv_multipart())
        while self._monitor.poll(0):
            monitored_event(self._monitor)
            self._connection_ended()
        self._read()
        for fd, _ in self._ends.poll(0):
            self._process_ended(fd)
        if self._probe():
            self._read()  # what those whose connections have ended said before
        self._count_refusals()
        now = time.monotonic()
        for route, suspicion in list(self._suspects.items()):
            if suspicion.due <= now:
                session, member = self._routes[route]
                self._forget(member)
                self._lose(session, member.rank, suspicion.why)

    def lose(self, rank: int, why: str) -> None:
        """Tell all ranks that this one is lost: its process failed."""
        self._gone[rank] = why
        for session in self._sessions:
            self._lose(session, rank, why, even_if_left=True)

    def ended(self, rank: int, why: str) -> None:
        """Tell all ranks that this one is lost if it has not left: its process ended without an error."""
        self._gone[rank] = why
        for session in self._sessions:
            member = session.members.get(rank)
            if member is None:
                self._lose(session, rank, why)
            else:
                self._suspect(member, why)

    def stop(self, why: str) -> None:
        """Tell all ranks that the whole job is being ended: they see the loss of rank -1."""
        self.lose(-1, why)

    def close(self, patience: float = 0.0) -> None:
        """Tell the ranks that no more notices will come, and stop listening.

        Args:
            patience: seconds to wait for those who have not heard it: what a connection carries may go down with it.
        """
        self._closing = True
        told = [
            (session, member)
            for session, member in self._routes.values()
            if not member.left and member.rank not in session.lost
        ]
        for _, member in told:
            self._send(member.route, [b"closing"])
        poller = zmq.Poller()
        for pollable in self.pollables():
            poller.register(pollable, zmq.POLLIN)
        end = time.monotonic() + patience
        while any(session.met and member.route in self._routes for session, member in told):
            left = end - time.monotonic()
            if left <= 0:
                break
            due = self.patience()
            poller.poll(1 + int(1000 * (left if due is None else min(left, due))))
            self.turn()
        for fd in list(self._watched):
            self._unwatch(fd)
        self._ends.close()
        with contextlib.suppress(zmq.ZMQError):
            self._router.disable_monitor()
        self._monitor.close(0)
        self._router.close()
        self._door.close(0)

    # Who may come in.

    def _admit(self, request: list[bytes]) -> None:
        ours = len(request) > 6 and request[5] == b"CURVE" and request[6] == self._rank_key
        verdict = [b"200", b"OK"] if ours else [b"400", b"this key does not belong to the job"]
        self._door.send_multipart([request[0], request[1], *verdict, b"", b""])

    def _connection_ended(self) -> None:
        # Nothing says whose it was: a stranger's, or one of those that the probes will miss.
        now = time.monotonic()
        self._ends_of_connections.append(now)
        if not self._probes or self._probes[-1] < now + _UNTIL_SETTLED:
            self._probes = sorted([*self._probes, *(now + delay for delay in _PROBE_DELAYS)])

    def _count_refusals(self) -> None:
        settled = time.monotonic() - _UNTIL_SETTLED
        while self._ends_of_connections and self._ends_of_connections[0] <= settled:
            self._ends_of_connections.popleft()
            self._settled += 1
        self.refused = max(self.refused, self._settled - (self._hellos - len(self._known)))

    # What the ranks say.

    def _read(self) -> None:
        while self._router.poll(0):
            route, *message = self._router.recv_multipart()
            # The ranks are authenticated, so a malformed message is a bug of theirs; it must not end everybody's hub.
            with contextlib.suppress(ValueError, IndexError, OverflowError):
                self._handle(route, message)

    def _handle(self, route: bytes, message: list[bytes]) -> None:
        kind = message[0]
        if kind == b"hello":
            self._hello(route, message)
            return
        if kind == b"call":
            self._count(route)
            self._send(route, [b"answer"])
            return
        if kind == b"back":
            self._back(route, message)
            return
        if route not in self._routes:
            return
        session, member = self._routes[route]
        if kind == b"blob":
            self._gather(session, member.rank, int(message[1]), message[2])
        elif kind == b"who":
            arrived = session.blobs.get(int(message[1]), {})
            absent = [str(rank) for rank in range(self.size) if rank not in arrived]
            note = "; ".join(self._strangers)
            self._send(route, [b"absent", message[1], ",".join(absent).encode(), note.encode()])
        elif kind == b"abort":
            self._lose(session, int(message[1]), message[2].decode(errors="replace"), even_if_left=True, teller=member)
        elif kind == b"bye":
            self._leave(session, member)

    def _count(self, route: bytes) -> bool:
        """Note a connection that has proved to be a rank's; return whether it is a new one."""
        if route in self._known:
            return False
        self._known.add(route)
        self._hellos += 1
        return True

    def _back(self, route: bytes, message: list[bytes]) -> None:
        """Take a rank that had dialled for the one that it was on its last connection, with an earlier hub perhaps."""
        rank, _, job_id, ordinal, pid = (int(part) for part in message[1:6])
        name = message[6].decode(errors="replace")
        known = False
        for session in self._sessions if job_id == self.job_id else ():
            member = session.members.get(rank)
            if session.ordinal != ordinal or member is None or (member.pid, member.host) != (pid, name) or member.left:
                continue
            known = True
            if member.route in self._routes:
                self._forget(member)
                member.route = route
                self._routes[route] = (session, member)
                self._send(route, [b"welcome", *self._others])
            for gone, why in session.lost.items():  # perhaps the rank itself: then it hears that it was given up
                self._send(route, [b"lost", b"%d" % gone, why.encode()])
        if not known:
            self._send(route, [b"unknown"])

    def _hello(self, route: bytes, message: list[bytes]) -> None:
        if not self._count(route):
            return
        rank, size, job_id, ordinal, pid = (int(part) for part in message[1:6])
        name, node = message[6].decode(errors="replace"), message[7].decode(errors="replace")
        newcomer = _Member(rank, route, pid, name, here=node == self._node)
        if job_id != self.job_id:
            # Perhaps a straggler of an earlier run with the same secret: it must not end this job.
            self._refuse(
                newcomer, f"{newcomer} belongs to job {job_id:016x}, not to job {self.job_id:016x} that meets here"
            )
            return
        session = self._session_of(ordinal, rank)
        known = session.members.get(rank)
        contradiction = ""
        if size != self.size or not 0 <= rank < size:
            contradiction = f"{newcomer} was told that there are {size} ranks, others that there are {self.size}"
        elif known is not None:
            contradiction = (
                f"two processes claim to be rank {rank}: pid {known.pid} on {known.host} and pid {pid} on {name}"
            )
        if contradiction and session.met:
            self._refuse(newcomer, contradiction)
            return
        if contradiction:
            self._fail(session, contradiction, newcomer)
            return
        session.members[rank] = newcomer
        self._routes[route] = (session, newcomer)
        self._send(route, [b"welcome", *self._others])
        if session.failure:
            self._send(route, [b"refused", session.failure.encode()])
        for gone, why in session.lost.items():
            self._send(route, [b"lost", b"%d" % gone, why.encode()])
        if self._closing:
            self._send(route, [b"closing"])
        if newcomer.here and pid not in self._children():
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                self._watched[fd] = newcomer
                self._ends.register(fd, select.EPOLLIN)

    def _session_of(self, ordinal: int, rank: int) -> _Session:
        """Return the first session of this ordinal that the rank has not left."""
        for session in self._sessions:
            known = session.members.get(rank)
            if session.ordinal == ordinal and not (known and known.left):
                return session
        self._sessions.append(_Session(ordinal, lost=dict(self._gone)))
        return self._sessions[-1]

    def _gather(self, session: _Session, rank: int, number: int, blob: bytes) -> None:
        if session.latest and session.latest[0] == number:
            self._send(session.members[rank].route, session.latest[1])
            return
        arrived = session.blobs.setdefault(number, {})
        arrived[rank] = blob
        if len(arrived) < self.size:
            return
        del session.blobs[number]
        if not session.met:
            session.met = True
            self._on_met()
        reply = [b"all", b"%d" % number, *(arrived[rank] for rank in range(self.size))]
        session.latest = number, reply
        for member in list(session.members.values()):
            self._send(member.route, reply)

    def _leave(self, session: _Session, member: _Member) -> None:
        member.left = True
        self._forget(member)
        if len(session.members) == self.size and all(known.left for known in session.members.values()):
            self._sessions.remove(session)

    # How ranks are lost.

    def _process_ended(self, fd: int) -> None:
        member = self._watched[fd]
        status = host.exit_status_of_zombie(member.pid)
        self._unwatch(fd)
        self._suspect(member, f"its process {host.describe_status(status)} (pid {member.pid} on {member.host})")

    def _suspect(self, member: _Member, why: str) -> None:
        """Its process has ended."""
        if member.route in self._routes:
            patience = _UNTIL_READ if member.route in self._known else 0.0
            self._suspects[member.route] = _Suspicion(time.monotonic() + patience, why, ended=True)

    def _unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._ends.unregister(fd)
        os.close(fd)

    def _probe(self) -> bool:
        if not self._probes or self._probes[0] > time.monotonic():
            return False
        self._probes.pop(0)
        for route in list(self._known):
            self._send(route, [b"probe"])
        return True

    def _send(self, route: bytes, message: list[bytes]) -> None:
        try:
            self._router.send_multipart([route, *message], zmq.NOBLOCK)
        except zmq.Again:
            # A stopped process whose queue is full: it has been told enough, and its deadline will tell the rest.
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._known.discard(route)
            if route in self._routes:
                self._connection_missed(self._routes[route][1])

    def _connection_missed(self, member: _Member) -> None:
        now, known = time.monotonic(), self._suspects.get(member.route)
        if known is None:
            why = f"its connection ended (pid {member.pid} on {member.host})"
            self._suspects[member.route] = _Suspicion(now + self._patience, why, ended=False)
        elif known.ended:
            self._suspects[member.route] = replace(known, due=now)

    def _lose(
        self, session: _Session, rank: int, why: str, *, even_if_left: bool = False, teller: _Member | None = None
    ) -> None:
        member = session.members.get(rank)
        if rank in session.lost or (member is not None and member.left and not even_if_left):
            return
        listeners = [known for known in session.members.values() if not known.left and known.rank not in session.lost]
        session.lost[rank] = why
        if member is not None and teller is None:
            self._forget(member)
            listeners = [known for known in listeners if known is not member]
        for other in listeners:
            if other is not teller:
                self._send(other.route, [b"lost", b"%d" % rank, why.encode()])

    def _forget(self, member: _Member) -> None:
        self._routes.pop(member.route, None)
        self._suspects.pop(member.route, None)

    def _refuse(self, newcomer: _Member, text: str) -> None:
        self._strangers.append(text)
        self._send(newcomer.route, [b"refused", text.encode()])

    def _fail(self, session: _Session, text: str, newcomer: _Member) -> None:
        session.failure = text
        for member in (*session.members.values(), newcomer):
            if not member.left:
                self._send(member.route, [b"refused", text.encode()])


def _endpoint(address: str, port: str) -> str:
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
