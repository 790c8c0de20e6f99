"""`Comm.from_mpi` beside the MPI under it, every collective: `python perf/benchmarks/from_mpi.py -n 2,4`.

Each MPI that is installed starts one job for each number of ranks, in which both are called by the same processes, as
mpi4py spells the calls, out of place, float32. A cell, a collective at a size, is measured in rounds: some calls of
ours, as many of MPI's, in turn. Of a call counts the rank where it took longest; of a round, the median of its calls;
of all rounds, the least of each side: what else runs on the machine can only add. What is printed is MPI's time over
ours (above 1: ours is faster), for each cell, and the geometric mean and the worst of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from pycomm.errors import InvalidArgument
from pycomm.perf import rivals
from pycomm.perf.adapters import join
from pycomm.perf.bench import Bench, Cell, Library
from pycomm.perf.cases import CASES
from pycomm.perf.results import geometric_mean
from pycomm.perf.sizes import format_size, parse_size

SIZES = "8,64,512,4K,32K,256K,2M,16M,64M"
MPIS = "openmpi,mpich,impi"
LEAST, MOST = 3, 200  # calls of a side in a round
MEMORY = 1 << 28  # bytes of a rank's buffers of one side, beyond which calls do not rotate among several
PATIENCE = 1800  # seconds of a job

Found = dict[tuple[str, int], float]  # MPI's time over ours, by collective and bytes


def rank(mpi: str, collectives: list[str], sizes: list[int], rounds: int, seconds: float, algorithm: str) -> None:
    """Be one rank: measure all cells; rank 0 prints a line of JSON for each."""
    theirs, ours = join(mpi), join("pycomm", algorithm=algorithm or None)  # by PYCOMM_TRANSPORTS: see `job`
    for collective in collectives:
        case, seen = CASES[collective], set()
        for size in sizes if case.moves_data else [0]:
            count = case.count(size, 4, ours.size)
            if count in seen:
                continue
            seen.add(count)
            cell = Cell(collective, count, "float", "sum", 0, False, MEMORY)
            try:
                sides = Bench(ours, cell), Bench(theirs, cell)
                least = race(theirs, sides, rounds, seconds)
            except InvalidArgument:  # this algorithm does not do it
                continue
            if ours.rank == 0:
                print(json.dumps([collective, size, *least]), flush=True)
    ours.close()
    theirs.close()


def race(library: Library, sides: tuple[Bench, Bench], rounds: int, seconds: float) -> list[float]:
    """Return the microseconds of ours and of MPI's."""
    walls = library.allgather(np.array([side.round(2, LEAST, False).wall for side in sides]))
    calls = int(np.clip(seconds * 1e9 / rounds / walls.max(axis=0).sum(), LEAST, MOST))
    least = np.full(2, np.inf)
    for _ in range(rounds):
        for place, side in enumerate(sides):
            times = library.allgather(side.round(1, calls, False).times.astype(np.float64)).max(axis=0)
            least[place] = min(least[place], np.median(times) / 1e3)
    return least.tolist()


def job(mpi: str, ranks: int, words: list[str]) -> Found:
    """Run one job and print its table."""
    installed, missing = rivals.choose([mpi])
    if not installed:
        print(f"# {missing[0]}", flush=True)
        return {}
    rival, place = installed[0]
    worker = [sys.executable, "-P", str(Path(__file__).resolve()), "--rank", mpi, *words]
    command, variables = rival.launch(place, ranks, worker)[0]
    env = os.environ | {"PYCOMM_TRANSPORTS": "shm,mpi"} | variables
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    if done.returncode:
        print(f"# {mpi}, {ranks} ranks: ended with {done.returncode} after {len(lines)} cells", flush=True)
    print(f"\n{mpi}, {ranks} ranks: microseconds of ours, and MPI's over it")
    for collective in dict.fromkeys(line[0] for line in lines):
        cells = [(size, ours, theirs) for name, size, ours, theirs in lines if name == collective]
        print(f"  {collective:15}" + "".join(f"{format_size(n):>5} {ours:9.1f} {theirs / ours:6.2f}"
                                              for n, ours, theirs in cells))  # fmt: skip
    found = {(name, size): theirs / ours for name, size, ours, theirs in lines}
    print(verdict(found), flush=True)
    return found


def verdict(found: Found) -> str:
    """Return what the cells come to."""
    if not found:
        return "  nothing was measured"
    worst = sorted(found, key=found.__getitem__)[:5]
    below = sum(ratio < 0.9 for ratio in found.values())
    return (f"  geometric mean {geometric_mean(found.values()):.2f} over {len(found)} cells, {below} below 0.9; worst: "
            + ", ".join(f"{found[cell]:.2f} {cell[0]} {format_size(cell[1])}" for cell in worst))  # fmt: skip


def main() -> None:
    """Measure as asked, or be a rank of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("-n", default="2,4", help="numbers of ranks (default: %(default)s)")
    add("--mpi", default=MPIS, help="which MPIs (default: %(default)s)")
    add("--collectives", default=",".join(name for name in CASES if name != "sendrecv"))
    add("--sizes", default=SIZES, help="bytes of the larger of a rank's two buffers (default: %(default)s)")
    add("--rounds", type=int, default=8, help="of each cell (default: %(default)s)")
    add("--seconds", type=float, default=0.4, help="of each cell, about (default: %(default)s)")
    add("--algorithm", default="", help="ours, instead of what would be chosen; mpi is MPI's own")
    add("--rank", metavar="MPI", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        sizes = [parse_size(size) for size in args.sizes.split(",")]
        rank(args.rank, args.collectives.split(","), sizes, args.rounds, args.seconds, args.algorithm)
        return
    words = [f"--{name}={getattr(args, name)}" for name in ("collectives", "sizes", "rounds", "seconds", "algorithm")]
    everything: Found = {}
    for mpi in args.mpi.split(","):
        for ranks in map(int, args.n.split(",")):
            found = job(mpi, ranks, words)
            everything |= {(f"{mpi} {ranks} {name}", size): ratio for (name, size), ratio in found.items()}
    print(f"\neverything\n{verdict(everything)}")


if __name__ == "__main__":
    main()
