"""Runs many short jobs of torch.distributed and counts how they end, on pycomm and on gloo: `short_jobs.py --jobs 100`.

A job is what a launcher starts: ranks that meet over TCP, train two steps under DDP, in every other job destroy their
process group, and exit. They are forked from this process, which has imported torch, and end as any interpreter does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import torch._dynamo  # which DDP imports: here once and not in each rank
import torch.distributed as dist
from ranks import free_port
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

DEADLINE = 60.0  # seconds for one job: far beyond any honest one
LINGERING = 0.2  # seconds that a process may outlive the ranks
LEFT_OPEN = 3  # the exit code of a rank that finds its group's files still open once it has left
ENDS = ("well", "of a signal", "with an error", "hung", "leaving processes", "leaving files", "leaving files open")
PR_SET_CHILD_SUBREAPER = 36


def train(backend: str, destroys: bool) -> int:
    """Be a rank, from meeting the others to the end, and return its exit code."""
    torch.set_num_threads(1)
    store, rank, size = next(dist.rendezvous("env://"))
    before = _open_files()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    net = DDP(nn.Linear(64, 64))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(torch.full((8, 64), float(step + rank))).square().mean().backward()
        optimizer.step()
    low = net.module.weight.detach().clone()
    high = low.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    assert torch.equal(low, high), "the ranks have trained different models"
    if not destroys:
        return 0
    del net
    dist.destroy_process_group()
    gc.collect()
    left = _open_files() - before
    print(f"left open: {dict(left)}", file=sys.stderr)
    return LEFT_OPEN if left else 0


def _open_files() -> Counter[str]:
    """Count this process's descriptors by what they stand for: socket, /memfd:NAME, a path."""
    links = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(str(fd.readlink()).partition(":[")[0])
    return Counter(links)


def job(backend: str, size: int, destroys: bool) -> str:
    """Run one job and return how it has ended, one of ENDS; what a bad one has printed is shown."""
    place = Path(tempfile.mkdtemp(prefix="short-job-"))
    shared = set(os.listdir("/dev/shm"))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE=str(size), TMPDIR=str(place))
    ranks = set()
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
            log = os.open(place.with_suffix(f".{rank}"), os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.exit(train(backend, destroys))  # through main and the interpreter's finalization: nothing here hinders
        ranks.add(pid)
    codes = _await(ranks)
    lingering = _lingers()
    files = os.listdir(place) + [
        name for name in os.listdir("/dev/shm") if name not in shared and not _is_anothers(name)
    ]
    if len(codes) < size:
        end = "hung"
    elif min(codes) < 0:
        end = "of a signal"
    elif max(codes):
        end = "leaving files open" if set(codes) <= {0, LEFT_OPEN} else "with an error"
    else:
        end = "leaving processes" if lingering else "leaving files" if files else "well"
    logs = [place.with_suffix(f".{rank}") for rank in range(size)]
    if end != "well":
        print(f"ended {end}: exit codes {codes}, files {files}", *(log.read_text() for log in logs), sep="\n")
    for log in logs:
        log.unlink(missing_ok=True)
    shutil.rmtree(place)
    return end


def _await(ranks: set[int]) -> list[int]:
    """Return the ranks' exit codes, minus the number where it was a signal; those that hang are killed and left out."""
    left, codes, until = set(ranks), [], time.monotonic() + DEADLINE
    while left and time.monotonic() < until:
        for pid in list(left):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                left.remove(pid)
                codes.append(os.waitstatus_to_exitcode(status))
        time.sleep(0.002)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return codes


def _is_anothers(name: str) -> bool:
    """Return whether a file in shared memory is an MPI's, or mapped: the job's processes have ended."""
    if name.startswith(("open_mpi", "sm_segment", "mpich_shm", "Intel_MPI")):
        return True
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if f"/dev/shm/{name}" in maps.read_text():
                return True
    return False


def _lingers() -> bool:
    """Return whether anything that the ranks have started is still there; this process inherits it, and ends it."""
    until = time.monotonic() + LINGERING
    while time.monotonic() < until:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        time.sleep(0.01)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in map(int, children):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return True


def main() -> int:
    """Run what the command line asks for; the status is 0 if all jobs on pycomm have ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100, help="for each number of ranks and each backend")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--backends", nargs="+", default=["pycomm", "gloo"])
    asked = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that ranks inherit no text
    good = True
    for size in asked.ranks:
        for backend in asked.backends:
            begun = time.monotonic()
            ends = Counter(job(backend, size, destroys=number % 2 == 0) for number in range(asked.jobs))
            mean = (time.monotonic() - begun) / asked.jobs
            print(f"{backend}, {size} ranks: {', '.join(f'{ends[end]} {end}' for end in ENDS)}; {mean:.2f} s a job")
            good &= backend != "pycomm" or ends["well"] == asked.jobs
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
