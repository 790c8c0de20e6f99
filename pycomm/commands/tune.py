"""The command `pycomm tune`: measures this machine, fits the cost model to it, and writes the table to choose by."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidArgument
from ..selection import table
from ..tune.jobs import TRANSPORTS, measure_job
from ..tune.learn import Error, learn, steady
from ..tune.measure import Measurement
from ..tune.plan import cases, default_ranks, held_out_ranks, machine_of
from ..tune.progress import progress

_TIMING = 0.3  # of the time
_SHAKY = 0.2  # part of the measurements that may vary


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `tune`."""
    parser = subparsers.add_parser(
        "tune",
        help="measure this machine, so that algorithms are chosen by what they take here",
        description="Starts jobs of several sizes, times every algorithm in them, fits the cost model, and writes a "
        "table by which later jobs choose. A part of the measurements is not fitted, and tells how well it predicts.",
    )
    parser.add_argument("-n", type=_numbers, metavar="N,N,...", help="numbers of ranks (default: by the processors)")
    parser.add_argument(
        "--transports", type=_transports, metavar="NAMES", help="shm, tcp and, as root, mixed: two hosts"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it may take, about (default 60)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write; default: where later jobs find it")
    parser.add_argument("--raw", type=Path, metavar="FILE", help="also write the measurements, as lines of JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not 1 <= args.seconds < 1e6:
        raise InvalidArgument(f"--seconds {args.seconds:g}: give it 1 s or more")
    ranks = args.n or default_ranks()
    transports = args.transports or (TRANSPORTS if os.geteuid() == 0 else TRANSPORTS[:2])
    path = args.out or table.home()
    before = table.load(path) if path.exists() else table.Table()  # now: what is wrong in it is said before the minute
    found = _measured(ranks, transports, args.seconds)
    if args.raw:
        args.raw.write_text("".join(json.dumps(one.as_dict()) + "\n" for one in found))
    learnt, off = learn(found, held_out_ranks(ranks))
    table.save(table.merge(before, learnt), path)
    print("\n".join(_report(off)))
    shaky = 1 - len(steady(found)) / len(found)
    if shaky > _SHAKY:
        print(f"{shaky:.0%} of the times varied much: something else was running; tune again when the machine is idle")
    print(f"{len(found)} measurements; wrote {path}", *([] if args.out is None else [f"(use it: PYCOMM_ALGO=@{path})"]))
    return 0


def _measured(ranks: list[int], transports: tuple[str, ...], seconds: float) -> list[Measurement]:
    jobs = [(size, transport) for transport in transports for size in ranks if transport != "mixed" or size > 2]
    if not jobs:
        raise InvalidArgument("two hosts need 3 ranks or more between them to use both shared memory and sockets")
    found: list[Measurement] = []
    with progress(len(jobs)) as step:
        for size, transport in jobs:
            step(f"{size} ranks, {transport}")
            # The rest of the time is spent on starting, on connecting, on finding how long things take, and on fitting.
            found += measure_job(size, transport, cases(machine_of(size, transport)), seconds / len(jobs) * _TIMING)
    return found


def _report(off: list[Error]) -> Iterator[str]:
    yield "mean error of the predictions, for sizes and numbers of ranks that were not fitted:"
    yield f"{'transport':>10} {'ranks':>6} {'< 64 KiB':>10} {'>= 64 KiB':>10} {'cases':>6}"
    for error in off:
        short, long = ("-" if e is None else f"{e:.1%}" for e in (error.short, error.long))
        yield f"{error.transport:>10} {error.size:>6} {short:>10} {long:>10} {error.count:>6}"


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 2:
        raise argparse.ArgumentTypeError("expected numbers of 2 or more with commas between them")
    return numbers


def _transports(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(TRANSPORTS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(TRANSPORTS)}")
    return names
