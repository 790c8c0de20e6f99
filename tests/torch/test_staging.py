"""Tensors on a device that no transport reaches: every operation through host memory, in slices."""

from __future__ import annotations

import logging

import other_device
import pytest
import torch
import torch.distributed as dist
from other_device import NAME, copies
from ranks import Ranks
from torch.distributed._functional_collectives import all_reduce
from torch.utils._python_dispatch import TorchDispatchMode

from pycomm.errors import InvalidArgument
from pycomm.torch import staging
from pycomm.torch.logs import log

SIZE = 2


@pytest.fixture(scope="module")
def ranks():
    with Ranks(SIZE) as ranks:
        ranks(other_device.install)
        yield ranks


def there(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(NAME)


def values(rank: int, count: int = 6, dtype=torch.float32) -> torch.Tensor:
    return (torch.arange(count) + 10 * rank).to(dtype)


def rooms(count: int = 6, size: int = SIZE) -> list[torch.Tensor]:
    return [there(torch.zeros(count)) for _ in range(size)]


def holds(tensor, wanted) -> None:
    assert tensor.device.type == NAME
    got = tensor.cpu()
    assert torch.equal(got, wanted), (got, wanted)


def every_operation(asynchronous):
    rank = dist.get_rank()
    a, b = values(0), values(1)

    def done(work):
        if asynchronous:
            work.wait()

    x = there(values(rank))
    done(dist.all_reduce(x, async_op=asynchronous))
    holds(x, a + b)
    x = there(values(rank, dtype=torch.bfloat16))
    done(dist.all_reduce(x, dist.ReduceOp.MAX, async_op=asynchronous))
    holds(x, values(1, dtype=torch.bfloat16))
    x = there(values(rank))
    done(dist.broadcast(x, 1, async_op=asynchronous))
    holds(x, b)
    x = there(values(rank))
    done(dist.reduce(x, 1, async_op=asynchronous))
    holds(x, a + b if rank == 1 else a)
    out = rooms()
    done(dist.all_gather(out, there(values(rank)), async_op=asynchronous))
    holds(out[0], a), holds(out[1], b)
    x = there(torch.zeros(12))
    done(dist.all_gather_single(x, there(values(rank)), async_op=asynchronous))
    holds(x, torch.cat([a, b]))
    out = rooms()
    done(dist.gather(there(values(rank)), out if rank == 0 else None, 0, async_op=asynchronous))
    holds(out[1], b if rank == 0 else torch.zeros(6))
    x = there(torch.zeros(6))
    done(dist.scatter(x, [there(a), there(b)] if rank == 0 else None, 0, async_op=asynchronous))
    holds(x, values(rank))
    x = there(torch.zeros(3))
    done(dist.reduce_scatter_single(x, there(values(rank)), async_op=asynchronous))
    holds(x, (a + b)[3 * rank : 3 * rank + 3])
    x = there(torch.zeros(6))
    done(dist.reduce_scatter(x, [there(a), there(b)], async_op=asynchronous))
    holds(x, 2 * values(rank))
    out = rooms()
    done(dist.all_to_all(out, [there(a + rank), there(b + rank)], async_op=asynchronous))
    holds(out[0], values(rank)), holds(out[1], values(rank) + 1)
    x = there(torch.zeros(6))
    done(dist.all_to_all_single(x, there(values(rank)), async_op=asynchronous))
    holds(x, torch.cat([a[3 * rank : 3 * rank + 3], b[3 * rank : 3 * rank + 3]]))


def messages():
    rank, x = dist.get_rank(), there(torch.zeros(6))
    if rank == 0:
        dist.send(there(values(3)), 1, tag=2)
        dist.isend(there(values(4)), 1).wait()
        dist.batch_isend_irecv([dist.P2POp(dist.isend, there(values(5)), 1)])[0].wait()
    else:
        dist.recv(x, 0, tag=2)
        holds(x, values(3))
        assert dist.recv(x) == 0
        holds(x, values(4))
        dist.batch_isend_irecv([dist.P2POp(dist.irecv, x, 0)])[0].wait()
        holds(x, values(5))


def slices(count):
    """Allreduce, broadcast, all_gather and reduce_scatter cut into slices of 16 bytes, each copied in and out once."""
    rank = dist.get_rank()
    whole, staging.SLICE = staging.SLICE, 16
    try:
        a, b = values(0, count), values(1, count)
        x = there(values(rank, count))
        copies.clear()
        dist.all_reduce(x)
        there_and_back = [way for way in copies if way[0] != "stream"]
        assert {way[:2] for way in there_and_back} == {(NAME, "cpu"), ("cpu", NAME)}
        in_order = [way[0] for way in there_and_back]
        assert copies[0] == copies[-1] == ("stream", "waited", 0)
        wanted = [min(16, 4 * count - at) for at in range(0, 4 * count, 16)]
        for source, target in ((NAME, "cpu"), ("cpu", NAME)):
            assert [n for s, t, n in there_and_back if (s, t) == (source, target)] == wanted
        if len(wanted) > staging.AHEAD + 1:  # results come back while later slices are copied in
            assert in_order.index("cpu") < len(in_order) - 1 - in_order[::-1].index(NAME)
        holds(x, a + b)
        work = dist.all_reduce(x, async_op=True)
        assert work.get_future().wait()[0] is x
        holds(x, 2 * (a + b))
        x = there(values(rank, count))
        copies.clear()
        dist.broadcast(x, 0)
        ways = {way[:2] for way in copies}
        assert ways == {("stream", "waited"), (NAME, "cpu") if rank == 0 else ("cpu", NAME)}
        holds(x, a)
        x = there(torch.zeros(2 * count))
        dist.all_gather_single(x, there(values(rank, count)))
        holds(x, torch.cat([a, b]))
        x = there(torch.zeros(count))
        dist.reduce_scatter_single(x, there(values(rank, 2 * count)))
        holds(x, (values(0, 2 * count) + values(1, 2 * count))[count * rank : count * (rank + 1)])
    finally:
        staging.SLICE = whole


def strides():
    """Stand-ins in host memory, which can be strided as the device of these tests cannot."""
    group, rank = dist.distributed_c10d._get_default_group(), dist.get_rank()
    whole, staging.SLICE = staging.SLICE, 16
    try:
        base = torch.full((5, 6), 9.0)
        x = base.t()[1:4]
        x.copy_(values(rank, 15).view(3, 5))
        staging.call(group, type(group)._allreduce, ([x], None), {"op": None, "timeout": None}).wait()
        assert torch.equal(x, (values(0, 15) + values(1, 15)).view(3, 5))
        assert base[:, 0].eq(9).all() and base[:, 4:].eq(9).all()
        out, own = torch.zeros(7, 4)[:, ::2], values(rank, 14).view(7, 2).t().contiguous().t()[:, :1]
        kept = own.clone()
        staging.call(group, type(group)._all_gather_single, (out, own, None), {}).wait()
        wanted = torch.cat([values(r, 14).view(7, 2)[:, :1].reshape(-1) for r in range(2)]).view(7, 2)
        assert torch.equal(out, wanted) and torch.equal(own, kept)
    finally:
        staging.SLICE = whole


def short_calls():
    """The overloads without options, as torch's own code and tests call them."""
    group, rank = dist.distributed_c10d._get_default_group(), dist.get_rank()
    x = there(values(rank))
    group.allreduce(x).wait()
    holds(x, values(0) + values(1))
    for root in (0, 1):
        x = there(values(rank))
        group.broadcast(x, root).wait()
        holds(x, values(root))
    x = there(values(rank))
    group.broadcast([x], root=1).wait()
    holds(x, values(1))
    x = there(values(rank))
    group.reduce(x, root=1).wait()
    holds(x, values(0) + values(1) if rank == 1 else values(0))
    x = there(values(rank))
    group.broadcast(x).wait()
    holds(x, values(0))


def a_batch():
    x, y = there(values(dist.get_rank())), there(values(dist.get_rank()))
    with dist._coalescing_manager(async_ops=True) as manager:
        dist.all_reduce(x)
        dist.all_reduce(y)
    manager.wait()
    holds(x, values(0) + values(1)), holds(y, values(0) + values(1))


def beside_host_memory():
    """Staged calls and others keep their order, whoever waits for what first."""
    x, y = there(values(dist.get_rank(), 1 << 21)), values(dist.get_rank())
    first = dist.all_reduce(x, async_op=True)
    dist.all_reduce(y)
    dist.barrier()
    first.wait()
    holds(x, values(0, 1 << 21) + values(1, 1 << 21))
    assert torch.equal(y, values(0) + values(1))


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


def under_a_mode():
    x = there(values(dist.get_rank()))
    with _Seen() as seen:
        dist.all_reduce(x)
    assert "allreduce_.default" in seen.names
    holds(x, values(0) + values(1))


def it_is_said_once():
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    group = dist.new_group()
    log.addHandler(handler)
    try:
        for _ in range(2):
            dist.all_reduce(there(values(0)), group=group)
    finally:
        log.removeHandler(handler)
    assert len(heard) == 1, heard
    assert f"tensors on {NAME} are staged" in heard[0] and f"cpu:pycomm,{NAME}:BACKEND" in heard[0]


def what_cannot_be():
    name, torch._C._get_privateuse1_backend_name = torch._C._get_privateuse1_backend_name, lambda: "another"
    try:
        with pytest.raises(InvalidArgument, match=rf"{NAME}:0.*\.cpu\(\).*cpu:pycomm,{NAME}:BACKEND") as caught:
            dist.all_reduce(there(values(0)))
    finally:
        torch._C._get_privateuse1_backend_name = name
    assert isinstance(caught.value, dist.DistBackendError)


def functional():
    x = there(values(dist.get_rank()))
    holds(torch.ops._c10d_functional.wait_tensor(all_reduce(x, "sum", dist.group.WORLD)), values(0) + values(1))
    holds(x, values(dist.get_rank()))


def by_device():
    """Groups that are asked for by devices, in which pycomm or another backend serves each."""
    x = there(values(dist.get_rank()))
    group = dist.new_group(backend=f"cpu:pycomm,{NAME}:pycomm")
    dist.all_reduce(x, group=group)
    holds(x, values(0) + values(1))
    assert group._get_backend(torch.device(NAME)) is group
    mixed = dist.new_group(backend=f"cpu:pycomm,{NAME}:gloo")
    with pytest.raises((RuntimeError, ValueError), match="ProcessGroupGloo"):  # which knows no such device
        dist.all_reduce(x, group=mixed)
    assert not mixed.staged
    with pytest.raises(InvalidArgument, match="serve cpu too"):
        dist.new_group(backend=f"cpu:gloo,{NAME}:pycomm")


OPERATIONS = (
    messages, short_calls, strides, a_batch, beside_host_memory, under_a_mode, functional, by_device, it_is_said_once,
    what_cannot_be,
)  # fmt: skip


@pytest.mark.parametrize("asynchronous", (False, True))
def test_every_operation(ranks, asynchronous):
    ranks(every_operation, asynchronous)


@pytest.mark.parametrize("count", (4, 5, 64, 65, 1201))
def test_slices(ranks, count):
    ranks(slices, count)


@pytest.mark.parametrize("function", OPERATIONS)
def test_staged(ranks, function):
    ranks(function)
