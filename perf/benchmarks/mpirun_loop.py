"""What `pycomm mpirun` makes of a program of MPI: `mpirun_loop.py --ranks 2 --bind`, for each MPI that is installed.

tests/preload/loop.c is run as it is and under `pycomm mpirun`, in turn. Printed are, of each collective and size, the
time of MPI over that with pycomm in front of it (medians over the rounds, of medians of calls); their geometric means;
and what a call costs more if it is passed on to MPI, in microseconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import geometric_mean, median

from pycomm.perf.rivals import RIVALS

SOURCE = Path(__file__).parents[2] / "tests/preload/loop.c"
HEADERS = {"openmpi": "openmpi", "mpich": "mpich", "impi": "mpich"}  # whose mpicc compiles for it
BOUND = {"openmpi": (["--bind-to", "core"], {}), "mpich": (["-bind-to", "core"], {}), "impi": ([], {"I_MPI_PIN": "on"})}
PATIENCE = 120.0  # seconds for one run

Times = dict[tuple[str, int], list[float]]


def compiled(kind: str, where: Path) -> Path:
    """Compile the loop for an MPI."""
    mpiexec = RIVALS[HEADERS[kind]].find()
    if mpiexec is None:
        sys.exit(RIVALS[HEADERS[kind]].missing)
    program, place = where / f"loop-{kind}", Path(mpiexec).parent.parent
    env = os.environ | {"OPAL_PREFIX": str(place)}
    subprocess.run([place / "bin/mpicc", "-O2", SOURCE, "-o", program], env=env, timeout=PATIENCE, check=True)
    return program


def command_of(kind: str, mpiexec: str, ranks: int, bind: bool, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return what starts the ranks, and its environment."""
    command, variables = RIVALS[kind].launch(mpiexec, ranks, words)[0]
    env = os.environ | variables | {"LD_LIBRARY_PATH": str(Path(mpiexec).parent.parent / "lib")}
    if bind:
        options, more = BOUND[kind]
        if "--bind-to" in command:
            at = command.index("--bind-to")
            del command[at : at + 2]
        return [command[0], *options, *command[1:]], env | more
    return command, env


def run(command: list[str], env: dict[str, str], times: Times) -> None:
    """Run the loop once, and add what it says."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    for line in done.stdout.splitlines():
        name, size, microseconds = line.split()
        times[name, int(size)].append(float(microseconds))


def report(kind: str, alone: Times, ours: Times) -> None:
    """Print what was measured of an MPI."""
    passed = median(ours.pop(("passed", 8)))
    del alone["passed", 8]
    ratios = {cell: median(alone[cell]) / median(ours[cell]) for cell in alone}
    sizes = sorted({size for _, size in ratios})
    print(f"| {kind} |", " | ".join(map(str, sizes)), "|")
    print("| --- |", " | ".join("---" for _ in sizes), "|")
    for name in dict.fromkeys(name for name, _ in ratios):
        print(f"| {name} |", " | ".join(f"{ratios[name, size]:.2f}" for size in sizes), "|")
        print(f"| {name}, us |", " | ".join(f"{median(ours[name, size]):.1f}" for size in sizes), "|")
    least = min(ratios, key=ratios.__getitem__)
    print(
        f"geometric mean {geometric_mean(ratios.values()):.2f}, the least {ratios[least]:.2f} ({least[0]} {least[1]});",
        end=" ",
    )
    print(f"{passed:.3f} us for a call that is passed on\n", flush=True)


def main() -> None:
    """Measure each MPI, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.02, help="for each collective and size, in one run")
    parser.add_argument("--bind", action="store_true", help="each rank to a processor of its own")
    parser.add_argument("kinds", nargs="*", default=[kind for kind in HEADERS if RIVALS[kind].find()])
    args = parser.parse_args()
    for kind in args.kinds:
        mpiexec = RIVALS[kind].find()
        if mpiexec is None:
            sys.exit(RIVALS[kind].missing)
        with tempfile.TemporaryDirectory() as where:
            words = [str(compiled(kind, Path(where))), str(args.seconds)]
            command, env = command_of(kind, mpiexec, args.ranks, args.bind, words)
            alone: Times = defaultdict(list)
            ours: Times = defaultdict(list)
            for _ in range(args.rounds):
                run(command, env, alone)
                run([sys.executable, "-P", "-m", "pycomm", "mpirun", "--", *command],
                    env | {"XDG_CACHE_HOME": where}, ours)  # fmt: skip
            report(kind, alone, ours)


if __name__ == "__main__":
    main()
