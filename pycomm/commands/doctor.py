"""The command `pycomm doctor`: looks at the job in which it runs, or at this host, and says what is wrong."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import knobs
from ..doctor.check_limits import check_limits
from ..doctor.facts import Facts
from ..doctor.findings import Finding, Severity
from ..doctor.job import examine
from ..doctor.own import look
from ..doctor.report import check, lines
from ..errors import InvalidArgument, PeerLost, PycommError
from ..job.environment import recognise
from ..job.launch import spawn

_MOST_RANKS = 8  # that are started where there is no job
_PATIENCE = 60.0  # seconds, for all ranks to come


def register(subparsers: Any) -> None:
    """Add the command `doctor` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "doctor",
        help="look at a job and its hosts: who reaches whom and how fast, limits, clocks; and say what to do",
        description="Run it as a job, in the place of a program: `pycomm run -n 4 -m pycomm doctor`, `mpiexec -n 4 "
        "pycomm doctor`. Alone it looks at this host, with ranks of its own. It prints a line for each finding, and "
        "exits with 1 if one of them would break a job.",
    )
    parser.add_argument("-n", type=int, metavar="N", help="ranks to start, where no launcher has started some")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw latencies and rates (svg, png, pdf)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.plot:
        from ..doctor import plot  # noqa: F401  (now: that matplotlib is missing is said before anything is measured)
    place = recognise()
    if place.launcher != "none":
        if args.n is not None:
            raise InvalidArgument(f"-n is for a doctor without a launcher, and {place.launcher} has started this one")
        return _be_rank(place.rank, place.size, args.plot)
    size = max(2, min(_MOST_RANKS, len(os.sched_getaffinity(0)))) if args.n is None else args.n
    broken = _worst(check_limits(Facts((look(size),) * size, ())))
    if _code(broken):  # by which not even these ranks could be started
        _print(map(str, broken))
        return 1
    outcomes = spawn(size, lambda: _be_rank(recognise().rank, size, args.plot), timeout=600.0)
    return outcomes[0].code or outcomes[0].value


def _be_rank(rank: int, size: int, picture: Path | None) -> int:
    """Return the exit code; rank 0 prints, and knows it."""
    own = look(size)
    try:
        rank, facts = examine(own, min(knobs.TIMEOUT.value(), _PATIENCE))
    except PeerLost as why:  # the lost one says more
        return _tell_alone(size, str(why)) if rank == 0 else 1
    except PycommError as why:
        return _tell_alone(size, f"rank {rank} cannot join: {why}")
    if rank:
        return 0
    findings = check(facts)
    _print(lines(facts, findings))
    if picture:
        from ..doctor.plot import draw

        draw(facts, picture)
    return _code(findings)


def _tell_alone(size: int, why: str) -> int:
    """Say why there is no job, and what this process's limits have to do with it; return the exit code."""
    own = look(size)
    alone = Finding(Severity.ERROR, why.rstrip("."), "see what else is said here, and start the job again")
    _print(map(str, [alone, *_worst(check_limits(Facts((own,) * size, ())))]))
    return 1


def _worst(findings: Iterable[Finding]) -> list[Finding]:
    return sorted((one for one in findings if one.severity < Severity.NOTE), key=lambda one: one.severity)


def _code(findings: Sequence[Finding]) -> int:
    return int(any(finding.severity == Severity.ERROR for finding in findings))


def _print(said: Any) -> None:
    print("\n".join(said), flush=True)
