"""What goes wrong is said on every rank, as torch's errors and as pycomm's; and what torch cannot mean is refused."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from torch import nn

import pycomm
from pycomm.torch.errors import as_torch


def caught(function, *args, **kwargs):
    """Return what a call raises."""
    try:
        work = function(*args, **kwargs)
        if work is not None and hasattr(work, "wait"):
            work.wait()
    except Exception as error:
        return error
    return None


def mismatch(kind: str, waits: bool) -> tuple[str, list[str], str]:
    rank = dist.get_rank()
    how = {"async_op": not waits}
    match kind:
        case "dtype":
            error = caught(dist.all_reduce, torch.ones(4, dtype=(torch.float32, torch.int32)[rank]), **how)
        case "size":
            error = caught(dist.all_reduce, torch.ones(4 + rank), **how)
        case "op":
            op = (dist.ReduceOp.SUM, dist.ReduceOp.MAX)[rank]
            error = caught(dist.all_reduce, torch.ones(4), op, **how)
        case "collective":
            x = torch.ones(4)
            error = caught(dist.all_reduce, x, **how) if rank else caught(dist.broadcast, x, 0, **how)
        case "root":
            error = caught(dist.broadcast, torch.ones(4), rank, **how)
        case "gathered size":
            error = caught(dist.all_gather_into_tensor, torch.empty(2 * (2 + rank)), torch.ones(2 + rank), **how)
        case "list size":
            error = caught(dist.all_gather, [torch.empty(2 + rank)] * 2, torch.ones(2 + rank), **how)
        case "splits":
            splits = [1 + rank, 1]
            error = caught(
                dist.all_to_all_single, torch.empty(sum(splits)), torch.ones(sum(splits)), splits, splits, **how
            )
        case "message":
            error = caught(dist.isend, torch.ones(3), 1) if rank == 0 else caught(dist.irecv, torch.ones(4), 0)
        case _:
            error = caught(dist.isend, torch.ones(5), 1) if rank == 0 else caught(dist.irecv, torch.ones(4), 0)
    # Whoever only sends may be through before the other side looks: it hears of it in one of its next calls.
    for _ in range(8):
        error = error or caught(dist.all_reduce, torch.ones(1))
    return type(error).__name__, [k.__name__ for k in type(error).__mro__], str(error)


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "async"])
@pytest.mark.parametrize("kind", ["dtype", "size", "op", "collective", "root", "gathered size", "list size", "splits"])
def test_a_mismatch_is_an_error_on_both_sides(kind, waits):
    with Ranks(2) as ranks:
        for name, family, text in ranks(mismatch, kind, waits):
            assert name == "Mismatch", text
            assert {"RuntimeError", "DistBackendError", "Misuse"} <= set(family)


@pytest.mark.parametrize("kind", ["message", "longer message"])
def test_a_message_of_another_size_is_an_error_on_both_sides(kind):
    with Ranks(2) as ranks:
        sender, receiver = ranks(mismatch, kind, True)
        assert receiver[0] in ("Mismatch", "Truncated") and sender[0] == "Aborted", (sender, receiver)


def refused() -> None:
    size = dist.get_world_size()
    wrong = [
        (dist.all_gather_into_tensor, torch.empty(5), torch.ones(2)),
        (dist.all_gather_into_tensor, torch.empty(2 * size, dtype=torch.int32), torch.ones(2)),
        (dist.reduce_scatter_tensor, torch.empty(2), torch.ones(2 * size + 1)),
        (dist.all_to_all_single, torch.empty(size + 1), torch.ones(size + 1)),
        (dist.all_to_all_single, torch.empty(5), torch.ones(5), [1] * size, [1] * size),
        (dist.all_reduce, torch.ones(3), dist.ReduceOp.BAND),
        (dist.all_reduce, torch.ones(3, dtype=torch.bool), dist.ReduceOp.AVG),
        (dist.group.WORLD.allreduce, [torch.ones(3), torch.ones(3)]),
        (dist.group.WORLD.broadcast, torch.ones(3), size),
        (dist.group.WORLD.send, [torch.ones(1)], 0, -4),
    ]
    for function, *args in wrong:
        error = caught(function, *args)
        assert isinstance(error, pycomm.InvalidArgument) and isinstance(error, RuntimeError), (function, error)
    x = torch.ones(2)
    dist.all_reduce(x)  # nothing of that has hurt the group
    assert (x == size).all()


@pytest.mark.parametrize("size", [2, 3])
def test_what_cannot_be_is_refused(pool, size):
    pool(size)(refused)


def late(kind: str) -> tuple[bool, bool, float, str]:
    rank = dist.get_rank()
    if kind == "group":
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.5), dist.group.WORLD)
    error, begun = None, time.monotonic()
    if rank == 0:
        if kind == "call":
            options = dist.AllreduceOptions()
            options.timeout = timedelta(seconds=0.5)
            error = caught(dist.group.WORLD.allreduce, [torch.ones(1)], options)
        elif kind == "barrier":
            error = caught(dist.group.WORLD.barrier, timeout=timedelta(seconds=0.5))
        else:
            error = caught(dist.all_reduce, torch.ones(1))
    else:
        time.sleep(1.5)
        error = caught(dist.all_reduce, torch.ones(1))
    return isinstance(error, TimeoutError), isinstance(error, RuntimeError), time.monotonic() - begun, str(error)


@pytest.mark.parametrize("kind", ["group", "call", "barrier"])
def test_a_timeout_is_kept(kind):
    with Ranks(2) as ranks:
        first, second = ranks(late, kind)
        assert first[0] and first[1] and 0.4 < first[2] < 1.4, first
        assert second[1], second


def aborted() -> tuple[str, float]:
    rank = dist.get_rank()
    begun = time.monotonic()
    if rank == 0:
        work = dist.all_reduce(torch.ones(1000), async_op=True)
        time.sleep(0.2)
        dist.group.WORLD.abort()
        error = caught(work.wait)
    else:
        error = caught(dist.irecv, torch.ones(1), 0)
    return type(error).__name__, time.monotonic() - begun


def test_abort_ends_everything_everywhere():
    with Ranks(2) as ranks:
        for name, seconds in ranks(aborted):
            assert name == "Aborted" and seconds < 5


def bereft() -> tuple[str, float]:
    rank = dist.get_rank()
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begun = time.monotonic()
    errors = [caught(dist.all_reduce, torch.ones(10)), caught(dist.all_reduce, torch.ones(10))]
    assert all(isinstance(e, RuntimeError) for e in errors)
    return type(errors[0]).__name__, time.monotonic() - begun


def test_a_death_is_everybodys_error():
    with Ranks(3) as ranks:
        with pytest.raises(AssertionError, match="rank 1: the process died") as failure:
            ranks(bereft)
        assert "rank 0" not in str(failure.value) and "rank 2" not in str(failure.value)


def bereft_in_backward() -> None:
    net = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    dist.barrier()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    error = caught(net(torch.ones(2, 4)).sum().backward)
    assert isinstance(error, RuntimeError) and "PeerLost: rank 1" in str(error), error


def test_a_death_during_backward_is_named():
    with Ranks(2) as ranks:
        with pytest.raises(AssertionError, match="rank 1: the process died") as failure:
            ranks(bereft_in_backward)
        assert "rank 0" not in str(failure.value)


def failed_future() -> None:
    dist.barrier()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    future = dist.all_reduce(torch.ones(10), async_op=True).get_future()
    chained = future.then(lambda done: done.value()[0] + 1)
    assert isinstance(caught(future.wait), pycomm.PeerLost)
    assert "PeerLost: rank 1" in str(caught(chained.wait))


def test_a_future_raises_what_its_operation_has_met():
    with Ranks(2) as ranks:
        with pytest.raises(AssertionError, match="rank 1: the process died") as failure:
            ranks(failed_future)
        assert "rank 0" not in str(failure.value)


def watched(wait_all: bool) -> tuple[str, str]:
    rank = dist.get_rank()
    if rank in (1, 2):
        time.sleep(1.2)
        return "", ""
    error = caught(dist.monitored_barrier, timeout=timedelta(seconds=0.4), wait_all_ranks=wait_all)
    return type(error).__name__, str(error)


@pytest.mark.parametrize("wait_all", [False, True])
def test_monitored_barrier_names_who_is_missing(wait_all):
    with Ranks(4) as ranks:
        answers = ranks(watched, wait_all)
        wanted = "Ranks 1, 2 failed to pass" if wait_all else "Rank 1 failed to pass"
        assert answers[0][0] == "DeadlineExceeded" and wanted in answers[0][1]
        assert answers[3][0] == "Aborted" and wanted in answers[3][1]
        assert answers[3][1].startswith("Rank 3 successfully reached monitoredBarrier")


def absent() -> str:
    rank = int(os.environ["RANK"])
    if rank == 1:
        return ""
    store = dist.FileStore(os.environ["PLACE"], 2)
    error = caught(
        dist.init_process_group, "pycomm", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=1)
    )
    assert isinstance(error, RuntimeError) and isinstance(error, TimeoutError)
    return str(error)


def test_who_does_not_come_is_named(tmp_path):
    with Ranks(2, "", {"PLACE": str(tmp_path / "store")}) as ranks:
        assert "rank 1 of 2 did not come" in ranks(absent)[0]


@pytest.mark.parametrize("error", [pycomm.PeerLost("lost", 2), pycomm.Aborted("enough"), pycomm.Mismatch("no", 1)])
def test_errors_can_be_sent_to_another_process(error):
    twin = as_torch(error)
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer).__dict__))"],
        input=pickle.dumps(twin), capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().strip() == repr(twin.__dict__)
    assert isinstance(pickle.loads(pickle.dumps(twin)), type(twin))
