"""Starts many ranks on this machine, on pycomm and on gloo: `crowd.py 64 128 256 512`; prints what they took.

All ranks are forked from one process that has loaded their library, so that what is measured is what it adds. The
columns: `start` until all ranks have a group and have met in it once; `first` is what the first of each of the three
calls took, in which ranks connect and choose; then those calls among connected ranks, each the mean of a few; sockets,
descriptors and memory (PSS: a rank's own, and its part of what is shared), means over the ranks after all of that.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

import pycomm
import pycomm.job.control
import pycomm.schedules.registry
import pycomm.selection.predict
from pycomm.errors import PycommError
from pycomm.job.launch import run_ranks

CALLS = 5
BLOCK = 1024  # bytes from each rank to each other, of the all-to-all
COLUMNS = "start s", "first s", "barrier ms", "allreduce ms", "alltoall ms", "sockets", "descriptors", "PSS MiB"


class Calls(NamedTuple):
    """What is timed of a library: the calls, with their buffers bound."""

    barrier: Callable[[], Any]
    allreduce: Callable[[], Any]
    alltoall: Callable[[], Any]


def on_pycomm() -> Calls:
    """Make a group of all ranks."""
    comm = pycomm.init()
    small, whole = np.ones(1), np.zeros(BLOCK * comm.size, np.uint8)
    result, received = np.empty_like(small), np.empty_like(whole)
    return Calls(comm.Barrier, lambda: comm.Allreduce(small, result), lambda: comm.Alltoall(whole, received))


def on_gloo() -> Calls:
    """Make a group of all ranks."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo")
    small = torch.ones(1, dtype=torch.float64)
    whole = torch.zeros(BLOCK * dist.get_world_size(), dtype=torch.uint8)
    received = torch.empty_like(whole)
    return Calls(dist.barrier, lambda: dist.all_reduce(small), lambda: dist.all_to_all_single(received, whole))


LIBRARIES: dict[str, Callable[[], Calls]] = {"pycomm": on_pycomm, "gloo": on_gloo}


def rank(library: str, begun: float) -> list[float]:
    """Be one rank; return its columns. `begun` is when the job was started, on the clock that processes share."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hundreds of ranks that are ended would each say where they stood
    calls = LIBRARIES[library]()
    calls.barrier()
    started = time.monotonic() - begun
    first, means = 0.0, []
    for call in calls:
        begun = time.monotonic()
        call()
        first += time.monotonic() - begun
        calls.barrier()
        begun = time.monotonic()
        for _ in range(CALLS):
            call()
        means.append((time.monotonic() - begun) / CALLS * 1e3)
    calls.barrier()
    columns = [started, first, *means, *_descriptors(), _pss()]
    calls.barrier()  # while a rank counts, none has left
    return columns


def _descriptors() -> tuple[float, float]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:  # the folder's own
            continue
    return float(sum(link.startswith("socket:") for link in links)), float(len(links))


def _pss() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def job(library: str, size: int, limit: float) -> str:
    """Run one job and return its row, or why there is none."""
    try:
        found = run_ranks(size, rank, library, time.monotonic(), timeout=limit)
    except (PycommError, RuntimeError, OSError) as why:
        return f"     failed: {str(why).splitlines()[0]:.90}"
    starts, first, *others = zip(*found, strict=True)
    values = [max(starts), max(first), *map(mean, others)]
    return "".join(f"{value:>13.{1 if value >= 100 else 2}f}" for value in values)


def main() -> None:
    """Run the jobs that are asked for."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("ranks", type=int, nargs="+")
    asked.add_argument("--on", default="pycomm,gloo", help="libraries, comma-separated (default: %(default)s)")
    asked.add_argument("--limit", type=float, default=300.0, help="seconds that a job may take (default: %(default)s)")
    how = asked.parse_args()
    print(f"{'':>16}" + "".join(f"{name:>13}" for name in COLUMNS), flush=True)
    pycomm.schedules.registry.listing()  # which imports the algorithms
    for library in how.on.split(","):
        if library == "gloo":
            import torch.distributed  # noqa: F401  # not before the others have run, whose ranks it would make larger
        gc.collect()
        gc.freeze()  # the collector would write to, and so unshare, every page that holds an object
        for size in how.ranks:
            print(f"{size:>7} {library:<8}" + job(library, size, how.limit), flush=True)


if __name__ == "__main__":
    main()
