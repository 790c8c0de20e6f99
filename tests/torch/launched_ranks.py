"""What the ranks of a job of mpiexec do with torch: `launched_ranks.py FOLDER`, which gets an "ok" from each."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import common
import ddp
import fsdp

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS = 2


def check_sum(group: dist.ProcessGroup | None = None) -> None:
    mine = torch.arange(1000.0) + dist.get_rank(group)
    dist.all_reduce(mine, group=group)
    p = dist.get_world_size(group)
    assert torch.equal(mine, p * torch.arange(1000.0) + p * (p - 1) / 2)


def check_progress() -> None:
    """What was started comes to its end while this thread computes and calls nothing of ours."""
    mine = torch.ones(1 << 18)
    work = dist.all_reduce(mine, async_op=True)
    end = time.monotonic() + 30
    last = mine[-1:].numpy()
    while last[0] != dist.get_world_size():
        assert time.monotonic() < end, "nobody makes progress"
    work.wait()
    assert bool((mine == dist.get_world_size()).all())


def alone() -> dict[int, float]:
    """Train in one process; losses by step."""
    net = common.Transformer()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = {}
    for step in range(STEPS):
        tokens, targets = common.batch(step)
        optimizer.zero_grad()
        loss = common.loss_of(net(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = float(loss.detach())
    return losses


def check_training() -> None:
    wanted = alone()
    for train in (ddp.train, fsdp.train):
        losses, _ = train(STEPS)
        assert losses.keys() == wanted.keys()
        assert all(abs(losses[step] - wanted[step]) < 1e-3 for step in wanted), (losses, wanted)


def groups() -> None:
    every = dist.new_group(backend="pycomm")
    check_sum(every)
    own = dist.new_group([1], backend="pycomm")
    if dist.get_rank() == 1:
        check_sum(own)
    part = dist.split_group(dist.group.WORLD, [[1, 0]])
    check_sum(part)


def training() -> None:
    """Groups of all kinds and training, in three lives of the process group."""
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()
    within = os.environ["PYCOMM_TRANSPORTS"].partition(",")[0]
    dist.init_process_group("pycomm")
    assert dist.group.WORLD.engine.transports == within
    groups()
    check_progress()
    check_training()
    size, place = dist.get_world_size(), dist.get_world_size() - 1 - dist.get_rank()
    dist.destroy_process_group()
    # A store of torch's, in which a rank's number is another than in MPI.
    store = dist.FileStore(f"{sys.argv[1]}/store", size)
    dist.init_process_group("pycomm", store=store, rank=place, world_size=size)
    assert dist.get_rank() == place and dist.group.WORLD.engine.transports == within
    check_sum()
    whose = torch.tensor([place])
    dist.broadcast(whose, src=1)
    assert whose == 1
    dist.destroy_process_group()
    # Without MPI, ranks meet through the hub.
    os.environ["PYCOMM_TRANSPORTS"] = "tcp"
    dist.init_process_group("pycomm")
    assert dist.group.WORLD.engine.transports == "tcp"
    check_sum()
    dist.destroy_process_group()


training()
Path(sys.argv[1], str(os.getpid())).write_text("ok")
