"""Fuzzes what comes from elsewhere: `run.py [RUNS]` gives each fuzzer RUNS inputs, and prints what came of it.

The fuzzers in C run on libFuzzer, which clang has, with the sanitizers of addresses and undefined behaviour; what they
learn is kept in build/fuzz-corpus, beside what tests/fuzz/corpus has. The Python ones are the tests of hypothesis in
test_inputs.py, which get a hundredth of RUNS. An input that breaks something is kept in build/fuzz-corpus: put it into
tests/fuzz/corpus.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD, LEARNT = ROOT / "build" / "fuzz", ROOT / "build" / "fuzz-corpus"
FUZZERS = ("frames", "door", "heads", "schedules")
LIMITS = ("-max_len=1024", "-timeout=20", "-rss_limit_mb=2500", "-malloc_limit_mb=2000000")


def build() -> None:
    """Build the fuzzers, which takes a minute the first time."""
    if not shutil.which("clang"):
        sys.exit("the fuzzers need clang and its runtime (Debian: apt-get install clang libclang-rt-dev)")
    environment = os.environ | {"CC": "clang", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    how = ("-Dpython=false", "-Dfuzz=true", "-Db_lundef=false", "-Dbuildtype=debugoptimized")
    if not (BUILD / "build.ninja").exists():
        subprocess.run(
            ("meson", "setup", BUILD, *how), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
        )
    subprocess.run(("meson", "compile", "-C", BUILD), env=environment, check=True, stdout=subprocess.DEVNULL)


def fuzz(name: str, runs: int) -> tuple[int, bool]:
    """Run one fuzzer; return how many inputs it had, and whether all went well."""
    learnt = LEARNT / name
    learnt.mkdir(parents=True, exist_ok=True)
    command = (
        BUILD / "tests" / "fuzz" / f"fuzz_{name}", learnt, ROOT / "tests" / "fuzz" / "corpus" / name,
        f"-runs={runs}", *LIMITS, f"-artifact_prefix={LEARNT}/{name}-", "-print_final_stats=1",
    )  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode(errors="replace")
    counted = re.search(r"number_of_executed_units: (\d+)", said)
    count = int(counted[1]) if counted else 0
    covered = re.findall(r"cov: (\d+)", said)
    print(f"{name:<10} {count:>9} inputs, {covered[-1] if covered else 0} places reached", flush=True)
    if done.returncode:
        print(said[-4000:], flush=True)
    return count, done.returncode == 0


def examples(count: int) -> bool:
    """Run the tests of hypothesis, each with so many inputs; return whether all went well."""
    environment = os.environ | {"FUZZ_EXAMPLES": str(count)}
    command = (sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "-o", "timeout=0",
               Path(__file__).parent / "test_inputs.py")  # fmt: skip
    BUILD.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=BUILD, env=environment, capture_output=True, text=True, check=False)
    print(f"python     {count:>9} inputs for each of: {done.stdout.strip().splitlines()[-1]}", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], flush=True)
    return done.returncode == 0


def main() -> int:
    """Run all."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    build()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda name: fuzz(name, runs), FUZZERS))
    good = examples(max(60, runs // 100)) and all(well for _, well in found)
    total, what = sum(count for count, _ in found), "nothing" if good else "something"
    print(f"{total} inputs over {len(FUZZERS)} fuzzers: {what} breaks")
    return not good


if __name__ == "__main__":
    sys.exit(main())
