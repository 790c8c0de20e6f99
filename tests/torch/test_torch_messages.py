"""Messages, Works, futures, sequence numbers and groups of groups, through torch.distributed."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks, free_port

SIZES = (1, 2, 3, 4)


def ring() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    right, left = (rank + 1) % size, (rank - 1) % size
    for n in (0, 1, 5, 100_000):
        for dtype in (torch.float32, torch.uint16, torch.bool, torch.float8_e8m0fnu):
            own, out = torch.full((n,), rank + 1.0).to(dtype), torch.zeros(n).to(dtype)
            ops = [dist.P2POp(dist.isend, own, right), dist.P2POp(dist.irecv, out, left)]
            for order in (ops, ops[::-1]):
                for work in dist.batch_isend_irecv(order):
                    work.wait()
            wanted = torch.full((n,), left + 1.0).to(dtype)
            assert torch.equal(out.view(torch.uint8), wanted.view(torch.uint8))
    if rank == 0:
        dist.send(torch.tensor([1.0]), 1, tag=7)
        dist.send(torch.tensor([2.0]), 1, tag=8)
    elif rank == 1:
        first, second = torch.zeros(1), torch.zeros(1)
        works = [dist.irecv(second, 0, tag=8), dist.irecv(first, 0, tag=7)]
        for work in works:
            work.wait()
        assert (first.item(), second.item()) == (1, 2)
    # strided on both sides
    grid = torch.zeros(4, 4)
    if rank == 0:
        dist.send(torch.arange(16.0).reshape(4, 4).t(), 1)
    elif rank == 1:
        assert dist.recv(grid[:, :].t(), 0) == 0
        assert torch.equal(grid, torch.arange(16.0).reshape(4, 4))
    if rank:
        dist.send(torch.tensor([rank]), 0)
    else:
        seen = set()
        for _ in range(size - 1):
            box = torch.zeros(1, dtype=torch.int64)
            source = dist.recv(box)
            assert source == box.item()
            seen.add(source)
        assert seen == set(range(1, size))


@pytest.mark.parametrize("size", SIZES[1:])
def test_messages(pool, size):
    pool(size)(ring)


def many_messages() -> None:
    rank = dist.get_rank()
    peer = 1 - rank
    for _ in range(5):
        outs = [torch.empty(16384) for _ in range(32)]
        ops = [dist.P2POp(dist.isend, torch.full((16384,), float(i + 100 * rank)), peer) for i in range(32)]
        ops += [dist.P2POp(dist.irecv, out, peer) for out in outs]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        assert all((out == i + 100 * peer).all() for i, out in enumerate(outs))


def test_a_batch_of_many_messages(pool):
    pool(2)(many_messages)


def unattended() -> float:
    begun = time.monotonic()
    if dist.get_rank():
        outs = [torch.empty(16384) for _ in range(200)]  # more than lies in the lanes
        for work in dist.batch_isend_irecv([dist.P2POp(dist.irecv, out, 0) for out in outs]):
            work.wait()
        assert all((out == i).all() for i, out in enumerate(outs))
        return time.monotonic() - begun
    parts = [torch.full((16384,), float(i)) for i in range(200)]
    batch = dist.batch_isend_irecv([dist.P2POp(dist.isend, part, 1) for part in parts])
    time.sleep(3)
    for work in batch:
        work.wait()
    return 0.0


def test_a_batch_goes_on_while_nobody_waits_for_it(pool):
    assert max(pool(2)(unattended)) < 2.5


def works() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    x = torch.full((1000,), rank + 1.0)
    work = dist.all_reduce(x, async_op=True)
    assert work.wait() is True and work.is_completed() and work.is_success() and work.exception() is None
    assert work.result()[0] is x and (x == size * (size + 1) / 2).all()
    assert work.wait(timedelta(seconds=1)) is True
    x = torch.ones(3)
    future = dist.all_reduce(x, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
    assert torch.equal(future.wait(), torch.full((3,), 2.0 * size))
    # a callback may call, and wait for, what comes next, as PowerSGD's does
    for wait in (lambda w: w.get_future().wait(), lambda w: w.wait()):
        late = torch.ones(30_000)
        begun = dist.all_reduce(late, async_op=True).get_future()
        begun.then(lambda f, wait=wait: wait(dist.all_reduce(f.value()[0], async_op=True))).wait()
        assert (late == size * size).all()
    # both ways of waiting at once, from several threads
    for _ in range(20):
        x = torch.ones(2000)
        work = dist.all_reduce(x, async_op=True)
        threads = [threading.Thread(target=work.wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        future = work.get_future()
        for thread in threads:
            thread.join()
        future.wait()
        assert work.is_success() and (x == size).all()
    # what is dropped still happens
    tensors = [torch.ones(10_000) for _ in range(10)]
    for tensor in tensors:
        dist.all_reduce(tensor, async_op=True)
    dist.barrier()
    assert all((t == size).all() for t in tensors)
    # strided: the result is there whoever finds the end first
    grid = torch.ones(4, 4)
    work = dist.all_reduce(grid[:, 0], async_op=True)
    work.get_future().wait()
    assert (grid[:, 0] == size).all() and (grid[:, 1:] == 1).all()
    # one rank is late
    if rank == 0:
        threading.Event().wait(0.3)
    x = torch.ones(1)
    work = dist.all_reduce(x, async_op=True)
    if rank and size > 1:
        assert not work.is_completed()
        with pytest.raises(RuntimeError):
            work.wait(timedelta(milliseconds=20))
        with pytest.raises(TimeoutError):
            work.wait(timedelta(milliseconds=20))
    work.wait()
    assert x.item() == size


@pytest.mark.parametrize("size", SIZES)
def test_works(pool, size):
    pool(size)(works)


def overloads() -> None:
    group, rank, size = dist.group.WORLD, dist.get_rank(), dist.get_world_size()
    ones = torch.ones(2)
    group.allreduce(ones.clone()).wait()
    group.allreduce([ones.clone()], dist.ReduceOp.MAX).wait()
    group.allreduce(ones.clone(), op=dist.ReduceOp.MAX, timeout=timedelta(seconds=5)).wait()
    group.broadcast(ones.clone(), 0).wait()
    group.broadcast(ones.clone(), root=0).wait()
    group.reduce(ones.clone(), 0).wait()
    group.barrier().wait()
    group.barrier(dist.BarrierOptions() if hasattr(dist, "BarrierOptions") else None)
    outs = [torch.empty(2) for _ in range(size)]
    group.allgather(outs, ones).wait()
    group.allgather([outs], [ones]).wait()
    group.gather(outs if rank == 0 else [], ones, 0).wait()
    group.scatter(ones.clone(), outs if rank == 0 else [], 0).wait()
    group.reduce_scatter(ones.clone(), outs, dist.ReduceOp.SUM).wait()
    group.alltoall(outs, [ones.clone() for _ in outs]).wait()
    whole = torch.empty(2 * size)
    for old, new in (
        ("_allgather_base", "all_gather_single"),
        ("allgather_into_tensor_coalesced", "all_gather_single_coalesced"),
    ):
        for name in (old, new):
            arguments = ([whole], [ones]) if "coalesced" in name else (whole, ones)
            getattr(group, name)(*arguments).wait()
            assert (whole == 1).all()
    for name in ("_reduce_scatter_base", "reduce_scatter_single", "reduce_scatter_tensor_coalesced",
                 "reduce_scatter_single_coalesced"):  # fmt: skip
        out = torch.empty(2)
        arguments = ([out], [whole]) if "coalesced" in name else (out, whole)
        getattr(group, name)(*arguments).wait()
        assert (out == size).all()
    for name in ("alltoall_base", "all_to_all_single"):
        getattr(group, name)(whole, whole.clone(), [], []).wait()


@pytest.mark.parametrize("size", SIZES)
def test_overloads_and_both_spellings(pool, size):
    pool(size)(overloads)


def identity() -> None:
    group, rank, size = dist.group.WORLD, dist.get_rank(), dist.get_world_size()
    assert dist.get_backend() == "pycomm" and group.name() == "pycomm"
    assert (group.rank(), group.size()) == (rank, size)
    before = group._get_sequence_number_for_group()
    dist.barrier()
    dist.all_reduce(torch.ones(1))
    dist.all_reduce(torch.ones(4)[::2], async_op=True).wait()
    assert group._get_sequence_number_for_group() == before + 3
    dist.monitored_barrier()
    dist.monitored_barrier(timeout=timedelta(seconds=5), wait_all_ranks=True)
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=11), group)
    dist.barrier()


@pytest.mark.parametrize("size", SIZES)
def test_what_a_group_knows_of_itself(pool, size):
    pool(size)(identity)


def subgroups() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    odd = dist.new_group(list(range(1, size, 2)))
    even = dist.new_group(list(range(0, size, 2)), timeout=timedelta(seconds=9))
    mine = odd if rank % 2 else even
    for _ in range(3):
        x = torch.tensor([1.0])
        dist.all_reduce(x, group=mine)
        assert x.item() == mine.size()
        dist.all_reduce(x)
    out = [torch.empty(1) for _ in range(mine.size())]
    dist.all_gather(out, torch.tensor([float(rank)]), group=mine)
    assert [int(o) for o in out] == list(range(rank % 2, size, 2))
    gloo = dist.new_group(backend="gloo")
    x = torch.ones(2)
    dist.all_reduce(x, group=gloo)
    assert x[0] == size
    again = dist.new_group(list(range(size)))
    dist.barrier(group=again)
    for group in (mine, again, gloo):
        dist.destroy_process_group(group)
    dist.barrier()
    mesh = dist.init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("a", "b"))
    x = torch.ones(1)
    dist.all_reduce(x, group=mesh["a"].get_group())
    dist.all_reduce(x, group=mesh["b"].get_group())
    assert x.item() == size


@pytest.mark.parametrize("size", [2, 4])
def test_groups_of_groups(pool, size):
    pool(size)(subgroups)


def reborn(ports: list[int]) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for backend, port in zip(("pycomm", "cpu:pycomm", "gloo", "pycomm"), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)  # on one port a quick rank would find the store of the life before
        dist.init_process_group(backend, timeout=timedelta(seconds=20))
        if backend == "gloo":
            group = dist.new_group(backend="pycomm")
            x = torch.ones(1)
            dist.all_reduce(x, group=group)
            assert x.item() == size and dist.get_backend(group) == "pycomm"
        x = torch.tensor([1.0, float(rank)])
        dist.all_reduce(x)
        assert x.tolist() == [size, sum(range(size))]
        dist.destroy_process_group()


@pytest.mark.parametrize("size", [1, 3])
def test_init_and_destroy_again(size):
    with Ranks(size, "", {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(size)}) as ranks:
        ranks(reborn, [free_port() for _ in range(4)])


def disguised(port: int) -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    assert dist.get_backend() == "gloo" and type(dist.group.WORLD).__name__ == "PycommGroup"
    x = torch.ones(3, dtype=torch.int16)  # which gloo cannot
    dist.all_reduce(x)
    assert (x == size).all()
    group = dist.new_group([0, 1])
    if rank < 2:
        dist.all_reduce(x, group=group)
    dist.monitored_barrier()
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))  # whose logger asks gloo for its network
    model(torch.full((2, 3), float(rank))).sum().backward()
    torch.testing.assert_close(model.module.weight.grad, torch.full((1, 3), float(size - 1)))
    dist.destroy_process_group()
    os.environ["MASTER_PORT"] = str(port)
    dist.init_process_group()
    dist.all_reduce(x)
    assert type(dist.group.WORLD).__name__ == "PycommGroup"
    dist.destroy_process_group()


def test_gloo_in_name_only():
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "PYCOMM_TORCH_AS_GLOO": "1"}
    with Ranks(2, "", env) as ranks:
        ranks(disguised, free_port())


def beside_another(ports: list[int]) -> None:
    for backend, port in zip(("cpu:pycomm,cuda:gloo", "cuda:gloo,cpu:pycomm"), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        dist.init_process_group(backend)
        group = dist.group.WORLD
        x = torch.ones(3)
        dist.all_reduce(x)
        assert (x == dist.get_world_size()).all()
        assert group._get_backend(torch.device("cuda")).name() == "gloo"
        assert type(group).__name__ == "PycommGroup"
        dist.destroy_process_group()


def test_a_group_with_another_backend_for_another_device():
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    with Ranks(2, "", env) as ranks:
        ranks(beside_another, [free_port(), free_port()])
