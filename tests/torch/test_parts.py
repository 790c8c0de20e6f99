"""Groups that are split off another, and groups that stand alone, without torch.distributed."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks, free_port
from torch.distributed import _dist2
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

import pycomm


def halves() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    lists = [list(range(size // 2)), list(range(size // 2, size))]
    mine = lists[rank >= size // 2]
    part = dist.split_group(split_ranks=lists, group_desc="a half", timeout=timedelta(seconds=15))
    assert dist.get_process_group_ranks(part) == mine
    assert dist.get_backend(part) == "pycomm" and part.group_desc == "a half"
    assert (dist.get_rank(part), dist.get_world_size(part)) == (mine.index(rank), len(mine))
    x = torch.tensor([float(rank)])
    dist.all_reduce(x, group=part)
    assert x == sum(mine)
    dist.broadcast(x.fill_(rank), mine[-1], group=part)
    assert x == mine[-1]
    gathered = [None] * len(mine)
    dist.all_gather_object(gathered, rank, group=part)
    assert gathered == mine
    whole = torch.arange(6.0)
    mesh = DeviceMesh.from_group(part, "cpu")
    assert torch.equal(distribute_tensor(whole, mesh, [Shard(0)]).full_tensor(), whole)
    dist.all_reduce(x.fill_(1))  # the parent goes on beside it
    assert x == size
    dist.destroy_process_group(part)
    with pytest.raises(pycomm.InvalidArgument, match="destroyed|freed|shut"):
        part.allreduce([x])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_halves(pool, size):
    pool(size)(halves)


def some() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    for _ in range(2):  # the same again is another group
        part = dist.split_group(split_ranks=[[size - 1, 0]])
        assert (part is None) == (rank not in (0, size - 1))
        if part is not None:
            x = torch.tensor([float(rank + 1)])
            dist.all_reduce(x, group=part)
            assert x == 1 + size
            if size > 2:
                deeper = dist.split_group(part, [[1]])
                assert (deeper is None) == (rank == 0)
                assert deeper is None or dist.get_process_group_ranks(deeper) == [size - 1]
    odd = dist.group.WORLD.split_group(list(range(rank % 2, size, 2)), timedelta(seconds=15), group_name="by hand")
    x = torch.ones(3)
    odd.allreduce([x]).wait()
    assert (x == len(range(rank % 2, size, 2))).all() and odd.group_name == "by hand"
    odd.shutdown()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_some_ranks_and_parts_of_parts(pool, size):
    pool(size)(some)


def wrong() -> None:
    size = dist.get_world_size()
    for parts in (None, [], [[]], [[0], [0]], [[0, 0]], [[size]], [[-1]]):
        with pytest.raises(ValueError, match="ranks") as failure:
            dist.split_group(split_ranks=parts)
        assert isinstance(failure.value, RuntimeError)
    with pytest.raises(pycomm.InvalidArgument, match="as a whole"):
        dist.split_group(split_ranks=[[0]], backend="gloo")
    gloo = dist.new_group(backend="gloo")
    with pytest.raises(RuntimeError, match="No device"):  # torch's own
        dist.split_group(gloo, [[0]])
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x == size


def test_what_is_no_split_is_refused(pool):
    pool(2)(wrong)


def disagree() -> None:
    rank = dist.get_rank()
    if rank == 0:
        assert dist.split_group(split_ranks=[[0]]).size() == 1
    else:
        with pytest.raises(pycomm.Mismatch, match="1 ranks have named the part"):
            dist.split_group(split_ranks=[[0, 1]])


def test_a_part_that_is_not_complete_is_an_error(pool):
    pool(2)(disagree)


def alone(port: int) -> None:
    import os

    rank, size = int(os.environ["RANK"]), 2
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(size))
    group = _dist2.new_group("pycomm", timedelta(seconds=15), "cpu")
    assert not dist.is_initialized() and (group.rank(), group.size()) == (rank, size)
    x = torch.full((4,), float(rank))
    group.allreduce([x]).wait()
    assert (x == 1).all()
    with _dist2.process_group(group):
        assert _dist2.current_process_group() is group
    with pytest.raises(pycomm.InvalidArgument, match="cpu alone"):
        _dist2.new_group("pycomm", timedelta(seconds=15), "meta")
    part = group.split_group([rank], timedelta(seconds=5))
    assert part.size() == 1
    dist.init_process_group("pycomm")
    dist.all_reduce(x)
    assert (x == 2).all()
    other = dist.new_group([1, 0])
    group.shutdown()
    dist.all_reduce(x, group=other)
    assert (x == 4).all()


def test_a_group_that_torch_does_not_know_of():
    with Ranks(2, "") as ranks:
        ranks(alone, free_port())
