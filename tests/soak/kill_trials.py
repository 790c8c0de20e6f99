"""Kills one of four ranks at a random moment, again and again: `kill_trials.py --trials 500 --transports shm`.

In each trial four processes call collectives and send messages, checking what they get, until one of them is killed
(SIGKILL). Every survivor must raise PeerLost that names it, within 2 s, and none may have got a wrong result before. A
trial's seed decides who dies, when, and what is called; one that fails is printed with the command that repeats it.
The 2 s are meant for a machine that has time: where others compute on all processors, ranks wait for those first.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable

import numpy as np

import pycomm
import pycomm.job.control  # these by name, so that each rank, a fork of this process, has them without loading them
import pycomm.schedules.registry
import pycomm.selection.predict
from pycomm.job.launch import Outcome, spawn

RANKS = 4
SOON = 2.0  # seconds within which survivors must know
PATIENCE, LIMIT = 10.0, 30.0  # seconds that a call may take, and a trial
LATEST = 40  # calls after which the last are killed

# How a survivor ended: the error's type, the rank that it names, when it came, its words.
Survival = tuple[str, int, float, str]


class Trial:
    """What the ranks of one trial do, and what became of them."""

    def __init__(self, transports: str, seed: int, soon: float = SOON) -> None:
        draw = random.Random(seed)
        self.transports, self.seed, self.soon = transports, seed, soon
        self.delays: list[float] = []
        self.victim = draw.randrange(RANKS)
        self._turn = draw.choice((0, draw.randrange(LATEST), draw.randrange(LATEST)))  # 0: while ranks connect
        self._after = draw.random() * draw.choice((0.001, 0.01))  # seconds into that call, and those that follow
        most = draw.choice((10, 3_000, 200_000))  # elements of a call
        self._counts = [1 + int(most ** draw.random()) for _ in range(3)]
        self._killed_at = mmap.mmap(-1, 8)  # shared with the ranks

    def run(self) -> list[str]:
        """Run the trial; return what is wrong, nothing if all is well."""
        try:
            outcomes = spawn(RANKS, self._rank, env={"PYCOMM_TRANSPORTS": self.transports}, timeout=LIMIT, grace=LIMIT)
        except pycomm.DeadlineExceeded as why:
            return [f"a hang: {why}"]
        (killed_at,) = struct.unpack("d", self._killed_at)
        self.delays = [o.value[2] - killed_at for o in outcomes if o.rank != self.victim and o.value is not None]
        return [text for outcome in outcomes if (text := self._judge(outcome, killed_at))]

    def _judge(self, outcome: Outcome, killed_at: float) -> str:
        if outcome.rank == self.victim:
            return "" if outcome.code == -signal.SIGKILL else f"the victim ended by itself: {outcome.error!r}"
        if outcome.error is not None or outcome.value is None:
            return f"rank {outcome.rank}: {outcome.error!r}, exit code {outcome.code}"
        kind, named, when, words = outcome.value
        if (kind, named) != ("PeerLost", self.victim):
            return f"rank {outcome.rank}: {kind} that names {named} instead of PeerLost of {self.victim}: {words}"
        late = when - killed_at
        return "" if late < self.soon else f"rank {outcome.rank} knew only after {late:.2f} s: {words}"

    def _rank(self) -> Survival:
        go = None
        if int(os.environ["PYCOMM_RANK"]) == self.victim:
            go = self._start_killer()
        try:
            self._work(pycomm.init(timeout=PATIENCE), go)
        except pycomm.PycommError as error:
            return type(error).__name__, getattr(error, "rank", -1), time.monotonic(), str(error)

    def _start_killer(self) -> int:
        """Fork a process that kills this one some time after a byte was written to what is returned."""
        victim = os.getpid()
        reads, writes = os.pipe()
        if os.fork():
            os.close(reads)
            return writes
        try:
            os.close(writes)
            if os.read(reads, 1):
                time.sleep(self._after)
                struct.pack_into("d", self._killed_at, 0, time.monotonic())
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        finally:
            os._exit(0)

    def _work(self, comm: pycomm.Comm, go: int | None) -> None:
        """Call things that all ranks draw alike, without end; tell the killer, if there is one, when to begin."""
        draw = random.Random(self.seed)
        calls: list[Callable[[pycomm.Comm, int, int], None]] = [_allreduce, _started, _alltoall, _broadcast, _messages]
        for turn in itertools.count():
            if go is not None and turn == self._turn:
                os.write(go, b"!")
            draw.choice(calls)(comm, turn, draw.choice(self._counts))


def _allreduce(comm: pycomm.Comm, turn: int, count: int) -> None:
    total = np.empty(count)
    comm.Allreduce(np.full(count, turn + comm.rank, float), total)
    _expect(total, RANKS * turn + RANKS * (RANKS - 1) // 2)


def _started(comm: pycomm.Comm, turn: int, count: int) -> None:
    totals = [np.empty(count) for _ in range(3)]
    requests = [comm.Iallreduce(np.full(count, turn * comm.rank + k, float), t) for k, t in enumerate(totals)]
    for k, (request, total) in enumerate(zip(requests, totals, strict=True)):
        request.Wait()
        _expect(total, turn * RANKS * (RANKS - 1) // 2 + RANKS * k)


def _alltoall(comm: pycomm.Comm, turn: int, count: int) -> None:
    got = np.empty((RANKS, count))
    said = turn + comm.rank * RANKS + np.arange(RANKS, dtype=float)
    comm.Alltoall(np.repeat(said, count), got)
    _expect(got, (turn + np.arange(RANKS) * RANKS + comm.rank)[:, None])


def _broadcast(comm: pycomm.Comm, turn: int, count: int) -> None:
    root = turn % RANKS
    x = np.full(count, turn if comm.rank == root else -1, float)
    comm.Bcast(x, root)
    _expect(x, turn)


def _messages(comm: pycomm.Comm, turn: int, count: int) -> None:
    step, got = 1 + turn % (RANKS - 1), np.empty(count)
    source = (comm.rank - step) % RANKS
    comm.Sendrecv(np.full(count, turn + comm.rank, float), (comm.rank + step) % RANKS, turn, got, source, turn)
    _expect(got, turn + source)


def _expect(got: np.ndarray, wanted: object) -> None:
    if not (got == wanted).all():
        raise AssertionError(f"a wrong result: {got.ravel()[:4]}... instead of {wanted}")


def run_trials(transports: str, first: int, trials: int, soon: float = SOON) -> tuple[list[str], list[float]]:
    """Run trials of seeds that count up; return what went wrong, and all survivors' delays in seconds."""
    wrong: list[str] = []
    delays: list[float] = []
    for seed in range(first, first + trials):
        trial = Trial(transports, seed, soon)
        found = trial.run()
        wrong += [f"seed {seed} over {transports}, rank {trial.victim} killed: {text}" for text in found]
        delays += trial.delays
        if found:
            print(*wrong[-len(found) :], sep="\n", flush=True)
            print(f"again: python {__file__} --trials 1 --seed {seed} --transports {transports}", flush=True)
    return wrong, delays


def main() -> int:
    """Run the trials that are asked for; the exit status is 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--transports", default="shm", help="as PYCOMM_TRANSPORTS")
    parser.add_argument("--seed", type=int, help="of the first trial; those that follow count up")
    asked = parser.parse_args()
    first = random.SystemRandom().randrange(1 << 31) if asked.seed is None else asked.seed
    print(f"{asked.trials} trials over {asked.transports} from seed {first} on", flush=True)
    began = time.monotonic()
    wrong, delays = run_trials(asked.transports, first, asked.trials)
    delays.sort()
    if delays:
        middle, worst = delays[len(delays) // 2], delays[-1]
        print(f"{len(delays)} survivors knew after {1e3 * middle:.1f} ms (median), {1e3 * worst:.0f} ms (at most)")
    failed = len({text.partition(":")[0] for text in wrong})
    print(f"{asked.trials} trials, {failed} failed, in {time.monotonic() - began:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
