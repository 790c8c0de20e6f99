"""What is chosen among many hosts, beside the other candidates, the bound and the simulator's word, in laboratories:
`python perf/benchmarks/many_hosts.py examples/labs/four-hosts.toml` as root.

Nothing is configured: the ranks measure the network when they start. Each candidate algorithm is measured in as many
slices as the simulator likes best for it. The best of several noisy times is too good by luck: a choice that is a few
per cent behind it may be the best one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pycomm import init
from pycomm.lab import Lab, load
from pycomm.perf.sizes import parse_size
from pycomm.selection.candidates import Choice
from pycomm.selection.select import Selector
from pycomm.tune.measure import COLLECTIVES, Case, Measurement, measure

_ATTEMPTS = 8.0  # calls of a candidate that time is allowed for, if it takes what is predicted


class Row(NamedTuple):
    """A call, and what was found; seconds.

    Attributes:
        bound: what no schedule can beat on the links as they were measured when the job started.
        measured: the candidates, the chosen one first.
        predicted: of each of them.
    """

    collective: str
    nbytes: int
    bound: float
    measured: list[Measurement]
    predicted: list[float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("labs", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=2, help="ranks a host (default 2)")
    parser.add_argument("--collectives", default=",".join(COLLECTIVES))
    parser.add_argument("--sizes", default="8,4K,1M,32M")
    parser.add_argument("--most", type=int, default=4, help="candidates of each call (default 4)")
    args = parser.parse_args()
    sizes = [parse_size(size) for size in args.sizes.split(",")]
    for path in args.labs:
        model = load(path)
        ranks = args.n * len(model.hosts)
        with Lab(model) as lab:
            env = {"PYCOMM_NETWORK": "fresh"}
            rows = lab.run_ranks(ranks, _rank, args.collectives.split(","), sizes, args.most, env=env, timeout=900)[0]
        print(f"\n{path.stem}: {ranks} ranks on {len(model.hosts)} hosts", *map(_line, rows), sep="\n", flush=True)
        regrets = [_regret(row) for row in rows]
        errors = [abs(row.predicted[0] / row.measured[0].seconds - 1) for row in rows]
        print(f"  longer than the best: mean {_mean(regrets):.0%}, at most {max(regrets):.0%}; "
              f"simulated: mean error {_mean(errors):.0%}")  # fmt: skip


def _line(row: Row) -> str:
    chosen, best = row.measured[0], min(row.measured, key=lambda one: one.seconds)
    text = f"  {row.collective:14} {row.nbytes:>9} {1e3 * chosen.seconds:9.2f} ms {row.bound / chosen.seconds:5.0%}"
    text += f" of the bound, predicted {row.predicted[0] / chosen.seconds - 1:+5.0%}  {chosen.choice}"
    return text + (f"; {1e3 * best.seconds:.2f} ms: {best.choice}" if best is not chosen else "")


def _regret(row: Row) -> float:
    return row.measured[0].seconds / min(one.seconds for one in row.measured) - 1


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _rank(collectives: Sequence[str], sizes: Sequence[int], most: int) -> list[Row]:
    """Run on each rank."""
    comm = init()
    selector = Selector(comm.machine)
    rows = []
    for nbytes in sizes:
        for collective in collectives:
            priced = _priced(selector, collective, nbytes, most)
            cases = [Case(collective, nbytes, choice) for choice in priced]
            found = measure(comm, cases, _ATTEMPTS * sum(priced.values()))
            bound = selector.bound(collective, nbytes)
            rows.append(Row(collective, nbytes, bound.seconds if bound else 0.0, found, list(priced.values())))
    return rows


def _priced(selector: Selector, collective: str, nbytes: int, most: int) -> dict[Choice, float]:
    """Return the chosen way, and the best of each of the most promising other algorithms, with predicted seconds."""
    chosen = selector.choose(collective, nbytes)
    ranked = selector.ranked(collective, nbytes, chosen)
    by_name = sorted(ranked, key=lambda one: one.choice.algorithm)  # stable: each algorithm's fastest comes first
    best = [next(ways) for _, ways in groupby(by_name, key=lambda one: one.choice.algorithm)]
    others = sorted((one for one in best if one.choice.algorithm != chosen.algorithm), key=lambda one: one.seconds)
    own = next(one for one in ranked if one.choice == chosen)
    return {one.choice: one.seconds for one in [own, *others[: most - 1]]}


if __name__ == "__main__":
    main()
