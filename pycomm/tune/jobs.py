"""Starts a job for each number of ranks and each transport, and measures on its ranks."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence

from ..communicator.comm import Comm
from ..errors import InvalidArgument
from ..job.launch import run_ranks
from ..lab import Host, Lab, Model
from .measure import Case, Measurement, measure

TRANSPORTS = ("shm", "tcp", "mixed")

_TWO_HOSTS = Model("two hosts", (Host("host0", (math.inf,)), Host("host1", (math.inf,))))


def measure_job(size: int, transport: str, cases: Sequence[Case], seconds: float) -> list[Measurement]:
    """Start `size` ranks that reach each other by `transport`, and measure.

    Args:
        size: ranks, 2 or more.
        transport: "shm", "tcp", or "mixed": two hosts, shared memory inside and sockets between.
        cases, seconds: see `measure`.

    Raises:
        InvalidArgument: there is no such transport; or it is "mixed" without being root.
    """
    if transport not in TRANSPORTS:
        raise InvalidArgument(f"there is no transport {transport!r} to measure: choose from {', '.join(TRANSPORTS)}")
    with contextlib.ExitStack() as stack:
        mixed = transport == "mixed"
        run = stack.enter_context(Lab(_TWO_HOSTS)).run_ranks if mixed else run_ranks
        env = {"PYCOMM_TRANSPORTS": "shm,tcp" if mixed else transport, "PYCOMM_ALGO": "", "PYCOMM_TUNING": ""}
        found: list[Measurement] = run(size, _rank, cases, seconds, env=env, timeout=20 * seconds + 60)[0]
    return found


def _rank(cases: Sequence[Case], seconds: float) -> list[Measurement]:
    from ..start import init

    comm = init()
    _pin(comm)
    return measure(comm, cases, seconds)


def _pin(comm: Comm) -> None:
    """Keep this rank on one processor, those of a host spread evenly: the kernel may leave all on one for seconds,
    and times would tell which case was measured then."""
    mates = next(ranks for ranks in comm.machine.hosts if comm.rank in ranks)
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[mates.index(comm.rank) % len(processors)]})
