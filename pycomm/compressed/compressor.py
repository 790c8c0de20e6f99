"""Compressor: an Allreduce whose messages between groups of ranks are compressed, and those within groups are not."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..buffer import IN_PLACE, Array, as_array
from ..comm import AVG, SUM, Comm
from ..errors import InvalidArgument
from ..request import Request
from .codec import KINDS, Floats
from .exchange import Exchange, OneShot, TwoShot
from .feedback import Feedback
from .layout import Part, check_groups, layout
from .messages import Messages

_DTYPES = ("float32", "float64", "bfloat16")


class Compressor:
    """Reduces over groups of ranks that are joined by slow links, and compresses what crosses these.

    Making one is collective, and so is each call, which must be made with the same kind, op and sizes by all ranks. The
    results are not exact: docs/compression.md has the bounds of their errors. All ranks get the same bits.

    Attributes:
        comm: the communicator.
        kind: "bf16", "int8" or "int4".
        groups: the ranks of each group.

    Args:
        comm: whose ranks take part.
        kind: "bf16" halves float32, "int8" quarters it, "int4" makes an eighth of it, with a scale for 256 elements.
        groups: lists of ranks, in which each rank is once; inner lists are flattened. None: comm.groups, which at
            first are the ranks of each host. A single group has no slow links: its results are exact.

    Raises:
        InvalidArgument: there is no such kind, or a rank is in no group or in several.
    """

    def __init__(self, comm: Comm, kind: str, groups: Sequence[Any] | None = None) -> None:
        if kind not in KINDS:
            raise InvalidArgument(f"kind is {kind!r} and must be one of {', '.join(KINDS)}")
        given = groups if groups is not None else comm.groups
        self.comm, self.kind = comm, kind
        self.groups = check_groups([range(comm.size)] if given is None else given, comm.size)
        self._mine = next(g for g, ranks in enumerate(self.groups) if comm.rank in ranks)
        near = comm.Split(self._mine, self.groups[self._mine].index(comm.rank))
        far = comm.Split(0)
        assert near is not None and far is not None
        self._near, self._far = near, far
        self._layout = functools.lru_cache(64)(lambda count: layout(count, self.groups, comm.rank))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, *, feedback: Feedback | None = None) -> None:
        """Reduce over all ranks; everybody gets the result.

        Args:
            sendbuf: n elements, float32, float64 or bfloat16, or IN_PLACE: they are in recvbuf. Whatever the dtype,
                what crosses slow links has float32's range and precision at most.
            recvbuf: n elements of the same dtype.
            op: SUM or AVG.
            feedback: of this vector; None: what compression loses is lost.

        An infinity or a NaN in a group's sum becomes a NaN in the result ("bf16" keeps infinities) and is not fed
        back.

        Raises:
            InvalidArgument: an argument is wrong.
            Mismatch: the ranks disagree on the call. PeerLost, DeadlineExceeded, Aborted: as of Comm's calls. After
                one of these the Compressor is of no further use, on any rank.
        """
        out = as_array(recvbuf, "recvbuf", writes=True).reshape(-1)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf").reshape(-1)
        _check(own, out, op)
        parts = self._layout(own.size)
        residual = feedback.of(own.size, parts[-1].kept.stop) if feedback is not None else None
        try:
            if len(self.groups) == 1:
                self._near.Allreduce(IN_PLACE if own is out else own, out, op)
            else:
                messages = Messages(self._far, KINDS[self.kind], op, own.size)
                shots = OneShot if len(self.groups) == 2 else TwoShot
                divisor = self.comm.size if op == AVG else 1
                _Call(self._near, shots(messages, self._mine, residual), own, out, divisor).run(parts)
                messages.finish()
        except BaseException as error:  # others may wait for this rank in either communicator
            for each in (self._near, self._far):
                each.Abort(f"rank {self.comm.rank} could not end a compressed Allreduce: {error}")
            raise

    def Free(self) -> None:
        """Leave the Compressor's communicators; see Comm.Free."""
        self._near.Free()
        self._far.Free()


def _check(own: Array, out: Array, op: int) -> None:
    if op not in (SUM, AVG):
        raise InvalidArgument(f"op is {op}: a compressed Allreduce knows SUM and AVG")
    if own.dtype != out.dtype or own.dtype.name not in _DTYPES or not own.dtype.isnative:
        raise InvalidArgument(
            f"sendbuf has dtype {own.dtype} and recvbuf {out.dtype}: both must have one of {', '.join(_DTYPES)}"
        )
    if own.size != out.size:
        raise InvalidArgument(f"sendbuf has {own.size} elements and recvbuf {out.size}: they must have equally many")
    if own is not out and np.may_share_memory(own, out):
        raise InvalidArgument("sendbuf and recvbuf overlap: give two buffers, or IN_PLACE")


class _Call:
    """One call on one rank.

    All slices are encoded and sent before the first is awaited, so that slow links never wait for a processor.
    """

    def __init__(self, near: Comm, exchange: Exchange, own: Array, out: Array, divisor: int) -> None:
        self._near, self._exchange = near, exchange
        self._own, self._out, self._divisor = own, out, divisor

    def run(self, parts: list[Part]) -> None:
        """Make the call, but for what is still being sent."""
        for part in parts:
            self._exchange.expect(part)
        for part, shard in zip(parts, self._shards(parts), strict=True):
            self._exchange.scatter(part, shard)
        for part in parts:
            self._exchange.reduce(part)
        Request.Waitall([self._gather(part) for part in parts])

    def _shards(self, parts: list[Part]) -> Iterator[Floats]:
        """Yield this rank's shards of the group's sum; the group adds up the next slice meanwhile."""
        started = deque([self._scatter(part) for part in parts[:1]])
        for following in [*parts[1:], None]:
            if following is not None:
                started.append(self._scatter(following))
            request, shard = started.popleft()
            request.Wait()
            with np.errstate(over="ignore"):  # what is too large for float32 becomes an infinity, and is seen
                yield shard.astype(np.float32, copy=False)

    def _scatter(self, part: Part) -> tuple[Request, Array]:
        shard = np.empty(part.shard.stop - part.shard.start, self._own.dtype)
        return self._near.Ireduce_scatter(self._own[part.span], shard, part.counts), shard

    def _gather(self, part: Part) -> Request:
        """Wait for this rank's shard of the result, and start to exchange shards within the group."""
        whole = self._out[part.span]
        shard = whole[part.shard]
        result = shard if shard.dtype == np.float32 else np.empty(shard.size, np.float32)
        self._exchange.finish(part, result)
        if self._divisor > 1:
            np.divide(result, np.float32(self._divisor), out=result)
        if result is not shard:
            shard[:] = result
        return self._near.Iallgatherv(IN_PLACE, [whole, part.counts])
