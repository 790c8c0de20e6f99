"""Jobs of measured ranks, and the order in which they are measured: every library in turn, in several short rounds.

All jobs are started once and then sleep, each rank on its own channel, so that the one that is measured has the machine
to itself; and the libraries take turns within each cell (A B C A B C), so that what the machine does meanwhile is
shared among them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq

from pycomm.errors import DeadlineExceeded, PeerLost

from . import machine, overlap
from .bench import Cell, Library
from .rivals import Rival
from .worker import Server

Reply = dict[str, Any]

_TRIAL = 5  # calls in the first round, which only checks and tells how long a call takes


class Job(Protocol):
    """All ranks of one library."""

    name: str
    version: str
    hosts: list[tuple[int, str]]

    def ask(self, request: dict[str, Any]) -> list[Reply]:
        """Every rank's reply to a request of `worker.Server`, by rank.

        Raises:
            PeerLost: a rank failed or died; the message is what it said.
            DeadlineExceeded: a rank did not answer in time.
        """

    def close(self) -> None:
        """Let the ranks go."""


class Switchboard:
    """The coordinator's end of every launched rank's channel: one socket, in a directory of its own."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pycomm-perf-")))
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.endpoint = f"ipc://{self.scratch / 'channel'}"
        self.socket.bind(self.endpoint)

    def __enter__(self) -> Switchboard:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=1000)
        self._stack.close()


class LaunchedJob:
    """A job that this process starts on this machine through the library's own launcher.

    Args:
        seconds: how long starting, and any one reply, may take.
        join: what the workers pass to `adapters.join`.

    Raises:
        PeerLost, DeadlineExceeded: the job did not start; the message holds the end of what it printed.
    """

    def __init__(
        self, board: Switchboard, rival: Rival, place: str, ranks: int, seconds: float, join: dict[str, Any]
    ) -> None:
        self.name = rival.name
        self._board, self._ranks, self._seconds = board, ranks, seconds
        self._log = board.scratch / f"{rival.name}.log"
        settings = {
            "join": {"name": rival.name, "store": f"file://{board.scratch / 'store'}", **join},
            "job": rival.name,
            "endpoint": board.endpoint,
            "coordinator": os.getpid(),
        }
        # Fair to all: a library that computes in threads of its own gets its share of the cores, and no more.
        threads = {"OMP_NUM_THREADS": str(max(1, machine.cores() // ranks))}
        worker = [sys.executable, "-P", "-m", f"{__package__}.worker", json.dumps(settings)]
        with self._log.open("wb") as log:
            self._processes = [
                subprocess.Popen(
                    command,
                    env=threads | os.environ | extra,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for command, extra in rival.launch(place, ranks, worker)
            ]
        try:
            hellos = self._replies()
        except Exception:
            self.close()
            raise
        self.version = str(hellos[0]["version"])
        self.hosts = [(int(hello["pid"]), str(hello["host"])) for hello in hellos]

    def ask(self, request: dict[str, Any]) -> list[Reply]:
        """See `Job.ask`."""
        message = json.dumps(request).encode()
        for rank in range(self._ranks):
            try:
                self._board.socket.send_multipart([f"{self.name}:{rank}".encode(), message])
            except zmq.ZMQError as error:
                raise PeerLost(f"{self.name}: rank {rank} is gone: {error}{self._last_words()}", rank) from error
        return self._replies()

    def _replies(self) -> list[Reply]:
        replies: dict[int, Reply] = {}
        deadline = time.monotonic() + self._seconds
        while len(replies) < self._ranks:
            if not self._board.socket.poll(200):
                if any(process.poll() is not None for process in self._processes):
                    raise PeerLost(f"{self.name}: a process ended early{self._last_words()}")
                if time.monotonic() > deadline:
                    silent = sorted(set(range(self._ranks)) - set(replies))
                    raise DeadlineExceeded(
                        f"{self.name}: no answer from rank {', '.join(map(str, silent))} in {self._seconds:g} s; "
                        f"a longer -T may help{self._last_words()}"
                    )
                continue
            identity, message = self._board.socket.recv_multipart()
            job, _, rank = identity.decode().rpartition(":")
            if job != self.name:  # the last words of a job that was given up
                continue
            reply = json.loads(message)
            if "error" in reply:
                raise PeerLost(f"{self.name}: {reply['error']}{self._last_words()}", int(rank))
            replies[int(rank)] = reply
        return [replies[rank] for rank in range(self._ranks)]

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()[-8:]
        return "".join(f"\n    {line}" for line in lines)

    def close(self) -> None:
        """Ask the ranks to stop; then ask their launcher to end them, which knows them all; then end it."""
        for rank in range(self._ranks):
            with contextlib.suppress(zmq.ZMQError):  # a rank that never came
                self._board.socket.send_multipart([f"{self.name}:{rank}".encode(), b'{"do": "stop"}'], zmq.NOBLOCK)
        self._wait(5)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            self._wait(5)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))


class CooperatingJob:
    """A job that this process itself is rank 0 of, launched by somebody else.

    Requests and replies travel through `control`, the first library that was joined; `server` measures this one.
    """

    def __init__(self, control: Library, server: Server) -> None:
        self.name, self.version = server.library.name, server.library.version
        self._control, self._server = control, server
        self.hosts = [(int(r["pid"]), str(r["host"])) for r in self.ask({"do": "hello"})]

    def ask(self, request: dict[str, Any]) -> list[Reply]:
        """See `Job.ask`; whatever goes wrong is raised as it is and ends the job in its launcher's way."""
        self._control.broadcast(json.dumps({**request, "library": self.name}).encode())
        return _exchange(self._control, self._server.answer(request))

    def close(self) -> None:
        """Leave, with the other ranks."""
        self.ask({"do": "stop"})
        self._server.library.close()


def cooperate(servers: dict[str, Server]) -> None:
    """What every rank but 0 of a cooperating job does: answer rank 0's requests until it has closed every library."""
    control = next(iter(servers.values())).library
    while servers:
        request = json.loads(control.broadcast(None))
        _exchange(control, servers[request["library"]].answer(request))
        if request["do"] == "stop":
            servers.pop(request["library"]).library.close()


def _exchange(control: Library, reply: Reply) -> list[Reply]:
    """Every rank's reply, on every rank."""
    data = json.dumps(reply).encode()
    longest = int(control.allgather(np.array([len(data)], np.float64)).max())
    padded = data.ljust(-(-longest // 8) * 8)
    everybody = control.allgather(np.frombuffer(padded, np.float64).copy())
    return [json.loads(row.tobytes()) for row in everybody]


# ---- measuring ----


@dataclass(frozen=True)
class Effort:
    """How long to measure a cell.

    Attributes:
        warmup: unmeasured calls at the start of each round.
        iterations: measured calls in all, or None to fit them into `seconds`.
        rounds: how often the libraries take turns.
        average: how the ranks' times of one call become one: `rank0`, `mean`, `min` or `max`.
    """

    warmup: int = 2
    iterations: int | None = None
    seconds: float = 0.5
    rounds: int = 3
    least: int = 12
    most: int = 3000
    average: str = "mean"
    check: bool = True


@dataclass
class Sample:
    """What was measured of one library in one cell: microseconds of every timed call, combined over the ranks.

    Attributes:
        times: of calls alone.
        compute, total: of computing alone, and of calls with as much computing, if overlap was measured.
        wrong: wrong elements, or None if unchecked.
        unsupported: why the library cannot make the call.
    """

    times: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    wrong: int | None = None
    unsupported: str | None = None

    @property
    def median(self) -> float:
        """The median, in microseconds."""
        return float(np.median(self.times))

    @property
    def overlap(self) -> float | None:
        """The share of a call that computing hides, in per cent; None if it was not measured."""
        if not self.total:
            return None
        return overlap.percent(self.median, float(np.median(self.compute)), float(np.median(self.total)))

    @property
    def low(self) -> float:
        """The fastest call, in microseconds."""
        return float(np.min(self.times))

    @property
    def high(self) -> float:
        """The slowest call, in microseconds."""
        return float(np.max(self.times))

    @property
    def p99(self) -> float:
        """The 99th percentile, in microseconds."""
        return float(np.percentile(self.times, 99))

    @property
    def variation(self) -> float:
        """The standard deviation as per cent of the mean."""
        return float(100 * np.std(self.times) / np.mean(self.times))


_COMBINE: dict[str, Callable[[Any], Any]] = {
    "rank0": lambda times: times[0],
    "mean": lambda times: times.mean(axis=0),
    "min": lambda times: times.min(axis=0),
    "max": lambda times: times.max(axis=0),
}


def measure(jobs: list[Job], cell: Cell, effort: Effort, failed: Callable[[Job, Exception], None]) -> dict[str, Sample]:
    """Each job's sample of one cell, the jobs taking turns. A job that fails is reported to `failed` and left out."""
    samples = {job.name: Sample() for job in jobs}
    walls: dict[str, float] = {}
    for turn in range(-1, effort.rounds):
        for job in jobs:
            sample = samples.get(job.name)
            if sample is None or sample.unsupported:
                continue
            trial = turn < 0
            request = {
                "do": "measure",
                "cell": cell.__dict__,
                "warmup": effort.warmup,
                "iterations": _TRIAL if trial else _iterations(effort, walls[job.name]),
                "check": effort.check and (trial or turn == effort.rounds - 1),
            }
            try:
                replies = job.ask(request)
            except Exception as error:
                failed(job, error)
                del samples[job.name]
                continue
            if "unsupported" in replies[0]:
                sample.unsupported = replies[0]["unsupported"]
                continue
            wall = max(reply["wall"] for reply in replies)
            walls[job.name] = min(wall, walls.get(job.name, wall))
            if not trial:
                for kind in ("times", "compute", "total"):
                    if kind in replies[0]:
                        times = np.array([reply[kind] for reply in replies]) / 1e3
                        getattr(sample, kind).extend(_COMBINE[effort.average](times).tolist())
            wrong = [reply["wrong"] for reply in replies if reply.get("wrong") is not None]
            if wrong:
                sample.wrong = (sample.wrong or 0) + sum(wrong)
    return samples


def _iterations(effort: Effort, wall: float) -> int:
    """Timed calls a round, given the nanoseconds that one took with all around it in the rounds so far."""
    if effort.iterations is not None:
        return -(-effort.iterations // effort.rounds)
    wanted = effort.seconds * 1e9 / max(wall, 1.0)
    return int(-(-max(effort.least, min(effort.most, wanted)) // effort.rounds))


@contextlib.contextmanager
def closing(jobs: list[Job]) -> Iterator[list[Job]]:
    """The jobs, let go at the end whatever happens."""
    try:
        yield jobs
    finally:
        for job in reversed(jobs):  # the first one carries the others' control messages
            job.close()
