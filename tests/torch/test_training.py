"""torch's own parallelism on pycomm, beside training in one process: DDP, FSDP2, DTensor, torch.compile, modes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(4 * size, 8), torch.randn(4 * size, 4)


def alone(size: int, steps: int = 3) -> nn.Module:
    """Return the model as training in one process leaves it."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = batch(size)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
    return net


def train(net: nn.Module, steps: int = 3) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x, y = (t.chunk(size)[rank] for t in batch(size))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()


def close(got: nn.Module, wanted: nn.Module) -> None:
    for a, b in zip(got.parameters(), wanted.parameters(), strict=True):
        a = a.full_tensor() if hasattr(a, "full_tensor") else a
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-6)


def ddp() -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    wanted = alone(dist.get_world_size())
    for how in ({}, {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.001}, {"find_unused_parameters": True}):
        net = DDP(model(), **how)
        train(net)
        close(net.module, wanted)
    net = DDP(model())
    net.register_comm_hook(None, default_hooks.allreduce_hook)
    train(net)
    close(net.module, wanted)
    for state, hook in (
        (None, default_hooks.fp16_compress_hook),
        (powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2), powerSGD_hook.powerSGD_hook),
    ):
        net = DDP(model())
        net.register_comm_hook(state, hook)
        train(net)
    net = DDP(nn.BatchNorm1d(8))
    net(torch.randn(4, 8))


@pytest.mark.parametrize("size", [2, 3])
def test_ddp(pool, size):
    pool(size)(ddp)


def joined() -> None:
    from torch.distributed.algorithms.join import Join

    net = DDP(nn.Linear(4, 4, bias=False))
    batches, inputs = dist.get_rank() + 1, torch.ones(1, 4)
    for by_initial_size in (True, False):
        with Join([net], divide_by_initial_world_size=by_initial_size):
            for turn in range(batches):
                net.zero_grad()
                net(inputs).sum().backward()
                active = dist.get_world_size() - turn  # rank r has r + 1 batches
                wanted = active / dist.get_world_size() if by_initial_size else 1.0
                torch.testing.assert_close(net.module.weight.grad, torch.full((4, 4), wanted))


@pytest.mark.parametrize("size", [2, 3])
def test_uneven_inputs(pool, size):
    pool(size)(joined)


def fsdp() -> None:
    from torch.distributed.fsdp import fully_shard

    size = dist.get_world_size()
    mesh = dist.init_device_mesh("cpu", (size,))
    net = model()
    for layer in net:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    train(net)
    close(net, alone(size))
    if size == 4:
        mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        net = model()
        fully_shard(net, mesh=mesh)
        train(net)
        close(net, alone(size))


@pytest.mark.parametrize("size", [2, 4])
def test_fsdp2_and_hsdp(pool, size):
    pool(size)(fsdp)


def tensors() -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    size = dist.get_world_size()
    mesh = dist.init_device_mesh("cpu", (size,))
    torch.manual_seed(0)
    whole = torch.randn(5, 6)
    sharded = distribute_tensor(whole, mesh, [Shard(0)])
    assert torch.equal(sharded.full_tensor(), whole)
    assert torch.equal(sharded.redistribute(placements=[Shard(1)]).full_tensor(), whole)
    assert torch.equal(sharded.redistribute(placements=[Replicate()]).to_local(), whole)
    partial = DTensor.from_local(whole, mesh, [Partial()])
    torch.testing.assert_close(partial.full_tensor(), whole * size)
    torch.testing.assert_close(partial.redistribute(placements=[Shard(0)]).full_tensor(), whole * size)
    net, x = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), torch.randn(3, 8)
    wanted = net(x)
    split = parallelize_module(copy.deepcopy(net), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    torch.testing.assert_close(split(x), wanted)


@pytest.mark.parametrize("size", [2, 3])
def test_dtensor(pool, size):
    pool(size)(tensors)


def functional() -> None:
    import torch.distributed._functional_collectives as funcol

    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.group.WORLD

    def everything(x):
        a = funcol.all_reduce(x, "sum", group)
        b = funcol.all_gather_tensor(x, 0, group)
        c = funcol.reduce_scatter_tensor(b, "avg", 0, group)
        d = funcol.all_to_all_single(b, None, None, group)
        e = funcol.broadcast(x, 0, group)
        return a + 1, b * 2, c, d, e

    def check(results, x):
        a, b, c, d, e = results
        others = [torch.full((3,), float(r)) for r in range(size)]
        assert torch.equal(a, sum(others) + 1)
        assert torch.equal(b, torch.cat(others) * 2)
        assert torch.equal(c, x)
        assert torch.equal(e, others[0])
        assert d.shape == (3 * size,)

    x = torch.full((3,), float(rank))
    check(everything(x), x)
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        check(torch.compile(everything, backend=backend, fullgraph=True)(x), x)

    def plain(x):
        y = x * 2
        dist.all_reduce(y)
        return y + 1

    assert torch.equal(torch.compile(plain, backend="aot_eager")(x), sum(range(size)) * 2 + torch.ones(3))
    net = torch.compile(DDP(model()), backend="aot_eager")
    train(net, 1)


@pytest.mark.parametrize("size", [1, 2])
def test_functional_collectives_compiled(pool, size):
    pool(size)(functional)


def modes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._functional_collectives import AsyncCollectiveTensor, all_reduce
    from torch.distributed.tensor.debug import CommDebugMode
    from torch.utils._python_dispatch import TorchDispatchMode

    rank, size = dist.get_rank(), dist.get_world_size()
    with FakeTensorMode():
        x = torch.ones(4)
        dist.all_reduce(x)
        dist.all_gather_into_tensor(torch.empty(4 * size), x)
        assert x.shape == (4,)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        x = torch.full((3,), rank + 1.0)
        dist.all_reduce(x, dist.ReduceOp.MAX)
        out = torch.empty(3 * size)
        dist.all_gather_into_tensor(out, x)
        dist.broadcast(x, 0)
        outs = [torch.empty(3) for _ in range(size)]
        dist.all_gather(outs, x)
        dist.reduce_scatter_tensor(x, out)
        dist.all_to_all_single(out, out.clone(), [3] * size, [3] * size)
    assert (outs[0] == size).all() and (x == size * size).all()
    assert sum("c10d" in name for name in seen) >= 6
    with CommDebugMode() as comms:
        dist.all_reduce(torch.ones(2))
    assert comms.get_total_counts() == 1
    lazy = all_reduce(torch.ones(2), "sum", dist.group.WORLD)
    assert type(lazy) is AsyncCollectiveTensor or size == 1
    dist.all_reduce(lazy)


@pytest.mark.parametrize("size", [1, 2])
def test_dispatch_modes_see_what_happens(pool, size):
    pool(size)(modes)
