"""A random program of a rank: what all do alike comes from the seed, and when each does it from seed and rank."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "comm"))
from conformance import COLLECTIVES, REDUCING, ROOTED, Case, begin

import pycomm
from pycomm.schedules import registry

PATIENCE = 60.0  # seconds that a call may take: far beyond any honest wait
MOST_COMMS, MOST_PENDING = 4, 14
INTS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float32", "float64", "float16")
ARITHMETIC, ORDER = (pycomm.SUM, pycomm.PROD), (pycomm.MIN, pycomm.MAX)
LOGICAL, BITS = (pycomm.LAND, pycomm.LOR, pycomm.LXOR), (pycomm.BAND, pycomm.BOR, pycomm.BXOR)
OPS: dict[str, tuple[int, ...]] = {  # those whose results do not depend on rounding
    **dict.fromkeys(INTS, ARITHMETIC + ORDER + LOGICAL + BITS),
    **dict.fromkeys(FLOATS, ARITHMETIC + ORDER),
    **dict.fromkeys(("complex64", "complex128"), ARITHMETIC),
    "bool": ARITHMETIC + LOGICAL + BITS,
}


@dataclass(frozen=True)
class Shape:
    """Where a program runs.

    Attributes:
        transports: as PYCOMM_TRANSPORTS.
        size: how many ranks.
        processes: each rank is a process; else a thread.
    """

    transports: str
    size: int
    processes: bool

    @staticmethod
    def drawn(seed: int, transports: str | None = None) -> Shape:
        """Return the shape that belongs to a seed; transports: those that are asked for."""
        draw = random.Random(f"shape {seed}")
        inner = draw.choice(("inproc", "shm", "tcp"))
        chaos = f"chaos:seed={seed % 1000};deny=0.1;short=0.2;delay_us={draw.choice((0, 30, 300))};inner={inner}"
        drawn = draw.choice(("inproc", "shm", "shm", "tcp", "tcp", chaos, chaos))
        size, processes = draw.choice((1, 2, 2, 3, 4, 5, 7)), draw.random() < 0.5
        names = transports or drawn
        return Shape(names, size, processes and "inproc" not in names)


class Program:
    """One rank's run through a program of `steps` random steps."""

    def __init__(self, comm: pycomm.Comm, seed: int, steps: int) -> None:
        comm.set_timeout(PATIENCE)
        self._world = comm
        self._comms = [comm]  # as many on each rank; those that were split differ in their members
        self._pending: list[tuple[pycomm.Comm, Callable[[], Any]]] = []
        self._alike = random.Random(f"alike {seed}")  # draws must be the same, and as many, on all ranks
        self._own = random.Random(f"rank {comm.rank} of {seed}")
        self._steps = steps
        self._step = 0

    def run(self) -> None:
        """Do all steps, and end what is under way."""
        kinds = (
            [self._collective] * 12 + [self._uneven] * 3 + [self._messages] * 5 + [self._objects, self._persistent]
            + [self._split, self._split, self._free, self._threads, self._barrier]
        )  # fmt: skip
        for step in range(self._steps):
            self._step = step
            self._alike.choice(kinds)()
            if self._own.random() < 0.05:
                time.sleep(self._own.random() * 0.01)
            if len(self._pending) > MOST_PENDING or self._own.random() < 0.1:
                self._end(self._pending[:])
        self._end(self._pending[:])
        if self._alike.random() < 0.5:
            self._world.Barrier()  # else ranks leave while others are still at it

    def _end(self, these: list[tuple[pycomm.Comm, Callable[[], Any]]]) -> None:
        """End operations, in an order of this rank's own."""
        self._own.shuffle(these)
        for entry in these:
            entry[1]()
            self._pending.remove(entry)

    def _later(self, comm: pycomm.Comm, end: Callable[[], Any]) -> None:
        self._pending.append((comm, end))

    def _comm(self) -> pycomm.Comm:
        return self._alike.choice(self._comms)

    def _count(self, most: int = 100_000) -> int:
        """Draw a number of elements: small ones are as likely as large ones."""
        return self._alike.choice((0, 1, int(most ** self._alike.random())))

    def _collective(self) -> None:
        comm, collective, draw = self._comm(), self._alike.choice(COLLECTIVES), self._alike
        dtype = draw.choice(list(OPS))
        op = draw.choice(OPS[dtype])
        whole = self._count()
        root, in_place = draw.randrange(1 << 20) % comm.size, draw.random() < 0.3
        count = whole if collective in ("allreduce", "reduce", "broadcast", "scan", "exscan") else whole // 4
        how: dict[str, Any] = {}
        if draw.random() < 0.2:
            how["algorithm"] = draw.choice(registry.names(collective))
        if draw.random() < 0.2:
            how["slices"] = draw.randrange(1, 7)
        case = Case(
            collective, count, np.dtype(dtype), op if collective in REDUCING else pycomm.SUM,
            root if collective in ROOTED else 0, in_place, self._own.random() < 0.4, how,
        )  # fmt: skip
        end = begin(comm, case)
        if case.waits:
            end()
        else:
            self._later(comm, end)

    def _uneven(self) -> None:
        """Blocks of different lengths, none among them."""
        comm, draw = self._comm(), self._alike
        name = draw.choice(("Allgatherv", "Gatherv", "Scatterv", "Alltoallv", "Reduce_scatter"))
        drawn = [self._count(20_000) * draw.randrange(2) for _ in range(64)]
        counts = np.array(drawn[: comm.size])
        root, ends = draw.randrange(1 << 20) % comm.size, np.cumsum(counts)
        total, me = int(counts.sum()), slice(int(ends[comm.rank] - counts[comm.rank]), int(ends[comm.rank]))
        whole = (np.arange(total) * 3 + self._step) % 1009
        here = comm.rank == root
        match name:
            case "Allgatherv":
                got, wanted = np.full(total, -1), whole
                request = comm.Iallgatherv(whole[me].copy(), [got, counts])
            case "Gatherv":
                got, wanted = np.full(total if here else 0, -1), whole if here else whole[:0]
                request = comm.Igatherv(whole[me].copy(), [got, counts] if here else None, root)
            case "Scatterv":
                got, wanted = np.full(counts[comm.rank], -1), whole[me]
                request = comm.Iscatterv([whole, counts] if here else None, got, root)
            case "Reduce_scatter":
                got, wanted = np.full(counts[comm.rank], -1), comm.size * whole[me]
                request = comm.Ireduce_scatter(whole, got, counts)
            case _:  # each rank sends counts[q] to rank q
                got = np.full(int(counts[comm.rank]) * comm.size, -1)
                wanted = np.tile(whole[me], comm.size)
                request = comm.Ialltoallv([whole, counts], [got, [int(counts[comm.rank])] * comm.size])

        def end() -> None:
            request.Wait()
            assert np.array_equal(got, wanted), f"{name} with {counts} on rank {comm.rank} of {comm.size}"

        self._later(comm, end)

    def _messages(self) -> None:
        """Each rank sends a few to another, short and long ones, and gets them from whom it may."""
        comm, draw, own = self._comm(), self._alike, self._own
        shift = draw.randrange(1 << 20) % comm.size
        to, frm = (comm.rank + shift) % comm.size, (comm.rank - shift) % comm.size
        counts = {8 * self._step + k: self._count() for k in range(draw.randrange(1, 5))}
        receives = {}
        for tag in own.sample(list(counts), len(counts)):
            source = own.choice((frm, pycomm.ANY_SOURCE))
            receives[tag] = comm.Irecv(room := np.full(counts[tag], -1), source, tag), room
        send = own.choice((comm.Isend, comm.Issend))
        said = {tag: np.arange(counts[tag]) + tag + comm.rank for tag in counts}
        sends = {tag: send(said[tag], to, tag) for tag in own.sample(list(counts), len(counts))}

        def end() -> None:
            for tag in own.sample(list(counts), len(counts)):
                status = pycomm.Status()
                (request, room), there = receives[tag], np.arange(counts[tag]) + tag + frm
                request.Wait(status)
                assert (status.source, status.tag) == (frm, tag), f"{status.source} with {status.tag}, not {frm}, {tag}"
                assert np.array_equal(room, there), f"message {tag} from {frm} to {comm.rank} of {comm.size}"
            for request in sends.values():
                request.Wait()

        self._later(comm, end)

    def _objects(self) -> None:
        comm, root = self._comm(), self._alike.randrange(1 << 20)
        root %= comm.size
        assert comm.allgather((comm.rank, "x" * comm.rank)) == [(r, "x" * r) for r in range(comm.size)]
        assert comm.bcast({"step": self._step} if comm.rank == root else None, root) == {"step": self._step}
        assert comm.allreduce(comm.rank) == comm.size * (comm.size - 1) // 2

    def _persistent(self) -> None:
        comm, count = self._comm(), self._count()
        x, total = np.empty(count), np.empty(count)
        request = comm.Allreduce_init(x, total)
        for turn in range(3):
            x[:] = turn + comm.rank
            request.Start()
            request.Wait()
            assert (total == comm.size * turn + comm.size * (comm.size - 1) // 2).all()
        request.Free()

    def _barrier(self) -> None:
        comm = self._comm()
        if self._own.random() < 0.5:
            self._later(comm, comm.Ibarrier().Wait)
        else:
            comm.Barrier()

    def _split(self) -> None:
        comm, colours = self._comm(), [self._alike.randrange(3) for _ in range(64)]
        if len(self._comms) == MOST_COMMS:
            return
        own = comm.Split(colours[comm.rank], self._own.randrange(5))
        assert own is not None
        own.set_timeout(PATIENCE)
        self._comms.append(own)

    def _free(self) -> None:
        """Free a communicator whose operations this rank has seen the end of; others may still be at them."""
        if len(self._comms) == 1:
            return
        gone = self._comms.pop(self._alike.randrange(1, len(self._comms)))
        self._end([entry for entry in self._pending if entry[0] is gone])
        gone.Free()

    def _threads(self) -> None:
        """Two threads of a rank at once: each on a communicator of its own, with own tags on a shared one."""
        seeds = [self._alike.randrange(1 << 30) for _ in range(2)]
        owns = [self._world.Dup() for _ in seeds]
        failures: list[BaseException] = []

        def work(own: pycomm.Comm, seed: int) -> None:
            try:
                inner = Program(own, seed, 0)
                to, frm = (own.rank + 1) % own.size, (own.rank - 1) % own.size
                for turn in range(6):
                    inner._step = turn
                    inner._collective()
                    got, tag = np.empty(1, np.int64), 1 << 20 | seed % 1000 << 8 | turn
                    self._world.Sendrecv(np.array([seed + own.rank]), to, tag, got, frm, tag)
                    assert got[0] == seed + frm, f"{got[0]} instead of {seed + frm} from {frm}"
                inner._end(inner._pending[:])
            except BaseException as why:
                failures.append(why)

        threads = [threading.Thread(target=work, args=each) for each in zip(owns, seeds, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        for own in owns:
            own.Free()
