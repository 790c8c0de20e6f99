"""Reductions by ops that Python knows and the core does not: operands are gathered in the order of ranks, then folded;
or, of a PREMUL_SUM, multiplied before the core adds them.

The order is that of the gather, whose contract the verifier proves: block r of the result is rank r's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..data.buffer import IN_PLACE, Array, as_array
from ..data.layout import Borrowed, give_back
from ..data.op import Op, PremulSum
from ..errors import InvalidArgument
from . import calls

if TYPE_CHECKING:
    from ..data.status import Status
    from .calls import How
    from .comm import Comm
    from .request import Request


def reduce(comm: Comm, sendbuf: Any, recvbuf: Any, op: int, root: int | None, how: How) -> Request:
    """Start a Reduce, or with no root an Allreduce."""
    if isinstance(op, PremulSum):
        own = _multiplied(op, recvbuf if sendbuf is IN_PLACE else sendbuf)
        return comm.Iallreduce(own, recvbuf, **how) if root is None else comm.Ireduce(own, recvbuf, root=root, **how)
    here = root is None or comm.rank == root
    own, out = _operands(sendbuf, recvbuf, here)
    if root is None:
        return _gathered(comm, own, out, op, range(comm.size), how)
    everyone = np.empty((comm.size if here else 0, own.size), own.dtype)
    request = comm.Igather(_bytes(own), _bytes(everyone) if here else None, root, **_timeout(how))
    return _then(request, everyone, range(comm.size), op, out) if out is not None else request


def scan(comm: Comm, sendbuf: Any, recvbuf: Any, op: int, how: How, *, exclusive: bool) -> Request:
    """Start a Scan or an Exscan."""
    if isinstance(op, PremulSum):
        own = _multiplied(op, recvbuf if sendbuf is IN_PLACE else sendbuf)
        return comm.Iexscan(own, recvbuf, **how) if exclusive else comm.Iscan(own, recvbuf, **how)
    own, out = _operands(sendbuf, recvbuf, True)
    return _gathered(comm, own, out, op, range(comm.rank + (not exclusive)), how)


def reduce_scatter(comm: Comm, sendbuf: Any, recvbuf: Any, counts: Sequence[int] | None, op: int, how: How) -> Request:
    """Start a Reduce_scatter, or with no counts a Reduce_scatter_block."""
    out = as_array(recvbuf, "recvbuf", writes=True)
    if isinstance(op, PremulSum):
        own = _multiplied(op, recvbuf if sendbuf is IN_PLACE else sendbuf).reshape(-1)
        mine = own.size // comm.size if counts is None else counts[comm.rank]
        into = out.reshape(-1)[:mine] if sendbuf is IN_PLACE else out
        if counts is None:
            return comm.Ireduce_scatter_block(own, into, **how)
        return comm.Ireduce_scatter(own, into, counts, **how)
    own = (out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf")).reshape(-1)
    lengths = [own.size // comm.size] * comm.size if counts is None else list(counts)
    if sum(lengths) != own.size:
        raise InvalidArgument(f"sendbuf has {own.size} elements, which are not those of {comm.size} blocks")
    mine, item = lengths[comm.rank], own.dtype.itemsize
    if out.size < mine:
        raise InvalidArgument(f"recvbuf has {out.size} elements and its block {mine}")
    everyone = np.empty((comm.size, mine), own.dtype)
    request = comm.Ialltoallv(
        [_bytes(own), [length * item for length in lengths]], [_bytes(everyone), mine * item], **_timeout(how)
    )
    return _then(request, everyone, range(comm.size), op, out.reshape(-1)[:mine])


def _multiplied(op: PremulSum, buffer: Any) -> Array:
    """Return what a rank brings to a sum, as a copy."""
    return op.multiplied(as_array(buffer, "sendbuf")).view(Borrowed)


def _operands(sendbuf: Any, recvbuf: Any, here: bool) -> tuple[Array, Array | None]:
    out = as_array(recvbuf, "recvbuf", writes=True) if here else None
    own = out if sendbuf is IN_PLACE and here else as_array(sendbuf, "sendbuf")
    assert own is not None
    if out is not None:
        calls.check_sizes(own, out, 1, 1)
        if own.dtype != out.dtype:
            raise InvalidArgument(f"sendbuf has dtype {own.dtype} and recvbuf {out.dtype}")
    return own, out


def _gathered(comm: Comm, own: Array, out: Array | None, op: int, ranks: range, how: How) -> Request:
    everyone = np.empty((comm.size, own.size), own.dtype)
    request = comm.Iallgather(_bytes(own), _bytes(everyone), **_timeout(how))
    return _then(request, everyone, ranks, op, out)


def _then(request: Request, everyone: Array, ranks: range, op: int, out: Array | None) -> Request:
    """Have the operands of some ranks folded when they have come."""

    def fold(status: Status) -> None:
        if out is None or not ranks:
            return
        for left, right in itertools.pairwise(ranks):
            cast(Op, op).combine(everyone[left], everyone[right])
        out.reshape(-1)[:] = everyone[ranks[-1]]
        give_back(out)

    return request.then(fold)


def _bytes(array: Array) -> Array:
    """Return the memory of an array as bytes: ops of a user's own may have dtypes that the core cannot carry."""
    return array.reshape(-1).view(np.uint8)


def _timeout(how: How) -> How:
    if how.keys() - {"timeout"}:
        raise InvalidArgument("an op that Python combines by is run in one way: leave algorithm= and slices= out")
    return how
