"""Every collective through torch.distributed, on every dtype, layout and size, against what torch computes locally."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

SIZES = (1, 2, 3, 4)
NUMBERS = (
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.complex64, torch.complex128,
)  # fmt: skip
NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
EVERY = (*NUMBERS, *NARROW, *WIDE_UNSIGNED, torch.bool, torch.complex32, torch.float8_e8m0fnu)


def bring(rank: int, shape, dtype) -> torch.Tensor:
    """Return a rank's numbers, small enough that sums and products of four are exact in any dtype."""
    n = torch.Size(shape).numel()
    values = (torch.arange(n) + rank) % 3
    if dtype is torch.float8_e8m0fnu:  # powers of two, and nothing else
        values = 2.0 ** ((torch.arange(n) + rank) % 3)
    if dtype.is_complex:
        values = torch.complex(values.double(), ((torch.arange(n) + 2 * rank) % 2).double()).to(torch.complex64)
    return values.to(dtype).reshape(shape)


def same(got: torch.Tensor, wanted: torch.Tensor, what: str = "") -> None:
    assert got.dtype is wanted.dtype and got.shape == wanted.shape, (what, got.dtype, got.shape, wanted.shape)
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (got, wanted))
    assert torch.equal(a, b), f"{what}: got {got.reshape(-1)[:8]}, wanted {wanted.reshape(-1)[:8]}"


def total(dtype, shape, size, op="SUM") -> torch.Tensor:
    """Return what all ranks' numbers make together."""
    if dtype is torch.bool:
        parts = torch.stack([bring(r, shape, dtype) for r in range(size)])
        return {"SUM": parts.any(0), "MAX": parts.any(0), "BOR": parts.any(0), "PRODUCT": parts.all(0),
                "MIN": parts.all(0), "BAND": parts.all(0), "BXOR": parts.sum(0) % 2 == 1}[op]  # fmt: skip
    wide = torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else torch.int64
    parts = torch.stack([bring(r, shape, dtype).to(wide) for r in range(size)])
    match op:
        case "SUM":
            result = parts.sum(0)
        case "AVG":
            result = parts.sum(0) / size if dtype.is_floating_point or dtype.is_complex else parts.sum(0) // size
        case "PRODUCT":
            result = parts.prod(0)
        case "MIN":
            result = parts.amin(0)
        case "MAX":
            result = parts.amax(0)
        case _:
            combine = {"BAND": torch.bitwise_and, "BOR": torch.bitwise_or, "BXOR": torch.bitwise_xor}[op]
            result = parts[0]
            for part in parts[1:]:
                result = combine(result, part)
    return result.to(dtype)


def reduce_everything(shape) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    for dtype in EVERY:
        floating = dtype.is_floating_point
        ops = ["SUM", "AVG"] if dtype.is_complex else ["SUM", "AVG", "PRODUCT", "MIN", "MAX"]
        if dtype is torch.bool:
            ops = ["SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"]
        elif not floating and not dtype.is_complex:
            ops += ["BAND", "BOR", "BXOR"]
        for op in ops:
            if (op == "AVG" and floating and size == 3) or (dtype in (torch.float8_e8m0fnu,) and op != "MAX"):
                continue  # a third is not exact; e8m0 holds powers of two alone
            what = f"{op} of {dtype} on {size}"
            reduce_op = getattr(dist.ReduceOp, op)
            wanted = total(dtype, shape, size, op)
            if op == "AVG" and dtype.is_complex and size == 3:
                continue
            x = bring(rank, shape, dtype)
            dist.all_reduce(x, reduce_op)
            same(x, wanted, f"all_reduce {what}")
            x = bring(rank, shape, dtype)
            work = dist.all_reduce(x, reduce_op, async_op=True)
            work.wait()
            same(x, wanted, f"async all_reduce {what}")
            if dtype.is_complex:
                continue
            x = bring(rank, shape, dtype)
            root = size - 1
            dist.reduce(x, root, reduce_op)
            same(x, wanted if rank == root else bring(rank, shape, dtype), f"reduce {what}")
            whole = torch.cat([x.reshape(-1) for x in (bring(rank, shape, dtype),) * size])
            out = torch.empty(wanted.numel(), dtype=dtype)
            dist.reduce_scatter_tensor(out, whole, reduce_op)
            same(out, wanted.reshape(-1), f"reduce_scatter_tensor {what}")
            out = torch.empty(shape, dtype=dtype)
            dist.reduce_scatter(out, [bring(rank, shape, dtype) for _ in range(size)], reduce_op)
            same(out, wanted, f"reduce_scatter {what}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(5,), (2, 0), ()], ids=str)
def test_reductions_of_every_dtype(pool, size, shape):
    pool(size)(reduce_everything, shape)


def move_everything(shape) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    for dtype in EVERY:
        every = [bring(r, shape, dtype) for r in range(size)]
        for waits in (True, False):
            what = f"{dtype} on {size}, waits {waits}"

            def call(function, *args, _waits=waits, **kwargs):
                work = function(*args, async_op=not _waits, **kwargs)
                if not _waits:
                    work.wait()

            for root in {0, size - 1}:
                x = bring(rank, shape, dtype)
                call(dist.broadcast, x, root)
                same(x, every[root], f"broadcast {what}")
                outs = [torch.empty(shape, dtype=dtype) for _ in range(size)] if rank == root else None
                call(dist.gather, bring(rank, shape, dtype), outs, dst=root)
                for got, wanted in zip(outs or [], every, strict=False):
                    same(got, wanted, f"gather {what}")
                out = torch.empty(shape, dtype=dtype)
                call(dist.scatter, out, every if rank == root else None, src=root)
                same(out, every[rank], f"scatter {what}")
            outs = [torch.empty(shape, dtype=dtype) for _ in range(size)]
            call(dist.all_gather, outs, bring(rank, shape, dtype))
            for got, wanted in zip(outs, every, strict=True):
                same(got, wanted, f"all_gather {what}")
            out = torch.empty((size, *shape), dtype=dtype)
            call(dist.all_gather_into_tensor, out, bring(rank, shape, dtype))
            for got, wanted in zip(out, every, strict=True):
                same(got, wanted, f"all_gather_into_tensor {what}")
            outs = [torch.empty(shape, dtype=dtype) for _ in range(size)]
            call(dist.all_to_all, outs, [bring(rank + 10 * r, shape, dtype) for r in range(size)])
            for r, got in enumerate(outs):
                same(got, bring(r + 10 * rank, shape, dtype), f"all_to_all {what}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 0)], ids=str)
def test_movement_of_every_dtype(pool, size, shape):
    pool(size)(move_everything, shape)


def layouts() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    base = torch.arange(24.0).reshape(4, 6)
    for view in (base.t(), base[:, ::2], base[1:, 1:4]):
        x = (view + rank).clone(memory_format=torch.preserve_format)
        room = torch.full((x.shape[0] * 2, x.shape[1] * 2), -7.0)
        strided = room[::2, ::2]
        strided.copy_(x)
        dist.all_reduce(strided)
        assert torch.equal(strided, size * view + sum(range(size)))
        assert (room[1::2] == -7).all() and (room[:, 1::2] == -7).all()
        work = dist.broadcast(strided, 0, async_op=True)
        work.wait()
        out = torch.full((x.shape[0], size * x.shape[1]), -1.0).t()
        dist.all_gather(list(out.chunk(size)), x.t())
        for r, part in enumerate(out.chunk(size)):
            assert torch.equal(part, view.t() + r)
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    before = image.clone()
    dist.broadcast(image, 0)
    if rank == 0:
        assert torch.equal(image, before)
    z = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex64).conj()
    dist.group.WORLD.broadcast(z, 0).wait()
    assert torch.equal(z, torch.tensor([1 - 2j, 3 + 1j], dtype=torch.complex64))
    leaf = torch.ones(3, requires_grad=True)
    dist.all_reduce(leaf)
    assert (leaf == size).all()
    odd = torch.ones(3, 2, requires_grad=True).t()
    dist.all_reduce(odd.detach())


@pytest.mark.parametrize("size", SIZES)
def test_strided_tensors(pool, size):
    pool(size)(layouts)


def uneven() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    counts = [(r * 2) % 5 for r in range(size)]
    every = [torch.arange(float(n)) + 10 * r for r, n in enumerate(counts)]
    outs = [torch.empty(n) for n in counts]
    dist.all_gather(outs, every[rank])
    assert all(torch.equal(a, b) for a, b in zip(outs, every, strict=True))
    outs = [torch.empty(n) for n in counts] if rank == 0 else None
    dist.gather(every[rank], outs)
    assert all(torch.equal(a, b) for a, b in zip(outs or [], every, strict=False))
    out = torch.empty(counts[rank])
    dist.scatter(out, every if rank == 0 else None)
    assert torch.equal(out, every[rank])
    out = torch.empty(counts[rank])
    dist.reduce_scatter(out, [e.clone() for e in every], dist.ReduceOp.AVG)
    assert torch.equal(out, every[rank])
    # rank r sends (r + s) % 3 rows to rank s
    send = [(rank + s) % 3 for s in range(size)]
    own = torch.cat([torch.full((n, 2), 100.0 * rank + s) for s, n in enumerate(send)])
    out = torch.empty(sum(send), 2)  # symmetric
    for waits in (True, False):
        work = dist.all_to_all_single(out, own, send, send, async_op=not waits)
        if work is not None:
            work.wait()
        wanted = torch.cat([torch.full((n, 2), 100.0 * s + rank) for s, n in enumerate(send)])
        assert torch.equal(out, wanted)
    outs = [torch.empty(n) for n in send]
    dist.all_to_all(outs, [torch.full((n,), 100.0 * rank + s) for s, n in enumerate(send)])
    for s, (got, n) in enumerate(zip(outs, send, strict=True)):
        assert torch.equal(got, torch.full((n,), 100.0 * s + rank))
    everything = torch.arange(2.0 * size) + rank
    out = torch.empty(2 * size)
    dist.all_to_all_single(out, everything)
    assert torch.equal(out, torch.cat([torch.arange(2.0) + 2 * rank + s for s in range(size)]))


@pytest.mark.parametrize("size", SIZES)
def test_uneven_lists(pool, size):
    pool(size)(uneven)


def in_place() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    whole = torch.full((size, 3), -1.0)
    whole[rank] = rank
    dist.all_gather_into_tensor(whole, whole[rank])
    assert torch.equal(whole, torch.arange(float(size))[:, None].expand(size, 3))
    whole[:] = torch.arange(float(size))[:, None]
    mine = whole[rank]
    dist.reduce_scatter_tensor(mine, whole)
    assert (mine == size * rank).all()
    for r in set(range(size)) - {rank}:
        assert (whole[r] == r).all()
    row = torch.arange(float(size)) + 10 * rank
    dist.all_to_all_single(row, row)
    assert torch.equal(row, torch.tensor([10.0 * s + rank for s in range(size)]))


@pytest.mark.parametrize("size", SIZES)
def test_overlapping_buffers(pool, size):
    pool(size)(in_place)


def premultiplied() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    for factor in (0.5, torch.tensor([2.0])):
        op = dist._make_nccl_premul_sum(factor)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = torch.full((4,), rank + 1.0, dtype=dtype)
            dist.all_reduce(x, op)
            same(x, torch.full((4,), float(factor) * size * (size + 1) / 2, dtype=dtype))
        own, out = torch.ones(2 * size), torch.empty(2)
        dist.reduce_scatter_tensor(out, own, op)
        assert (out == float(factor) * size).all() and (own == 1).all()


@pytest.mark.parametrize("size", SIZES)
def test_premul_sum(pool, size):
    pool(size)(premultiplied)


def sparse() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    own = torch.sparse_coo_tensor([[rank, 3], [0, 1]], [1.0, 2.0], (5, 2))
    dense = torch.zeros(5, 2)
    for r in range(size):
        dense[r, 0] += 1
        dense[3, 1] += 2
    x = own.clone()
    dist.all_reduce(x)
    assert torch.equal(x.to_dense(), dense)
    x = own.clone()
    dist.all_reduce(x, async_op=True).wait()
    assert torch.equal(x.to_dense(), dense)


@pytest.mark.parametrize("size", SIZES)
def test_sparse_allreduce(pool, size):
    pool(size)(sparse)


def objects() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    every = [None] * size
    dist.all_gather_object(every, {"rank": rank, "pad": "x" * rank})
    assert [e["rank"] for e in every] == list(range(size))
    box = [("it", rank)]
    dist.broadcast_object_list(box, 0)
    assert box == [("it", 0)]
    got = [None] * size if rank == 0 else None
    dist.gather_object(rank, got)
    assert got is None or got == list(range(size))
    out = [None]
    dist.scatter_object_list(out, [str(r) for r in range(size)] if rank == 0 else None)
    assert out == [str(rank)]
    if size > 1:
        if rank == 0:
            dist.send_object_list(["hello"], 1)
        elif rank == 1:
            box = [None]
            dist.recv_object_list(box, 0)
            assert box == ["hello"]


@pytest.mark.parametrize("size", SIZES)
def test_object_collectives(pool, size):
    pool(size)(objects)


def coalesced() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.group.WORLD
    for n in (3, 200_000):
        xs = [torch.full((n,), float(rank + i)) for i in range(3)]
        with dist._coalescing_manager():
            for x in xs:
                dist.all_reduce(x)
        assert all((x == sum(range(size)) + size * i).all() for i, x in enumerate(xs))
        with dist._coalescing_manager(async_ops=True) as manager:
            outs = [torch.empty(size * n) for _ in xs]
            for out, x in zip(outs, xs, strict=True):
                dist.all_gather_into_tensor(out, x)
        manager.wait()
        assert all(torch.equal(o, x.repeat(size)) for o, x in zip(outs, xs, strict=True))
        with dist._coalescing_manager():
            outs = [torch.empty(n) for _ in xs]
            for out, x in zip(outs, xs, strict=True):
                dist.reduce_scatter_tensor(out, x.repeat(size))
        assert all(torch.equal(o, x * size) for o, x in zip(outs, xs, strict=True))
    xs = [torch.ones(2), torch.ones(3)]
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
        dist.broadcast(xs[0], 0)
        dist.reduce(xs[1], 0)
    manager.wait()
    assert (xs[1] == (size if rank == 0 else 1)).all()
    group.allreduce_coalesced([torch.ones(2, dtype=torch.int32), torch.ones(1)]).wait()
    mixed = [torch.ones(2, dtype=torch.float64), torch.ones(1)]
    group.allreduce_coalesced(mixed).wait()
    assert all((x == size).all() for x in mixed)


@pytest.mark.parametrize("size", SIZES)
def test_coalescing(pool, size):
    pool(size)(coalesced)
