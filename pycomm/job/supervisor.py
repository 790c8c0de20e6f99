"""Watches over a team of ranks: runs their hub, tells the others when one fails, ends what does not end by itself."""

from __future__ import annotations

import enum
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import zmq

from pycomm.job.environment import job_id_of
from pycomm.job.hub import Hub, allow_descriptors
from pycomm.job.output import Tagger
from pycomm.job.processes import Ending, Team

# How long (s) a rank has between SIGTERM and SIGKILL.
_LAST_WORDS = 2.0


class Meeting:
    """Where the ranks of a new job find their hub, and their secret; made before they are forked.

    Programs for torch find what they read from torchrun: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.

    Attributes:
        size: the number of ranks.
        endpoint: where the hub listens.
        secret: what only this job's ranks know.
        listener: the socket that listens there already, so that no rank is ever too early; None for tcp.
        store_port: where rank 0 may serve torch's store.
    """

    def __init__(self, size: int, endpoint: str = "") -> None:
        """Meet at the endpoint, tcp://HOST:PORT; by default at an abstract unix socket, which leaves no file behind.

        Raises SystemRefused if this process may not open as many descriptors as the launcher of so many ranks needs.
        """
        allow_descriptors(size)
        self.size = size
        self.endpoint = endpoint
        self.listener: socket.socket | None = None
        self.secret = os.urandom(32).hex().encode()
        # In memory, so that no file outlives the launcher; the user's processes, and no others, can open it through
        # /proc.
        self._memory = os.memfd_create("pycomm-secret")
        os.fchmod(self._memory, 0o600)
        os.write(self._memory, self.secret)
        if not endpoint:
            name = f"pycomm-{os.urandom(16).hex()}"
            self.endpoint = f"ipc://@{name}"
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(f"\0{name}")
            self.listener.listen(4096)
        # The port of torch's store, which listens on every address. Bound here until the job ends, it is given to no
        # other job; as nobody listens, and both sides set SO_REUSEADDR, rank 0 can bind it too.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("", 0))
        self.store_port = int(self._port.getsockname()[1])
        self._environment = {
            "PYCOMM_SIZE": str(size),
            "PYCOMM_RENDEZVOUS": f"hub+{self.endpoint}",
            "PYCOMM_SECRET_FILE": f"/proc/{os.getpid()}/fd/{self._memory}",
            "PYCOMM_PYTHON": sys.executable,
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store_port),
        }

    def enter(self, rank: int) -> None:
        """In the process of the rank: set its environment and drop what belongs to the launcher."""
        self.close()
        # Within a rank of torchrun they would send torch to that job's store.
        for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
            del os.environ[name]
        numbers = dict.fromkeys(("PYCOMM_RANK", "RANK", "LOCAL_RANK"), str(rank))
        os.environ.update(self._environment, **numbers)

    def close(self) -> None:
        """Forget the secret, stop listening and give the port back."""
        if self.listener:
            self.listener.close()
        self._port.close()
        os.close(self._memory)


class _Stage(enum.IntEnum):
    """How far the end of a job has come."""

    RUNNING = 0
    TOLD = 1
    TERMINATED = 2
    KILLED = 3


class Supervisor:
    """Runs the hub of a team until all of its ranks have ended.

    Attributes:
        endings: how the ranks ended, in that order.
        first_failure: the first of them that was not exit code 0, None if there is none.
        stopped: why the whole job was ended from outside (a limit of time, a signal), "" if it was not.
        stragglers: the ranks that had to be terminated.
    """

    def __init__(self, team: Team, meeting: Meeting, *, grace: float, limit: float | None = None) -> None:
        """Begin to serve.

        Args:
            team: the ranks, all forked already: this starts threads (of zmq), and forking a process with threads is
                unsafe.
            meeting: what the ranks were told.
            grace: seconds that the other ranks have to end by themselves after one has failed.
            limit: seconds that the job may run.
        """
        self.endings: list[Ending] = []
        self.first_failure: Ending | None = None
        self.stopped = ""
        self.stragglers: list[int] = []
        self._team = team
        self._grace = grace
        self._limit = limit
        self._limit_at = None if limit is None else time.monotonic() + limit
        self._stage = _Stage.RUNNING
        self._next_stage_at: float | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        job_id = job_id_of(meeting.secret, meeting.endpoint)
        try:
            self._hub = Hub(
                self._context, meeting.endpoint, meeting.size, job_id, meeting.secret,
                listener=meeting.listener, children=lambda: set(team.running.values()),
            )  # fmt: skip
        except BaseException:
            self._context.destroy(linger=0)  # with what the hub has opened
            raise

    def run(self, tagger: Tagger | None = None, bell: int = -1, on_bell: Callable[[], None] = lambda: None) -> None:
        """Return when all ranks have ended.

        Args:
            tagger: passes on what the ranks print.
            bell: a descriptor, and
            on_bell: what to do when it is readable.
        """
        poller = zmq.Poller()
        for pollable in (self._team.fileno(), *self._hub.pollables()):
            poller.register(pollable, zmq.POLLIN)
        if tagger:
            poller.register(tagger.fileno(), zmq.POLLIN)
        if bell >= 0:
            poller.register(bell, zmq.POLLIN)
        while self._team.running:
            if bell in dict(poller.poll(self._milliseconds())):
                on_bell()
            self._hub.turn()
            if tagger:
                tagger.pass_on()
            for ending in self._team.reap():
                self._ended(ending)
            self._press_on()

    def stop(self, why: str, number: int = 0) -> None:
        """End the job from outside: pass the signal on (0: none), tell the ranks why, and give them the grace time.

        A second call kills them.
        """
        if self.stopped:
            self._enter(_Stage.KILLED)
            return
        self.stopped = why
        if number:
            self._team.signal(number)
        self._hub.stop(why)
        self._enter(_Stage.TOLD)

    def close(self) -> None:
        """Kill what still runs and close the hub."""
        self._team.kill()
        self._hub.close()
        self._context.term()

    def _ended(self, ending: Ending) -> None:
        self.endings.append(ending)
        if ending.status == 0:
            self._hub.ended(ending.rank, str(ending))
            return
        self._hub.lose(ending.rank, str(ending))
        self.first_failure = self.first_failure or ending
        if self._stage == _Stage.RUNNING:
            self._enter(_Stage.TOLD)

    def _press_on(self) -> None:
        now = time.monotonic()
        if self._limit_at is not None and now >= self._limit_at:
            self._limit_at = None
            if not self.stopped:
                self.stop(f"the job has reached its limit of {self._limit:g} s")
        if self._next_stage_at is not None and now >= self._next_stage_at:
            self._enter(_Stage(self._stage + 1))

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        now = time.monotonic()
        if stage == _Stage.TOLD:
            self._next_stage_at = now + self._grace
        elif stage == _Stage.TERMINATED:
            self.stragglers = sorted(self._team.running)
            # A rank that was stopped (Ctrl-Z, a debugger) must run to be able to end.
            self._team.signal(signal.SIGCONT)
            self._team.signal(signal.SIGTERM)
            self._next_stage_at = now + _LAST_WORDS
        elif stage == _Stage.KILLED:
            self.stragglers = self.stragglers or sorted(self._team.running)
            self._team.signal(signal.SIGKILL)
            self._next_stage_at = None

    def _milliseconds(self) -> int | None:
        now = time.monotonic()
        waits = [due - now for due in (self._limit_at, self._next_stage_at) if due is not None]
        patience = self._hub.patience()
        if patience is not None:
            waits.append(patience)
        return 1 + max(0, int(1000 * min(waits))) if waits else None
