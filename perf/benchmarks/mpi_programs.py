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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from pycomm.perf.rivals import RIVALS

ROOT = Path(__file__).parents[2]
# What is needed beside numpy, mpi4py and matplotlib, and what of it pip shall not install again.
PACKAGES = ["emcee==3.1.6", "schwimmbad==0.4.2", "scipy", "pylops==2.8.0", "pyproximal==0.13.0", "pylops-mpi==0.8.0"]
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
WAYS = ("MPI", "mpirun", "enable()", "no MPI")
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
    tutorials = packages / "tutorials"
    return [
        Program("examples/jacobi.py", [str(ROOT / "examples" / "jacobi.py")], ROOT),
        Program("pylops-mpi: tutorials/poststack.py", [str(tutorials / "poststack.py")], tutorials),
        Program("emcee with schwimmbad's MPIPool", [str(walkers)], packages),
    ]


def commands(kind: str, ranks: int, words: list[str]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield each way of an MPI, the command and its variables; the last one needs no MPI and is yielded of "" alone."""
    python = [sys.executable, "-P"]
    if not kind:
        yield "no MPI", [*python, "-m", "pycomm", "run", "-n", str(ranks), "-m", "pycomm.mpi4py", *words], {}
        return
    place = RIVALS[kind].find()
    if place is None:
        print(RIVALS[kind].missing, file=sys.stderr)
        return
    [(plain, variables)] = RIVALS[kind].launch(place, ranks, [*python, *words])
    yield "MPI", plain, variables
    yield "mpirun", [*python, "-m", "pycomm", "mpirun", "--", *plain], variables
    [(enabled, variables)] = RIVALS[kind].launch(place, ranks, [*python, "-c", ENABLED, *words])
    yield "enable()", enabled, variables


def run(command: list[str], variables: dict[str, str], program: Program, packages: Path) -> tuple[str, float]:
    """Run a program once; returns what it prints but for times, and the seconds, its own if it says them."""
    env = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"} | variables
    begun = perf_counter()
    done = subprocess.run(
        command, cwd=program.folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    seconds = perf_counter() - begun
    if done.returncode:
        sys.exit(f"{program.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    said = re.search(r"^seconds ([\d.]+)$", done.stdout, re.M)
    kept = [line for line in done.stdout.splitlines() if not re.match(r"seconds |Total time", line)]
    return "\n".join(kept), float(said[1]) if said else seconds


def main() -> None:
    """Run all that is asked for, print a table, and fail if two ways print other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2, help="ranks")
    parser.add_argument("--mpi", default="openmpi,mpich", help="libraries, as those of perf: openmpi, mpich, impi")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run; the table has medians")
    home = Path.home() / ".cache" / "pycomm" / "programs"
    parser.add_argument("--packages", type=Path, default=home, help="folder for what comes from PyPI")
    args = parser.parse_args()
    packages: Path = args.packages.resolve()
    if not (packages / "pylops_mpi").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        subprocess.run([*install, *PACKAGES], check=True)
    print("| program, seconds | " + " | ".join(["MPI's own", *WAYS[1:], "same numbers"]) + " |")
    print("| --- " * 6 + "|")
    wrong = False
    for program in programs(packages):
        facade, found = commands("", args.n, program.words), {}
        for kind in args.mpi.split(","):
            ways = [*commands(kind, args.n, program.words), *facade]
            for _ in range(args.rounds):
                for way, command, variables in ways:
                    said, seconds = run(command, variables, program, packages)
                    found.setdefault((kind if way in WAYS[:3] else "", way), []).append((said, seconds))
            texts = {said for (of, _), each in found.items() if of in (kind, "") for said, _ in each}
            wrong |= len(texts) != 1
            times = [median(s for _, s in found[kind if way in WAYS[:3] else "", way]) for way in WAYS]
            cells = [f"{program.name}, {kind}", *(f"{t:.2f}" for t in times), "yes" if len(texts) == 1 else "NO"]
            print("| " + " | ".join(cells) + " |", flush=True)
            if len(texts) != 1:
                print(*sorted(texts), sep="\n---\n", file=sys.stderr)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
