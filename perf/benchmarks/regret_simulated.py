"""How good the selector's choices are on machines that are described: against all candidates, simulated.

`python perf/benchmarks/regret_simulated.py --help`. Machines are drawn at random: fat trees with taper, boxes, rails,
tori, dragonflies, sites, prime numbers of ranks, links degraded. The regret of a choice is how much longer it takes
than the best of all algorithms in 1 to 128 slices, 1 to 8 at once, whatever the selector would have tried.
"""

from __future__ import annotations

import argparse
import random
import warnings
from dataclasses import replace
from itertools import product

import numpy as np

from pycomm.errors import InvalidArgument
from pycomm.selection.candidates import Choice, algorithms
from pycomm.selection.predict import Described, machine_of
from pycomm.selection.select import Selector
from pycomm.topology import Topology, load
from pycomm.tune.measure import COLLECTIVES

SLICES, WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--machines", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    regrets: list[tuple[float, str]] = []
    for _ in range(args.machines):
        topology = machine(draw)
        model = Described(topology)
        selector = Selector(machine_of(topology), model)
        for collective in COLLECTIVES:
            nbytes = int(2 ** draw.uniform(3, 30))
            chosen = selector.choose(collective, nbytes)
            taken = model.seconds(collective, chosen, nbytes)
            ways = product(algorithms(collective, machine_of(topology)), SLICES, WINDOWS)
            every = {
                c: model.seconds(collective, c, nbytes) for c in (Choice(*way) for way in ways) if c.window <= c.slices
            }
            best = min(every, key=lambda choice: every[choice])
            what = f"{topology.name}: {collective} of {nbytes}: {chosen} for {best}"
            regrets.append((taken / min(taken, every[best]) - 1, what))
        print(f"{topology.name}: {max(regret for regret, _ in regrets[-len(COLLECTIVES) :]):.1%} at worst", flush=True)
    values = np.array([regret for regret, _ in regrets])
    spread = f"mean {values.mean():.2%}, 95th percentile {np.percentile(values, 95):.1%}, max {values.max():.1%}"
    print(f"\n{len(values)} choices: {spread}")
    for regret, what in sorted(regrets)[-5:]:
        print(f"  {regret:6.1%}  {what}")


def machine(draw: random.Random) -> Topology:
    """Return a machine of 2 to 32 ranks."""
    while True:
        p = draw.choice([2, 3, 5, 7, 11, 13, 16, 17, 19, 23, 29, 31, 32])
        text = draw.choice([
            f"flat:{p}", f"fat-tree:{p},taper={draw.choice([1, 2, 4])},down=4",
            f"boxes:{draw.choice(['2x3', '2x7', '3x4', '8+8+4', '5+3+2', '7+1'])}", f"rails:{draw.choice([2, 3, 5])}x4",
            f"torus:{draw.choice(['3x5', '4x4', '2x3x4'])}", "dragonfly:3x2x3", f"sites:2x{draw.choice([4, 6])}",
        ])  # fmt: skip
        try:
            topology = load(text)
            links = topology.links
            if draw.random() < 0.5:  # a degraded link
                slow = links.bandwidth.copy()
                slow[draw.randrange(len(slow))] *= draw.choice([0.1, 0.25, 0.5])
                links = links._replace(bandwidth=slow)
                topology = replace(topology, links=links, period=topology.size, name=text + ", a link degraded")
            return topology
        except InvalidArgument as why:
            warnings.warn(f"{text}: {why}", stacklevel=1)


if __name__ == "__main__":
    main()
