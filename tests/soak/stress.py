"""Runs random programs, each of one seed, for some time: `stress.py --seconds 60`; a failure tells how to repeat it.

A seed decides everything but time: the transports, how many ranks, whether they are threads or processes, each call.
So a program that fails is repeated by its seed alone, though what depends on timing may need several runs.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from program import Program, Shape

import pycomm
import pycomm.job.control  # these by name, so that each rank, a fork of this process, has them without loading them
import pycomm.schedules.registry
import pycomm.selection.predict
from pycomm.job.launch import exit_with, run_ranks

LIMIT = 150  # seconds that a program may take; its calls give up sooner
STEPS = 60


def run(shape: Shape, seed: int, steps: int) -> None:
    """Run one program on all its ranks; raises what the first rank raised that failed."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    if shape.processes:
        environment = {"PYCOMM_TRANSPORTS": shape.transports}
        run_ranks(shape.size, lambda: Program(pycomm.init(), seed, steps).run(), env=environment, timeout=LIMIT)
    else:
        pycomm.run_threads(shape.size, lambda comm: Program(comm, seed, steps).run(), transports=shape.transports)
    faulthandler.cancel_dump_traceback_later()


def run_apart(shape: Shape, seed: int, steps: int) -> bool:
    """Run one program in a process of its own, so that a crash is a failure too; return whether all was well."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        exit_with(lambda: run(shape, seed, steps) or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        print(f"seed {seed} ended with {code} on {shape}", flush=True)
    return not code


def main() -> int:
    """Run programs until time is over; the exit status is 0 if none failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no new program after this long")
    parser.add_argument("--seed", type=int, help="of the first program; those that follow count up")
    parser.add_argument("--programs", type=int, default=sys.maxsize, help="at most so many")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a program")
    parser.add_argument("--transports", help="those for all programs, instead of the seed's")
    asked = parser.parse_args()
    first = random.SystemRandom().randrange(1 << 31) if asked.seed is None else asked.seed
    print(f"first seed {first}", flush=True)
    until, ran, failed = time.monotonic() + asked.seconds, Counter[str](), []
    for seed in range(first, first + asked.programs):
        if time.monotonic() > until:
            break
        shape = Shape.drawn(seed, asked.transports)
        ran[f"{shape.transports.partition(':')[0]}, {'processes' if shape.processes else 'threads'}"] += 1
        if not run_apart(shape, seed, asked.steps):
            failed.append(seed)
    print("\n".join(f"{count:6} programs over {where}" for where, count in sorted(ran.items())))
    again = f"--steps {asked.steps}" + (f" --transports '{asked.transports}'" if asked.transports else "")
    for seed in failed:
        print(f"again: python {__file__} --programs 1 --seed {seed} {again}")
    print(f"{ran.total()} programs from seed {first} on, {len(failed)} failed")
    return int(bool(failed) or not ran)


if __name__ == "__main__":
    sys.exit(main())
