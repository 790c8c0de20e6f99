"""What torch 2.7 calls, and what 2.13 calls, on ranks where the rest of torch's names is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from torch._C import _distributed_c10d as c10d

# The options that had asyncOp in 2.7 already, and those that got it in 2.8.
FIRST = (c10d.BroadcastOptions, c10d.AllgatherOptions, c10d.ReduceScatterOptions)
LATER = (
    c10d.AllreduceOptions, c10d.ReduceOptions, c10d.GatherOptions, c10d.ScatterOptions, c10d.AllToAllOptions,
    c10d.BarrierOptions,
)  # fmt: skip
SPELLINGS = {  # of 2.13: of 2.7
    "all_gather_single": "_allgather_base",
    "reduce_scatter_single": "_reduce_scatter_base",
    "all_to_all_single": "alltoall_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
}


def become(version: str) -> None:
    """Take from torch what it did not have, or will not have, and join a group that knows nothing else."""
    for name in [name for name in sys.modules if name.startswith("pycomm.torch")]:  # who tested before has loaded it
        del sys.modules[name]
    if version == "2.7":
        for options in LATER:
            del options.asyncOp
    for name in SPELLINGS if version == "2.7" else SPELLINGS.values():
        delattr(dist.ProcessGroup, name)
    rank, size = int(os.environ["RANK"]), int(os.environ["SIZE"])
    store = dist.FileStore(os.environ["PLACE"], size)
    dist.init_process_group("pycomm", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=20))


def say(options: Any, **fields: Any) -> Any:
    """Return a synchronous call's options, as far as this torch can tell."""
    for name, value in fields.items():
        setattr(options, name, value)
    if hasattr(options, "asyncOp"):
        options.asyncOp = False
    return options


def finish(work: Any, version: str) -> None:
    """Do what torch.distributed does with what a synchronous call has returned."""
    if version == "2.7" or work is not None:
        assert work.wait()


def calls(version: str) -> None:
    """Make each call of torch.distributed in its spelling and with its arguments."""
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.group.WORLD
    total = size * (size + 1) / 2
    everybodys = torch.arange(1.0, size + 1)

    def called(name: str) -> Callable[..., None]:
        spelled = SPELLINGS.get(name, name) if version == "2.7" else name
        return lambda *args, **kwargs: finish(getattr(group, spelled)(*args, **kwargs), version)

    def mine(n: int = 1) -> torch.Tensor:
        return torch.full((n,), rank + 1.0)

    for op, wanted in ((dist.ReduceOp.SUM, total), (dist.ReduceOp.MAX, size)):
        x = mine()
        called("allreduce")([x], say(c10d.AllreduceOptions(), reduceOp=op))
        assert x == wanted
    x, y = mine(), mine(3)
    called("allreduce_coalesced")([x, y], say(c10d.AllreduceCoalescedOptions(), reduceOp=dist.ReduceOp.SUM))
    assert x == total and (y == total).all()
    x = mine()
    called("reduce")([x], say(c10d.ReduceOptions(), reduceOp=dist.ReduceOp.SUM, rootRank=size - 1))
    assert x == (total if rank == size - 1 else rank + 1)
    x = mine()
    called("broadcast")([x], say(c10d.BroadcastOptions(), rootRank=size - 1, rootTensor=0))
    assert x == size

    outs = list(torch.empty(size, 1))
    called("allgather")([outs], [mine()], *([] if version == "2.7" else [say(c10d.AllgatherOptions())]))
    assert torch.equal(torch.cat(outs), everybodys)
    out = torch.empty(size)
    called("all_gather_single")(out, mine(), say(c10d.AllgatherOptions()))
    assert torch.equal(out, everybodys)
    several = [torch.empty(size), torch.empty(2 * size)]
    called("all_gather_single_coalesced")(several, [mine(), mine(2)])
    assert torch.equal(several[0], everybodys) and torch.equal(several[1], everybodys.repeat_interleave(2))
    outs = list(torch.empty(size, 1))
    called("gather")([outs] if rank == 0 else [], [mine()], say(c10d.GatherOptions(), rootRank=0))
    assert rank or torch.equal(torch.cat(outs), everybodys)
    x = torch.empty(1)
    called("scatter")([x], [list(everybodys.split(1))] if rank == 0 else [], say(c10d.ScatterOptions(), rootRank=0))
    assert x == rank + 1

    def summed() -> Any:
        return say(c10d.ReduceScatterOptions(), reduceOp=dist.ReduceOp.SUM)

    called("reduce_scatter")([x], [list(everybodys.split(1))], summed())
    assert x == size * (rank + 1)
    called("reduce_scatter_single")(x.zero_(), everybodys.clone(), summed())
    assert x == size * (rank + 1)
    called("reduce_scatter_single_coalesced")([x.zero_(), y], [everybodys, everybodys.repeat_interleave(3)], summed())
    assert x == size * (rank + 1) and (y == size * (rank + 1)).all()

    for splits in ([], [1] * size):
        called("all_to_all_single")(out.zero_(), mine(size), splits, splits, say(c10d.AllToAllOptions()))
        assert torch.equal(out, everybodys)
    outs = list(torch.empty(size, 1))
    called("alltoall")(outs, list(mine(size).split(1)), say(c10d.AllToAllOptions()))
    assert torch.equal(torch.cat(outs), everybodys)

    right, left = (rank + 1) % size, (rank - 1) % size
    works = [group.send([mine()], right, 3), group.recv([x], left, 3)]
    assert all(work.wait() for work in works) and x == left + 1
    works = [group.send([mine()], right, 4), group.recv_anysource([x], 4)]
    assert all(work.wait() for work in works) and works[1]._source_rank() == left
    called("barrier")(opts=say(c10d.BarrierOptions(), device=torch.device("cpu")))


def watched(version: str) -> int:
    """Make each call where the dispatcher looks on, and return how many operators of torch's it has seen."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal seen
            seen += "c10d" in str(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        calls(version)
    return seen


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("version", ["2.7", "2.13"])
def test_the_calls_of_a_version(tmp_path, version, size):
    with Ranks(size, "", {"PLACE": str(tmp_path / "store"), "SIZE": str(size)}) as ranks:
        ranks(become, version)
        ranks(calls, version)
        if version == "2.13":  # which calls back by its own names, whatever is missing
            assert min(ranks(watched, version)) >= 15
