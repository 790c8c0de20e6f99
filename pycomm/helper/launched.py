"""The process beside a rank that has no Python: joins its job, tells it of ranks that die, chooses its schedules.

`pcm_launched_world` (csrc/helper/launched.c) starts it, `python -m pycomm.helper.launched`, one for each rank. Its
standard input is a socket on which it is asked (pycomm/helper/advice.py says how), its standard output one on which it
tells of losses. It goes with its rank.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence

from .. import knobs
from ..errors import InvalidArgument
from ..job import host
from ..job.environment import Job, join
from ..job.rendezvous import Rendezvous
from ..start import Known, addresses, introduce, machine_of
from .advice import Advice, answer

_JOINED = struct.Struct("<iiQdi")  # rank, size, job, timeout, whether to encrypt; then texts
_NUMBER = struct.Struct("<i")
_LENGTH = struct.Struct("<I")
_LOSS = struct.Struct("<iI")  # the rank, -1 for the job; the length of why
_PATIENCE = 60.0  # seconds that ranks wait for each other at most, as in `init`


class Helper(Advice):
    """What a rank may ask, beside what `Advice` answers."""

    questions = (*Advice.questions, "join", "meet", "group", "leave")

    def __init__(self, news: socket.socket) -> None:
        super().__init__()
        self._news = news
        self._job: Job | None = None
        self._met: Rendezvous | None = None
        self._others: Known | None = None
        self._pid, self._shared = 0, True

    def join(self, pid: int) -> bytes:
        """Return the rank's place in the job that its launcher has made, and how its world is to be opened."""
        names = knobs.TRANSPORTS.value()
        if any(name.partition(":")[0] == "mpi" for name in names):
            raise InvalidArgument("PYCOMM_TRANSPORTS has mpi, for which a program in C calls pcm_mpi_world")
        timeout = knobs.TIMEOUT.value()
        self._pid, self._shared = pid, "shm" in names
        self._job = job = join(timeout=min(timeout, _PATIENCE))
        self._met = Rendezvous(job, min(timeout, _PATIENCE))
        host.allow_descriptors(host.PEER_DESCRIPTORS * job.size, pid)
        texts = [job.secret.hex(), ",".join(names), *(text or "" for text in addresses(job.endpoint))]
        told = _JOINED.pack(job.rank, job.size, job.job_id, timeout, knobs.ENCRYPT.value())
        return told + "".join(f"{text}\0" for text in texts).encode()

    def meet(self, address: str) -> bytes:
        """Tell all ranks where this one is; return how many share its processors, and all addresses."""
        assert self._job is not None and self._met is not None
        allowed = os.sched_getaffinity(self._pid)
        self._others = introduce(self._job.rank, self._met.exchange, allowed, bytes.fromhex(address))
        _, mates = machine_of(self._others.facts, self._job.rank, shared=self._shared, table=self._others.table)
        self._met.watch(self._tell)
        parts = [_LENGTH.pack(len(one)) + one for one in self._others.addresses]
        return _NUMBER.pack(mates) + b"".join(parts)

    def group(self, ranks: Sequence[int]) -> bytes:
        """Return the number of the machine of some ranks, for `plan`."""
        assert self._job is not None and self._others is not None
        facts = [self._others.facts[rank] for rank in ranks]
        own = ranks.index(self._job.rank)
        machine, _ = machine_of(facts, own, shared=self._shared, table=self._others.table)
        return _NUMBER.pack(self.number(tuple(ranks), machine))

    def leave(self) -> bytes:
        """Leave in order."""
        if self._met is not None:
            self._met.close()
        return b""

    def died(self) -> None:
        """Tell the others that the rank has gone without leaving, unless it has left."""
        if self._met is not None and self._job is not None:
            self._met.abort(self._job.rank, "its process ended without pcm_world_destroy")
            self._met.close()

    def _tell(self, rank: int, why: str) -> None:
        text = why.encode()
        with contextlib.suppress(OSError):  # it has gone meanwhile
            self._news.sendall(_LOSS.pack(rank, len(text)) + text)


def main() -> None:
    """Answer a rank until it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is for the rank, and ends this process with it
    rank, news = (socket.socket(fileno=os.dup(descriptor)) for descriptor in (0, 1))
    os.dup2(2, 1)  # what is printed is no news
    with rank, news, rank.makefile("rb") as lines:
        helper = Helper(news)
        try:
            while answer(helper, rank, lines):
                pass
        except Exception as why:
            sys.exit(f"pycomm: a rank's helper fails: {why!r}")
        finally:
            helper.died()


if __name__ == "__main__":
    main()
