"""Tensors as memory: torch's dtypes and ops as the core's codes, and what lies strided made contiguous and put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor as Tensor

from ..core import lib
from ..errors import InvalidArgument

_NAMES = {
    "bool": lib.PCM_BOOL, "int8": lib.PCM_INT8, "uint8": lib.PCM_UINT8, "int16": lib.PCM_INT16,
    "uint16": lib.PCM_UINT16, "int32": lib.PCM_INT32, "uint32": lib.PCM_UINT32, "int64": lib.PCM_INT64,
    "uint64": lib.PCM_UINT64, "float16": lib.PCM_FLOAT16, "bfloat16": lib.PCM_BFLOAT16, "float32": lib.PCM_FLOAT32,
    "float64": lib.PCM_FLOAT64, "complex64": lib.PCM_COMPLEX64, "complex128": lib.PCM_COMPLEX128,
    "float8_e4m3fn": lib.PCM_FLOAT8_E4M3, "float8_e5m2": lib.PCM_FLOAT8_E5M2,
}  # fmt: skip
# The dtypes that the core can both carry and compute with; of the others it carries the bytes.
CODES: dict[torch.dtype, int] = {getattr(torch, name): code for name, code in _NAMES.items() if hasattr(torch, name)}
# Those that are reduced as another dtype, which holds all their values, and rounded at the end.
_THROUGH_FLOAT32 = {
    getattr(torch, name) for name in ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu") if hasattr(torch, name)
}

# torch's numbers of the ops, which hash(ReduceOp) gives
_ORDER = ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM")
_OPS = {
    "SUM": lib.PCM_SUM, "AVG": lib.PCM_AVG, "PRODUCT": lib.PCM_PROD, "MIN": lib.PCM_MIN, "MAX": lib.PCM_MAX,
    "BAND": lib.PCM_BAND, "BOR": lib.PCM_BOR, "BXOR": lib.PCM_BXOR,
}  # fmt: skip
_PREMUL = _ORDER.index("PREMUL_SUM")
for _number, _name in enumerate(_ORDER):
    if int(getattr(dist.ReduceOp.RedOpType, _name)) != _number:
        raise ImportError(f"torch {torch.__version__} numbers ReduceOp.{_name} differently than pycomm expects")
# The core's code for each op that needs nothing but the core; None for PREMUL_SUM.
OPS: tuple[int | None, ...] = tuple(_OPS.get(name) for name in _ORDER)

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})


class Carried(NamedTuple):
    """How the elements of a tensor travel.

    Attributes:
        dtype: the core's code.
        per_element: how many of that dtype are one of the tensor's elements.
    """

    dtype: int
    per_element: int


def carried(dtype: torch.dtype) -> Carried:
    """Return how elements of a dtype are moved: as themselves, or as bytes."""
    code = CODES.get(dtype)
    return Carried(lib.PCM_UINT8, dtype.itemsize) if code is None else Carried(code, 1)


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor's memory holds its elements in order, so that the core can work in it."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def dense(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy whose memory holds the elements in order."""
    if is_dense(tensor):
        return tensor
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def room_for(tensor: Tensor) -> Tensor:
    """Return where a result for a tensor can be written: the tensor, or memory for `put_back` to copy from."""
    return tensor if is_dense(tensor) else torch.empty(tensor.shape, dtype=tensor.dtype)


def put_back(tensor: Tensor, result: Tensor) -> None:
    """Copy a result into the tensor that it is for, if it was not written there."""
    if result is not tensor:
        tensor.detach().copy_(result)


def overlap(a: Tensor, b: Tensor) -> bool:
    """Return whether two dense tensors share memory."""
    x, y = a.data_ptr(), b.data_ptr()
    return bool(a.nbytes and b.nbytes and x < y + b.nbytes and y < x + a.nbytes)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of tensors of one dtype, one after the other, in one dimension."""
    total = sum(t.numel() for t in tensors)
    out = torch.empty(total, dtype=tensors[0].dtype)
    at = 0
    for t in tensors:
        out[at : at + t.numel()].view(t.shape).copy_(t.detach())
        at += t.numel()
    return out


def put_back_all(tensors: Sequence[Tensor], result: Tensor) -> None:
    """Copy parts of a one-dimensional result, one after the other, into tensors."""
    at = 0
    for t in tensors:
        t.detach().copy_(result[at : at + t.numel()].view(t.shape))
        at += t.numel()


class Reduction(NamedTuple):
    """A reduction of tensors as the core does it.

    Attributes:
        op: the core's code.
        factor: what inputs are multiplied by before; None: nothing.
        dtype: the dtype that it is done in.
    """

    op: int
    factor: Any
    dtype: torch.dtype


def reduction(op: Any, dtype: torch.dtype) -> Reduction:
    """Return how torch's ReduceOp, or one of its values, is done on a dtype.

    Raises:
        InvalidArgument: it has no meaning for the dtype.
    """
    number = hash(op) if not hasattr(op, "value") else int(op.value)
    factor = None
    if number == _PREMUL:
        factor = getattr(op, "__getstate__", lambda: (None, None))()[1]
        if factor is None:
            raise InvalidArgument(
                "PREMUL_SUM has no factor: make it with torch.distributed._make_nccl_premul_sum(factor)"
            )
        number = 0
    code = OPS[number] if 0 <= number < len(OPS) else None
    if code is None:
        raise InvalidArgument(f"{op} is none of {', '.join(_ORDER)}")
    if dtype in _THROUGH_FLOAT32:
        return Reduction(code, factor, torch.float32)
    if dtype is torch.complex32:
        if code not in (lib.PCM_SUM, lib.PCM_AVG):
            raise InvalidArgument(f"{_ORDER[number]} is not defined for {dtype}: use SUM or AVG")
        return Reduction(code, factor, torch.float16)
    if dtype not in CODES:
        raise InvalidArgument(f"{dtype} has no arithmetic: convert the tensor first")
    return Reduction(code, factor, dtype)


def operand(tensor: Tensor, how: Reduction) -> Tensor:
    """Return a dense tensor of what a rank brings to a reduction: the tensor itself where that is possible."""
    source = tensor.detach() if tensor.requires_grad else tensor
    if how.factor is not None:
        factor = how.factor
        source = source * (factor.to(source.dtype) if isinstance(factor, Tensor) else factor)
        source = source.to(tensor.dtype)
    if how.dtype is tensor.dtype:
        return tensor if how.factor is None and is_dense(tensor) else dense(source)
    if tensor.is_complex():  # by parts
        return dense(torch.view_as_real(source.resolve_conj()))
    return dense(source.to(how.dtype))


def result_room(tensor: Tensor, how: Reduction) -> Tensor:
    """Return where a reduction's result for a tensor can be written; `put_result` copies it."""
    if how.dtype is tensor.dtype:
        return room_for(tensor)
    shape = (*tensor.shape, 2) if tensor.is_complex() else tensor.shape
    return torch.empty(shape, dtype=how.dtype)


def put_result(tensor: Tensor, result: Tensor) -> None:
    """Copy a reduction's result into the tensor that it is for, if it was not written there."""
    if result.dtype is not tensor.dtype and tensor.is_complex():
        result = torch.view_as_complex(result)
    put_back(tensor, result)
