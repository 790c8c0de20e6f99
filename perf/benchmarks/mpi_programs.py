"""Runs programs of mpi4py in four ways and compares what they print: `mpi_programs.py -n 2 --mpi openmpi,mpich`.

On MPI alone; under `pycomm mpirun`; after `pycomm.mpi.enable()`; and on pycomm without any MPI, by pycomm.mpi4py. One
program is an example of ours, the others come from PyPI, into a folder of their own (--packages).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from pycomm.perf.rivals import RIVALS

ROOT = Path(__file__).parents[2]
# What is needed beside numpy, mpi4py and matplotlib; without what these ask for, which would be installed again.
PACKAGES = [
    "dill", "emcee==3.1.6", "multiprocess", "pylops==2.8.0", "pylops-mpi==0.8.0", "pyproximal==0.13.0",
    "schwimmbad==0.4.2", "scipy",
]  # fmt: skip
# As emcee's documentation has it (Parallelization, MPI): rank 0 walks, the others evaluate.
WALKERS = """
import sys
import emcee, numpy as np
from schwimmbad import MPIPool

def log_probability(theta):
    return -0.5 * np.sum(theta**2)

with MPIPool() as pool:
    if not pool.is_master():
        pool.wait()
        sys.exit(0)
    np.random.seed(42)
    sampler = emcee.EnsembleSampler(32, 5, log_probability, pool=pool)
    sampler.run_mcmc(np.random.randn(32, 5), 200)
    print(f"mean {sampler.get_chain(flat=True).mean():.12f} acceptance {sampler.acceptance_fraction.mean():.6f}")
"""
ENABLED = (
    "import sys, runpy, pycomm.mpi; pycomm.mpi.enable(); sys.argv.pop(0); "
    "sys.path.insert(0, sys.argv[0].rpartition('/')[0] or '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
)
PATIENCE = 300


@dataclass(frozen=True)
class Program:
    """A program of mpi4py.

    Attributes:
        words: its file and arguments.
        folder: where it is started.
    """

    name: str
    words: list[str]
    folder: Path


def programs(packages: Path) -> list[Program]:
    """Return the programs; those that are not ours lie among the packages."""
    walkers = packages / "walkers.py"
    walkers.write_text(WALKERS)
    examples = packages / "examples"
    return [
        Program("examples/jacobi.py", [str(ROOT / "examples" / "jacobi.py"), "200", "1000"], ROOT),
        Program("pylops-mpi: examples/plot_stacked_array.py", [str(examples / "plot_stacked_array.py")], examples),
        Program("emcee with schwimmbad's MPIPool", [str(walkers)], packages),
    ]


def commands(kind: str, place: str, ranks: int, words: list[str]) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the command of each way, and its variables.

    Args:
        kind, place: the MPI, and where it is.
        ranks: how many.
        words: the program and its arguments.
    """
    python = [sys.executable, "-P"]
    [(plain, variables)] = RIVALS[kind].launch(place, ranks, [*python, *words])
    [(enabled, _)] = RIVALS[kind].launch(place, ranks, [*python, "-c", ENABLED, *words])
    return {
        "MPI's own": (plain, variables),
        "mpirun": ([*python, "-m", "pycomm", "mpirun", "--", *plain], variables),
        "enable()": (enabled, variables),
        "no MPI": ([*python, "-m", "pycomm", "run", "-n", str(ranks), "-m", "pycomm.mpi4py", *words], {}),
    }


def run(command: list[str], variables: dict[str, str], program: Program, packages: Path) -> tuple[str, float]:
    """Run a program once; returns the lines that it prints, sorted, and the seconds, its own if it says them."""
    env = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"} | variables
    begun = perf_counter()
    done = subprocess.run(
        command, cwd=program.folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    seconds = perf_counter() - begun
    if done.returncode:
        sys.exit(f"{program.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    said = re.search(r"^seconds ([\d.]+)$", done.stdout, re.M)
    kept = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("seconds ")]
    return "\n".join(sorted(kept)), float(said[1]) if said else seconds


def main() -> None:
    """Run all that is asked for, print a table, and fail if two ways print other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2, help="ranks")
    parser.add_argument("--mpi", default="openmpi,mpich", help="libraries, as those of perf: openmpi, mpich, impi")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run; the table has medians")
    parser.add_argument("--only", default="", metavar="TEXT", help="programs whose name has this text")
    home = Path.home() / ".cache" / "pycomm" / "programs"
    parser.add_argument("--packages", type=Path, default=home, help="folder for what comes from PyPI")
    args = parser.parse_args()
    packages: Path = args.packages.resolve()
    if not (packages / "pylops_mpi").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        subprocess.run([*install, *PACKAGES], check=True)
    chosen = [program for program in programs(packages) if args.only in program.name]
    wrong = False
    for kind in args.mpi.split(","):
        place = RIVALS[kind].find()
        if place is None:
            print(RIVALS[kind].missing, file=sys.stderr)
            continue
        for program in chosen:
            ways = commands(kind, place, args.n, program.words)
            if program is chosen[0]:
                print(f"| {kind}, seconds | {' | '.join(ways)} | same numbers |")
                print("| --- " * (len(ways) + 2) + "|")
            found: dict[str, list[tuple[str, float]]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for way, (command, variables) in ways.items():
                    found[way].append(run(command, variables, program, packages))
            texts = {said for each in found.values() for said, _ in each}
            times = [f"{median(seconds for _, seconds in each):.2f}" for each in found.values()]
            print(f"| {program.name} | {' | '.join(times)} | {'yes' if len(texts) == 1 else 'NO'} |", flush=True)
            if len(texts) > 1:
                wrong = True
                print(*sorted(texts), sep="\n---\n", file=sys.stderr)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
