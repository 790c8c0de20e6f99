"""A process that a rank forks, with operations in flight: it is told that it has no communicators; the rank goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FORK_IN_THE_MIDDLE = """
import multiprocessing, os, sys, threading
import numpy as np
import pycomm

comm = pycomm.init(timeout=40)
other = comm.Split(0)
peer = 1 - comm.rank
big, got = np.ones(1_000_000), np.empty(5)
comm.Allreduce(np.ones(3), np.empty(3))  # there is a plan now, and so a way that passes Python by


def keep_busy():
    for _ in range(200):  # so that the world is most probably locked in the moment of the fork
        other.Allreduce(np.ones(1000), np.empty(1000))


def calls():
    yield lambda: comm.Allreduce(np.ones(3), np.empty(3))
    yield lambda: comm.Allreduce(np.ones(4), np.empty(4))
    yield lambda: comm.Iallreduce(np.ones(3), np.empty(3))
    yield lambda: comm.Send(np.ones(3), peer)
    yield lambda: comm.Irecv(np.ones(3), peer)
    yield lambda: comm.Iprobe(peer)
    yield lambda: comm.bcast(1)
    yield comm.Barrier
    yield comm.Split
    yield lambda: comm.Create(comm.Get_group())
    yield reduction.Wait
    yield receive.Test


def child():
    global reduction, receive
    for number, call in enumerate(calls()):
        try:
            call()
        except pycomm.InvalidArgument as refused:
            assert f"was forked from rank {comm.rank}" in str(refused), refused
        else:
            sys.exit(f"call {number} was not refused")
    if sys.argv[1] == "free":
        for each in (other, comm):
            each.Free()
        return
    del reduction, receive  # requests that are dropped
    assert comm.trace() == [] and comm.transport(peer) == ""


thread = threading.Thread(target=keep_busy)
thread.start()
for turn in range(2):
    reduction = comm.Iallreduce(pycomm.IN_PLACE, big)
    receive = comm.Irecv(got, peer, 7)
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)  # as a program ends, which frees all that is left
    worker = multiprocessing.get_context("fork").Process(target=child)
    worker.start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    worker.join()
    assert worker.exitcode == 0
    comm.Send(np.full(5, float(turn)), peer, 7)
    receive.Wait()
    reduction.Wait()
    assert (got == turn).all() and (big == 2.0 ** (turn + 1)).all()
thread.join()
comm.Barrier()
os.write(1, b"fine\\n")
"""

ONE_OF_ITS_OWN = """
import os
import numpy as np
import pycomm

comm = pycomm.init(timeout=40)
comm.Barrier()
pid = os.fork()
if pid == 0:
    own = pycomm.init(rank=0, size=1)
    own.Allreduce(np.ones(3), x := np.empty(3))
    assert (x == 1).all()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
comm.Barrier()
os.write(1, b"fine\\n")
"""

DATA_LOADERS = """
import os
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

dist.init_process_group("pycomm")
work = dist.all_reduce(long := torch.ones(1_000_000), async_op=True)
batches = TensorDataset(torch.arange(16.0))
for (batch,) in DataLoader(batches, batch_size=8, num_workers=1, multiprocessing_context="fork"):
    dist.all_reduce(total := batch.clone())
    assert torch.equal(total, 2 * batch)
work.wait()
assert (long == 2).all()
dist.destroy_process_group()
os.write(1, b"fine\\n")
"""


def run(tmp_path: Path, text: str, transport: str, *words: str) -> None:
    script = tmp_path / "rank.py"
    script.write_text(text)
    command = [sys.executable, "-P", "-m", "pycomm", "run", "-n", "2", "--timeout", "60", str(script), *words]
    environment = {"PYCOMM_TRANSPORTS": transport, "PYTHONWARNINGS": "ignore"}  # of Python, that a fork is dangerous
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=90)
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["fine", "fine"]), done.stdout + done.stderr


@pytest.mark.parametrize("way", ["exit", "free"])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_child_is_refused_and_its_parent_goes_on(tmp_path: Path, transport: str, way: str) -> None:
    run(tmp_path, FORK_IN_THE_MIDDLE, transport, way)


def test_a_child_may_have_a_job_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, ONE_OF_ITS_OWN, "shm")


@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed: pip install torch")
def test_data_loaders_that_fork(tmp_path: Path) -> None:
    run(tmp_path, DATA_LOADERS, "tcp")
