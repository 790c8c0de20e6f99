"""The collectives of a process group on tensors of any layout: each checks, picks memory, and calls the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch

from ..core import lib
from ..errors import InvalidArgument
from .engine import Engine, Layout, Manner, done
from .tensors import (
    Tensor,
    dense,
    flat,
    is_dense,
    operand,
    overlap,
    put_back,
    put_back_all,
    put_result,
    reduction,
    result_room,
    room_for,
)
from .work import Work

FEW_BYTES = 1 << 20  # what is less than this is better copied together than sent one by one


def one(tensors: Any, what: str) -> Any:
    """Return the only element of a list, or what is given if it is no list.

    Raises:
        InvalidArgument: there are more, or none.
    """
    if isinstance(tensors, torch.Tensor):
        return tensors
    if len(tensors) != 1:
        raise InvalidArgument(f"{what} is a list of {len(tensors)}: a process is one rank, so give one")
    return tensors[0]


# ---- reductions ------------------------------------------------------------------------------------------------------


def allreduce(engine: Engine, tensor: Tensor, op: Any, how: Manner) -> Work | None:
    """Reduce a tensor of any shape over all ranks, in place."""
    if tensor.layout is not torch.strided:
        return _allreduce_sparse(engine, tensor, op, how)
    reduced = reduction(op, tensor.dtype)
    buffer = operand(tensor, reduced)
    return engine.call(
        "allreduce", buffer, buffer, buffer.numel(), how, op=reduced.op,
        then=None if buffer is tensor else lambda: put_result(tensor, buffer), result=[tensor],
    )  # fmt: skip


def allreduce_coalesced(engine: Engine, tensors: Sequence[Tensor], op: Any, how: Manner) -> Work | None:
    """Reduce several tensors over all ranks, in place; small ones of one dtype together."""
    together = len(tensors) > 1 and sum(t.nbytes for t in tensors) <= FEW_BYTES
    if not together or any(t.dtype is not tensors[0].dtype or t.layout is not torch.strided for t in tensors):
        return many(engine, (partial(allreduce, engine, t, op) for t in tensors), how)
    reduced = reduction(op, tensors[0].dtype)
    buffer = operand(flat(tensors), reduced)

    def then() -> None:
        whole = torch.view_as_complex(buffer) if tensors[0].dtype is torch.complex32 else buffer
        put_back_all(tensors, whole)

    return engine.call("allreduce", buffer, buffer, buffer.numel(), how, op=reduced.op, then=then, result=list(tensors))


def reduce(engine: Engine, tensor: Tensor, op: Any, root: int, how: Manner) -> Work | None:
    """Reduce a tensor over all ranks; the root's gets the result, the others' are left as they are."""
    reduced = reduction(op, tensor.dtype)
    buffer = operand(tensor, reduced)
    here = engine.rank == root
    return engine.call(
        "reduce", buffer, buffer if here else None, buffer.numel(), how, op=reduced.op, root=root,
        then=(lambda: put_result(tensor, buffer)) if here and buffer is not tensor else None, result=[tensor],
    )  # fmt: skip


def reduce_scatter_single(engine: Engine, out: Tensor, own: Tensor, op: Any, how: Manner) -> Work | None:
    """Reduce `size` equal blocks, one after the other in `own`, over all ranks; rank r's `out` gets the r-th."""
    _check_ratio(own, out, engine.size, 1)
    reduced = reduction(op, own.dtype)
    buffer, room = operand(own, reduced), result_room(out, reduced)
    if overlap(buffer, room):
        buffer = buffer.clone()
    return engine.call(
        "reduce_scatter", buffer, room, room.numel(), how, op=reduced.op,
        then=None if room is out else lambda: put_result(out, room), result=[out],
    )  # fmt: skip


def reduce_scatter(engine: Engine, out: Tensor, own: Sequence[Tensor], op: Any, how: Manner) -> Work | None:
    """Reduce a list of tensors, which may differ in size, over all ranks; rank r's `out` gets the r-th."""
    _check_list(own, engine.size, "the input list")
    _check_dtypes([*own, out])
    if own[engine.rank].numel() != out.numel():
        raise InvalidArgument(f"the output has {out.numel()} elements and this rank's input {own[engine.rank].numel()}")
    whole = flat(own)
    counts = [t.numel() for t in own]
    if len(set(counts)) == 1:
        return reduce_scatter_single(engine, out, whole, op, how)
    reduced = reduction(op, out.dtype)
    buffer, room = operand(whole, reduced), result_room(out, reduced)
    parts = buffer.numel() // max(1, whole.numel())  # of an element that is reduced by parts
    counts = [n * parts for n in counts]
    return engine.call(
        "reduce_scatter", buffer, room, 0, how, op=reduced.op, own_blocks=Layout(counts),
        out_blocks=Layout([counts[engine.rank]]),
        then=None if room is out else lambda: put_result(out, room), result=[out],
    )  # fmt: skip


def _allreduce_sparse(engine: Engine, tensor: Tensor, op: Any, how: Manner) -> Work | None:
    """Add up sparse COO tensors, whose ranks may have different indices: all gather them, and everyone adds."""
    if tensor.layout is not torch.sparse_coo:
        raise InvalidArgument(f"a tensor of layout {tensor.layout} cannot be reduced: convert it with to_sparse_coo()")
    reduced = reduction(op, tensor.dtype)
    if reduced.op not in (lib.PCM_SUM, lib.PCM_AVG) or reduced.dtype is not tensor.dtype:
        raise InvalidArgument("sparse tensors can be reduced by SUM and AVG alone")
    mine = tensor.detach().coalesce()
    now = Manner(True, how.timeout)
    entries = torch.empty(engine.size, dtype=torch.int64)
    allgather_single(engine, entries, torch.tensor([mine._nnz()]), now)
    counts = entries.tolist()
    # indices are sparse_dim rows of nnz numbers: transposed, so that each rank's are in one piece
    rows = torch.empty((sum(counts), mine.sparse_dim()), dtype=torch.int64)
    values = torch.empty((sum(counts), *mine.values().shape[1:]), dtype=tensor.dtype)
    allgather(engine, list(rows.split(counts)), mine.indices().t(), now)
    allgather(engine, list(values.split(counts)), operand(mine.values(), reduced), now)
    if reduced.op == lib.PCM_AVG:
        values = (values / engine.size).to(tensor.dtype)
    with torch.no_grad():  # a detached sparse tensor would have indices of its own
        tensor.copy_(torch.sparse_coo_tensor(rows.t(), values, tensor.shape).coalesce())
    return None if how.waits else done([tensor])


# ---- movement --------------------------------------------------------------------------------------------------------


def broadcast(engine: Engine, tensor: Tensor, root: int, how: Manner) -> Work | None:
    """Give the root's tensor to all."""
    here = engine.rank == root
    buffer = dense(tensor) if here else room_for(tensor)
    return engine.call(
        "broadcast", buffer if here else None, buffer, buffer.numel(), how, root=root,
        then=None if here else lambda: put_back(tensor, buffer), result=[tensor],
    )  # fmt: skip


def allgather_single(engine: Engine, out: Tensor, own: Tensor, how: Manner) -> Work | None:
    """Give everybody's tensor to all: rank r's becomes the r-th block of `out`."""
    _check_ratio(own, out, 1, engine.size)
    buffer, room = dense(own), room_for(out)
    if buffer.data_ptr() == room.data_ptr() + engine.rank * buffer.nbytes:
        buffer = room  # it lies at its place
    elif overlap(buffer, room):
        buffer = buffer.clone()
    return engine.call(
        "allgather", buffer, room, own.numel(), how,
        then=None if room is out else lambda: put_back(out, room), result=[out],
    )  # fmt: skip


def allgather(engine: Engine, outs: Sequence[Tensor], own: Tensor, how: Manner) -> Work | None:
    """Give everybody's tensor to all, into a list; the list says how large each rank's is."""
    _check_list(outs, engine.size, "the output list")
    _check_dtypes([*outs, own])
    counts = [t.numel() for t in outs]
    if counts[engine.rank] != own.numel():
        raise InvalidArgument(f"the input has {own.numel()} elements and this rank's output {counts[engine.rank]}")
    whole = _adjacent(outs)
    room = torch.empty(sum(counts), dtype=own.dtype) if whole is None else whole
    then = None if whole is not None else lambda: put_back_all(outs, room)
    if len(set(counts)) == 1:
        work = allgather_single(engine, room, own, how)
        return _and_then(engine, work, then, list(outs))
    buffer = dense(own)
    if overlap(buffer, room):
        buffer = buffer.clone()
    return engine.call(
        "allgather", buffer, room, 0, how, own_blocks=Layout([own.numel()]), out_blocks=Layout(counts), then=then,
        result=list(outs),
    )  # fmt: skip


def gather(engine: Engine, outs: Sequence[Tensor] | None, own: Tensor, root: int, how: Manner) -> Work | None:
    """Give everybody's tensor to the root, into a list; the tensors may differ in size."""
    buffer = dense(own)
    own_blocks = Layout([own.numel()])
    if engine.rank != root:
        return engine.call("gather", buffer, None, 0, how, root=root, own_blocks=own_blocks, result=[])
    assert outs is not None
    _check_list(outs, engine.size, "the output list")
    _check_dtypes([*outs, own])
    if outs[root].numel() != own.numel():
        raise InvalidArgument(f"the input has {own.numel()} elements and the root's output {outs[root].numel()}")
    base, layout, then = _spread(outs, buffer)
    return engine.call(
        "gather", buffer, base, 0, how, root=root, own_blocks=own_blocks, out_blocks=layout, then=then,
        result=list(outs), keep=outs,
    )  # fmt: skip


def scatter(engine: Engine, out: Tensor, own: Sequence[Tensor] | None, root: int, how: Manner) -> Work | None:
    """Give each rank its tensor of the root's list; the tensors may differ in size."""
    room = room_for(out)
    own_blocks = base = sources = None
    if engine.rank == root:
        assert own is not None
        _check_list(own, engine.size, "the input list")
        _check_dtypes([*own, out])
        if own[root].numel() != out.numel():
            raise InvalidArgument(f"the output has {out.numel()} elements and the root's input {own[root].numel()}")
        sources = [dense(t) for t in own]
        base, own_blocks, _ = _spread(sources, room)
    return engine.call(
        "scatter", base, room, 0, how, root=root, own_blocks=own_blocks, out_blocks=Layout([out.numel()]),
        then=None if room is out else lambda: put_back(out, room), result=[out], keep=sources,
    )  # fmt: skip


def alltoall(engine: Engine, outs: Sequence[Tensor], own: Sequence[Tensor], how: Manner) -> Work | None:
    """Give the r-th tensor of a list to rank r, and get one from each; they may differ in size."""
    _check_list(outs, engine.size, "the output list")
    _check_list(own, engine.size, "the input list")
    _check_dtypes([*outs, *own])
    counts, given = [t.numel() for t in outs], [t.numel() for t in own]
    whole = flat(own)
    room = _adjacent(outs)
    then = None
    if room is None:
        room = arrived = torch.empty(sum(counts), dtype=whole.dtype)
        then = lambda: put_back_all(outs, arrived)  # noqa: E731
    return engine.call(
        "alltoall", whole, room, 0, how, own_blocks=Layout(given), out_blocks=Layout(counts), then=then,
        result=list(outs), keep=outs,
    )  # fmt: skip


def alltoall_single(engine: Engine, out: Tensor, own: Tensor, out_splits: Sequence[int], own_splits: Sequence[int],
                    how: Manner) -> Work | None:  # fmt: skip
    """Give the r-th part of a tensor's first dimension to rank r; empty splits mean equal parts.

    Ranks must agree on whether there are splits.
    """
    buffer, room = dense(own), room_for(out)
    if overlap(buffer, room) and buffer is not room:
        buffer = buffer.clone()
    then = None if room is out else lambda: put_back(out, room)
    if not out_splits and not own_splits:
        for tensor, side in ((own, "input"), (out, "output")):
            if tensor.dim() and tensor.size(0) % engine.size:
                raise InvalidArgument(
                    f"the first dimension of the {side} ({tensor.size(0)}) cannot be divided among {engine.size} "
                    "ranks: give split sizes"
                )
        if own.numel() != out.numel():
            raise InvalidArgument(f"the input has {own.numel()} elements and the output {out.numel()}")
        return engine.call("alltoall", buffer, room, own.numel() // engine.size, how, then=then, result=[out])
    if buffer is room:
        buffer = buffer.clone()
    own_blocks, out_blocks = (
        _splits(own, own_splits, engine.size, "input"),
        _splits(out, out_splits, engine.size, "output"),
    )
    return engine.call(
        "alltoall", buffer, room, 0, how, own_blocks=own_blocks, out_blocks=out_blocks, then=then, result=[out]
    )


def barrier(engine: Engine, how: Manner) -> Work | None:
    """Wait for all ranks, and for the collectives that this one has started before."""
    earlier = list(engine.pending)
    if not earlier:
        return engine.call("barrier", None, None, 0, how)
    return many(engine, [lambda manner: engine.call("barrier", None, None, 0, manner)], how, earlier)


def many(
    engine: Engine, calls: Iterable[Callable[[Manner], Work | None]], how: Manner, earlier: Sequence[Work] = ()
) -> Work | None:
    """Start several calls at once and return one Work of all, and of earlier ones."""
    works = [work for call in calls if (work := call(Manner(False, how.timeout))) is not None]
    work = engine.together([*works, *earlier])
    if how.waits:
        work.wait()
        return None
    return work


# ---- checks and layouts ----------------------------------------------------------------------------------------------


def _and_then(engine: Engine, work: Work | None, then: Callable[[], None] | None, result: list[Any]) -> Work | None:
    """Return a work that does one thing more when it has ended."""
    if work is None:
        if then is not None:
            then()
        return None
    return Work([work], result, then, engine.completer)


def _check_ratio(own: Tensor, out: Tensor, own_blocks: int, out_blocks: int) -> None:
    _check_dtypes([own, out])
    if own.numel() * out_blocks != out.numel() * own_blocks:
        raise InvalidArgument(
            f"the input has {own.numel()} elements and the output {out.numel()}: they must be as {own_blocks} to "
            f"{out_blocks}"
        )


def _check_list(tensors: Sequence[Tensor], size: int, what: str) -> None:
    if len(tensors) != size:
        raise InvalidArgument(f"{what} has {len(tensors)} tensors and the group {size} ranks: give one for each")


def _check_dtypes(tensors: Sequence[Tensor]) -> None:
    kinds = {t.dtype for t in tensors}
    if len(kinds) > 1:
        raise InvalidArgument(f"tensors of one call have dtypes {', '.join(map(str, kinds))}: give one")


def _splits(tensor: Tensor, splits: Sequence[int], size: int, side: str) -> Layout:
    length = tensor.size(0) if tensor.dim() else 1
    if not splits:
        if length % size:
            raise InvalidArgument(f"the first dimension of the {side} ({length}) cannot be divided among {size} ranks")
        splits = [length // size] * size
    if len(splits) != size or min(splits) < 0 or sum(splits) != length:
        raise InvalidArgument(
            f"the {side}'s split sizes {list(splits)} must be {size} numbers, not negative, whose sum is its first "
            f"dimension, {length}"
        )
    row = tensor.shape[1:].numel() if tensor.dim() else 1
    return Layout([n * row for n in splits])


def _adjacent(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return one dimension over tensors that lie one after the other in one storage, as chunks of one tensor do."""
    first = tensors[0]
    at = first.data_ptr()
    for t in tensors:
        if not is_dense(t) or t.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
        if t.numel() and t.data_ptr() != at:
            return None
        at += t.nbytes
    total = sum(t.numel() for t in tensors)
    if any(not t.numel() for t in tensors) or not total:
        return None  # of an empty tensor nobody can tell where it lies
    return first.detach().as_strided((total,), (1,))


def _within(tensor: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Return whether a dense tensor lies between the first and the last byte of others, which are not empty."""
    low, high = min(t.data_ptr() for t in tensors), max(t.data_ptr() + t.nbytes for t in tensors)
    return bool(low < tensor.data_ptr() + tensor.nbytes and tensor.data_ptr() < high)


def _spread(tensors: Sequence[Tensor], other: Tensor) -> tuple[Tensor, Layout, Callable[[], None]]:
    """Return separate tensors as one buffer whose blocks lie where they lie, and what puts results into them.

    The buffer begins at the lowest of them. Where that cannot be (strided ones, a distance that is no whole number of
    elements, the call's other buffer between them), it is a copy.
    """
    counts = [t.numel() for t in tensors]
    filled = [t for t in tensors if t.numel()]
    size = tensors[0].dtype.itemsize
    if filled and all(is_dense(t) for t in filled) and not _within(other, filled):
        first = min(filled, key=lambda t: t.data_ptr())
        base = first.data_ptr()
        if all((t.data_ptr() - base) % size == 0 for t in filled):
            displs = [(t.data_ptr() - base) // size if t.numel() else 0 for t in tensors]
            return first, Layout(counts, displs), lambda: None
    whole = flat(tensors)
    return whole, Layout(counts), lambda: put_back_all(tensors, whole)
