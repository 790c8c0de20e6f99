"""Runs all tests: C, C under sanitizers, C for aarch64 under emulation, Python; `run.py STAGE ...` runs some of them.

The last line counts them; the exit status is 0 if none failed. What fails runs once more, alone: these are tests of
real processes that compete for processors, and one in thousands may fail for that. Those that pass then are counted
and named, since each is a fault still: of a test, or of the library under load.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent
COMMON = ("-Dpython=false", "-Dtests=true", "-Dwerror=true")
FEW = 12  # tests that failed by mischance; where more do, something is broken
# Rooms whose tests pass much of their time in sleep: together they take as long as all others.
WAITING = (
    "compressed", "doctor", "launch", "loud", "mpi", "netlab", "packaging", "preload", "select", "soak", "transports",
)  # fmt: skip
SANITIZED = ("-Dbuildtype=debugoptimized", "-Db_lundef=false")
# Python keeps memory until its end; libzmq is not instrumented, so it cannot be seen what its threads agree on; and the
# first report is one too many.
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
}
CONFORMANCE = (
    "test_collectives.py",
    "test_messages.py",
    "test_loans.py",
)  # under sanitizers: those of three ranks, or two


def run_c(name: str, *options: str, wrapper: tuple[str, ...] = ()) -> Counter[str]:
    """Build the C tests in build/NAME and run them; what went wrong is printed."""
    where = BUILD / name
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def call(*command: str | Path) -> bool:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, sep="", flush=True)
        return done.returncode == 0

    if not call("meson", "setup", where, *COMMON, *options) or not call("meson", "compile", "-C", where):
        return Counter(failed=1)
    log = where / "meson-logs" / "testlog.json"
    kinds = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}

    def test(*names: str) -> dict[str, str]:
        log.unlink(missing_ok=True)
        call(*wrapper, "meson", "test", "-C", where, "--no-rebuild", "--print-errorlogs", *names)
        entries = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
        return {entry["name"].split(" / ")[-1]: kinds.get(entry["result"], "failed") for entry in entries}

    results = test()
    failed = [name for name, result in results.items() if result == "failed"]
    counts = Counter(results.values()) or Counter(failed=1)
    if 0 < len(failed) <= FEW:
        counts = once_more(counts, failed, [name for name, result in test(*failed).items() if result == "passed"])
    return counts


def once_more(counts: Counter[str], failed: list[str], passed: list[str]) -> Counter[str]:
    """Return the counts, of which these failed and those passed when run once more."""
    for name in failed:
        print(f"{'passed' if name in passed else 'failed'} when run once more, alone: {name}", flush=True)
    return counts + Counter(passed=len(passed), again=len(passed)) - Counter(failed=len(passed))


def run_asan() -> Counter[str]:
    """The C tests under AddressSanitizer and UBSan, and what every transport must do alike, as Python calls it."""
    counts = run_c("asan", "-Db_sanitize=address,undefined", *SANITIZED)
    return counts + run_conformance("asan")


def run_tsan() -> Counter[str]:
    """The same under ThreadSanitizer, which some kernels' random addresses keep from starting."""
    wrapper: tuple[str, ...] = ("setarch", "-R")
    if not shutil.which(wrapper[0]) or subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        wrapper = ()
    counts = run_c("tsan", "-Db_sanitize=thread", *SANITIZED, wrapper=wrapper)
    return counts + run_conformance("tsan", wrapper)


def run_conformance(name: str, wrapper: tuple[str, ...] = ()) -> Counter[str]:
    """The conformance tests on ranks that are threads, with the library that was built in build/NAME."""
    compiler = os.environ.get("CC", "cc").split()
    asked = [*compiler, f"-print-file-name=lib{name}.so"]
    runtime = Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or name)
    if not runtime.is_absolute():
        print(f"skipped: {compiler[0]} has no lib{name}.so to load into Python")
        return Counter(skipped=1)
    environment = SANITIZERS | {"LD_LIBRARY_PATH": str(BUILD / name), "LD_PRELOAD": str(runtime.resolve())}
    command = ("env", *(f"{key}={value}" for key, value in environment.items()))
    rooms = [ROOT / "tests" / "comm" / file for file in CONFORMANCE]
    chosen = "not chaos and ((default_algorithm and 3-) or back_to_back or messages or (loans and not processes))"
    arguments = ["-k", chosen, *rooms]
    return run_failed(name, run_pytest(name, arguments, (*wrapper, *command)), arguments, (*wrapper, *command))


def run_aarch64() -> Counter[str]:
    """The C tests as aarch64's, if there are a compiler and an emulator."""
    missing = [tool for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64") if not shutil.which(tool)]
    if missing:
        print(f"skipped: there is no {' and no '.join(missing)}")
        return Counter(skipped=1)
    # The emulator's memory is glib's, whose own allocator locks for ever in a child forked while a thread is in it.
    unlocked = ("env", "G_SLICE=always-malloc")
    return run_c("aarch64", "--cross-file", str(ROOT / "tests" / "aarch64.ini"), wrapper=unlocked)


def run_python() -> Counter[str]:
    """The tests in Python, on the installed package: beside those that compute, those that mostly wait."""
    waiting = [ROOT / "tests" / room for room in WAITING]
    others = [f"--ignore={room}" for room in waiting]
    halves = {"waiting": waiting, "others": [ROOT / "tests", *others]}
    with ThreadPoolExecutor(2) as pool:
        counts = dict(zip(halves, pool.map(run_pytest, halves, halves.values()), strict=True))
    return sum((run_failed(name, counts[name], halves[name]) for name in halves), Counter[str]())


def run_pytest(name: str, arguments: list[str | Path], wrapper: tuple[str, ...] = ()) -> Counter[str]:
    """Run pytest with these arguments, and print what it said when it has ended."""
    report = report_of(name)
    report.unlink(missing_ok=True)
    # Not in the tree, where `import pycomm` would find the sources, which lack what is built.
    elsewhere = BUILD / "elsewhere" / name
    elsewhere.mkdir(parents=True, exist_ok=True)
    cache = elsewhere / "cache"  # remembers those that failed
    options = ["-q", f"--junitxml={report}", "-c", ROOT / "pyproject.toml", "-o", f"cache_dir={cache}"]
    command = [*wrapper, BIN / "pytest", *options, *arguments]
    done = subprocess.run(
        command, cwd=elsewhere, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    suite = ET.parse(report).getroot().find("testsuite") if report.exists() else None
    if suite is None:
        return Counter(failed=1)
    tests, failures, errors, skipped = (int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors or int(done.returncode != 0)
    return Counter(passed=max(0, tests - failures - errors - skipped), failed=failed, skipped=skipped)


def run_failed(
    name: str, counts: Counter[str], arguments: list[str | Path], wrapper: tuple[str, ...] = ()
) -> Counter[str]:
    """Run those once more that failed in run_pytest, if they are few, and return the counts of both runs as one."""
    failed = [test for test, result in results_of(name).items() if result == "failed"]
    if not 0 < len(failed) <= FEW or len(failed) != counts["failed"]:
        return counts
    run_pytest(name, ["--last-failed", *arguments], wrapper)
    again = results_of(name)  # nothing, if that run ended early
    return once_more(counts, failed, [test for test in failed if again.get(test) == "passed"])


def results_of(name: str) -> dict[str, str]:
    """What became of each test of run_pytest: passed, failed or skipped."""
    report = report_of(name)
    kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    return {
        f"{case.get('classname')}::{case.get('name')}": next(
            (kinds[part.tag] for part in case if part.tag in kinds), "passed"
        )
        for case in (ET.parse(report).getroot().iter("testcase") if report.exists() else ())
    }


def report_of(name: str) -> Path:
    """Where run_pytest has its tests reported."""
    return BUILD / f"pytest-{name}.xml"


STAGES: dict[str, Callable[[], Counter[str]]] = {
    "plain": partial(run_c, "plain"),
    "asan": run_asan,
    "tsan": run_tsan,
    "aarch64": run_aarch64,
    "python": run_python,
}


def main(asked: list[str]) -> int:
    """Run the stages that are asked for, or all."""
    unknown = [stage for stage in asked if stage not in STAGES]
    if unknown:
        print(f"there is no stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
        return 2
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the tests of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stages = dict.fromkeys(asked or STAGES)
    with ThreadPoolExecutor(2) as pool:  # those in C wait much of their time, so that two of them fit into one's
        counts = list(pool.map(_run, [stage for stage in stages if stage != "python"]))
    if "python" in stages:  # alone: its ranks compete for processors as it is
        counts.append(_run("python"))
    total = sum(counts, Counter[str]())
    print(_said(total))
    return int(total["failed"] > 0 or not total["passed"])


def _run(stage: str) -> Counter[str]:
    begun = time.monotonic()
    print(f"== {stage}", flush=True)
    counts = STAGES[stage]()
    print(f"{stage}: {_said(counts)} in {time.monotonic() - begun:.0f} s", flush=True)
    return counts


def _said(counts: Counter[str]) -> str:
    more = {"skipped": "skipped", "again": "of the passed only when run once more"}
    extra = "".join(f", {counts[kind]} {words}" for kind, words in more.items() if counts[kind])
    return f"{counts['passed']} passed, {counts['failed']} failed{extra}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
