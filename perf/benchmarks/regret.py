"""How good the selector's choices are on this machine, and its predictions: `python perf/benchmarks/regret.py --help`.

Every candidate is measured at sizes and numbers of ranks that `pycomm tune` does not fit. The regret of a choice is how
much longer it takes than the best candidate. The best of many noisy times is too good by luck; so the fastest few and
the chosen one are measured once more, longer and side by side, and those times are compared.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from pycomm.selection import table
from pycomm.selection.candidates import Choice, candidates
from pycomm.selection.machine import Machine
from pycomm.selection.select import Selector
from pycomm.tune.jobs import measure_job
from pycomm.tune.learn import LONG, errors
from pycomm.tune.measure import COLLECTIVES, Case, Measurement
from pycomm.tune.plan import machine_of

SIZES = (40, 2_000, 12_000, 100_000, 700_000, 3_000_000)  # none of tune's
FINALISTS = 4

Key = tuple[str, int, str, int]  # transport, ranks, collective, nbytes asked for


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", default="2,3,4,5,7,8", help="numbers of ranks")
    parser.add_argument("--transports", default="shm,tcp,mixed")
    parser.add_argument("--table", type=Path, help="default: the user's, or pycomm's own calibration")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of ranks and transport")
    args = parser.parse_args()
    learnt = table.find(str(args.table or ""))
    regrets: dict[Key, float] = {}
    found: list[Measurement] = []
    for transport in args.transports.split(","):
        for size in map(int, args.n.split(",")):
            if transport == "mixed" and size < 3:
                continue
            machine = replace(machine_of(size, transport), table=learnt)
            every = _every_candidate(machine)
            first = measure_job(size, transport, every, args.seconds / 2)
            chosen = _chosen(machine)
            again = measure_job(size, transport, _finalists(first, chosen), args.seconds / 2)
            found += first
            regrets |= _regrets(again, chosen)
            print(f"{transport} {size}: {_summary([r for key, r in regrets.items() if key[:2] == (transport, size)])}",
                  flush=True)  # fmt: skip
    print(f"\nregret: {_summary(list(regrets.values()))}\nworst:")
    for key, regret in sorted(regrets.items(), key=lambda pair: pair[1])[-8:]:
        print(f"  {regret:6.1%}  {key}")
    print(f"\nmean |predicted / measured - 1|\n{'transport':>10} {'ranks':>6} {'< 64 KiB':>10} {'>= 64 KiB':>10}")
    for error in errors(found, learnt):
        short, long = ("-" if e is None else f"{e:.1%}" for e in (error.short, error.long))
        print(f"{error.transport:>10} {error.size:>6} {short:>10} {long:>10}")
    print(f"short: below {LONG} bytes; {len(found)} measurements")


def _every_candidate(machine: Machine) -> list[Case]:
    return [Case(c, n, way) for c in COLLECTIVES for n in SIZES for way in candidates(c, n, machine)]


def _chosen(machine: Machine) -> dict[tuple[str, int], Choice]:
    selector = Selector(machine)
    return {(c, n): selector.choose(c, n) for c in COLLECTIVES for n in SIZES}


def _finalists(found: list[Measurement], chosen: dict[tuple[str, int], Choice]) -> list[Case]:
    """Return the fastest few of each call, and the chosen one."""
    calls: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
    for one in found:
        calls[one.collective, one.asked].append(one)
    cases = []
    for (collective, nbytes), ways in calls.items():
        best = [one.choice for one in sorted(ways, key=lambda one: one.seconds)[:FINALISTS]]
        cases += [Case(collective, nbytes, way) for way in dict.fromkeys([*best, chosen[collective, nbytes]])]
    return cases


def _regrets(found: list[Measurement], chosen: dict[tuple[str, int], Choice]) -> dict[Key, float]:
    calls: dict[Key, dict[Choice, float]] = defaultdict(dict)
    for one in found:
        calls[one.transport, one.size, one.collective, one.asked][one.choice] = one.seconds
    return {key: ways[chosen[key[2:]]] / min(ways.values()) - 1 for key, ways in calls.items()}


def _summary(regrets: list[float]) -> str:
    return (
        f"mean {np.mean(regrets):.1%}, 95th percentile {np.percentile(regrets, 95):.1%}, max {max(regrets):.1%} "
        f"over {len(regrets)} calls"
    )


if __name__ == "__main__":
    main()
