"""Compressor: collectives whose messages between groups of ranks are compressed, and those within groups are not."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..communicator.comm import AVG, SUM, Comm
from ..data.buffer import IN_PLACE, Array, Blocks, as_array, as_blocks
from ..data.layout import give_back
from ..errors import InvalidArgument
from .allgather import Allgather
from .allreduce import Allreduce
from .blocks import portions
from .codec import KINDS
from .exchange import OneShot, TwoShot
from .feedback import Feedback
from .layout import check_groups, layout
from .messages import Messages
from .reduce_scatter import ReduceScatter, carried

_DTYPES = ("float32", "float64", "bfloat16")


class Compressor:
    """Reduces and gathers over groups of ranks that are joined by slow links, and compresses what crosses these.

    Making one is collective, and so is each call, which must be made with the same kind, op and sizes by all ranks. The
    results are not exact: docs/compression.md has the bounds of their errors. All ranks that get an element get the
    same bits. Elements are float32, float64 or bfloat16; whatever the dtype, what crosses slow links has float32's
    range and precision at most. An infinity or a NaN in what is encoded becomes a NaN in the result ("bf16" keeps
    infinities) and is not fed back.

    Calls raise:
        InvalidArgument: an argument is wrong.
        Mismatch: the ranks disagree on the call. PeerLost, DeadlineExceeded, Aborted: as of Comm's calls. After one of
            these the Compressor is of no further use, on any rank.

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
        self._portions = functools.lru_cache(64)(lambda counts: portions(counts, self.groups, comm.rank))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: int = SUM, *, feedback: Feedback | None = None) -> None:
        """Reduce over all ranks; everybody gets the result.

        Args:
            sendbuf: n elements, or IN_PLACE: they are in recvbuf.
            recvbuf: n elements of the same dtype.
            op: SUM or AVG.
            feedback: of this vector; None: what compression loses is lost.
        """
        out = as_array(recvbuf, "recvbuf", writes=True).reshape(-1)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf").reshape(-1)
        _check(own, out, op, in_place=sendbuf is IN_PLACE)
        if own.size != out.size:
            raise InvalidArgument(
                f"sendbuf has {own.size} elements and recvbuf {out.size}: they must have equally many"
            )
        parts = self._layout(own.size)
        residual = feedback.of(own.size, parts[-1].kept.stop) if feedback is not None else None
        if len(self.groups) == 1:
            self._near.Allreduce(IN_PLACE if own is out else own, out, op)
            give_back(out)
            return
        with self._messages("Allreduce", op, (own.size,)) as messages:
            shots = OneShot if len(self.groups) == 2 else TwoShot
            exchange = shots(messages, self._mine, residual)
            Allreduce(self._near, exchange, own, out, self._divisor(op)).run(parts)
        give_back(out)

    def Reduce_scatter_block(
        self, sendbuf: Any, recvbuf: Any, op: int = SUM, *, feedback: Feedback | None = None
    ) -> None:
        """Reduce over all ranks; rank r gets the r-th of `size` equal blocks.

        Args:
            sendbuf: size * n elements, or IN_PLACE: they are in recvbuf, whose first n elements get the result.
            recvbuf: n elements of the same dtype.
            op: SUM or AVG.
            feedback: of this vector; None: what compression loses is lost.
        """
        out = as_array(recvbuf, "recvbuf", writes=True).reshape(-1)
        own = out if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf").reshape(-1)
        if sendbuf is IN_PLACE:
            out = out[: out.size // self.comm.size]
        if own.size != out.size * self.comm.size:
            raise InvalidArgument(
                f"there are {own.size} elements to reduce and {out.size} in a block: {self.comm.size} ranks need "
                f"{self.comm.size} equal blocks"
            )
        blocks = as_blocks([own, [out.size] * self.comm.size], self.comm.size, "sendbuf")
        self._reduce_scatter(blocks, out, op, feedback, in_place=sendbuf is IN_PLACE)

    def Reduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int], op: int = SUM, *, feedback: Feedback | None = None
    ) -> None:
        """Reduce over all ranks; rank r gets recvcounts[r] elements, the blocks lying one after the other in sendbuf.

        Args:
            sendbuf: sum(recvcounts) elements.
            recvbuf: recvcounts[rank] elements of the same dtype.
            recvcounts: one count a rank, the same on all ranks.
            op: SUM or AVG.
            feedback: of this vector; None: what compression loses is lost.
        """
        out = as_array(recvbuf, "recvbuf", writes=True).reshape(-1)
        blocks = as_blocks([sendbuf, recvcounts], self.comm.size, "sendbuf")
        if out.size != blocks.counts[self.comm.rank]:
            raise InvalidArgument(
                f"recvbuf has {out.size} elements, and recvcounts says {blocks.counts[self.comm.rank]}"
            )
        self._reduce_scatter(blocks, out, op, feedback, in_place=False)

    def _reduce_scatter(
        self, blocks: Blocks, out: Array, op: int, feedback: Feedback | None, *, in_place: bool
    ) -> None:
        _check(blocks.data, out, op, in_place=in_place)
        counts = tuple(blocks.counts.tolist())
        made = self._portions(counts)
        encoded = carried(made, self.comm.rank, self._near.rank)
        residual = feedback.of(sum(counts), encoded) if feedback is not None else None
        if len(self.groups) == 1:  # whose order may be another than that of the ranks
            whole = blocks.data[: sum(counts)]
            self._far.Reduce_scatter(whole.copy() if in_place else whole, out, counts, op)
            give_back(out)
            return
        with self._messages("Reduce_scatter", op, counts) as messages:
            result = ReduceScatter(self._near, messages, self.comm.rank, blocks, residual).run(made)
        divisor = self._divisor(op)
        out[:] = np.divide(result, np.float32(divisor), out=result) if divisor > 1 else result
        give_back(out)

    def Allgather(self, sendbuf: Any, recvbuf: Any, *, feedback: Feedback | None = None) -> None:
        """Give everybody's block to everybody; to its owner too as the others get it.

        Args:
            sendbuf: n elements, or IN_PLACE: they are at their place in recvbuf.
            recvbuf: size * n elements of the same dtype: rank r's block is the r-th.
            feedback: of this rank's block; None: what compression loses is lost.
        """
        out = as_array(recvbuf, "recvbuf", writes=True).reshape(-1)
        each = out.size // self.comm.size if sendbuf is IN_PLACE else as_array(sendbuf, "sendbuf").size
        if each * self.comm.size != out.size:
            raise InvalidArgument(
                f"recvbuf has {out.size} elements: {self.comm.size} blocks of {each} need {each * self.comm.size}"
            )
        self.Allgatherv(sendbuf, [out, [each] * self.comm.size], feedback=feedback)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any, *, feedback: Feedback | None = None) -> None:
        """Give everybody's block to everybody, where blocks differ in length; to its owner too as the others get it.

        Args:
            sendbuf: this rank's block, or IN_PLACE: it is at its place in recvbuf.
            recvbuf: [data, counts] or [data, (counts, displs)], the same counts on all ranks, the same dtype.
            feedback: of this rank's block; None: what compression loses is lost.
        """
        blocks = as_blocks(recvbuf, self.comm.size, "recvbuf", writes=True)
        counts, start = tuple(blocks.counts.tolist()), int(blocks.displs[self.comm.rank])
        count = counts[self.comm.rank]
        in_place = sendbuf is IN_PLACE
        own = blocks.data[start : start + count] if in_place else as_array(sendbuf, "sendbuf").reshape(-1)
        _check(own, blocks.data, SUM, in_place=in_place)
        if own.size != count:
            raise InvalidArgument(f"sendbuf has {own.size} elements, and the counts of recvbuf say {count}")
        residual = feedback.of(sum(counts), count) if feedback is not None else None
        if len(self.groups) == 1:  # whose order may be another than that of the ranks
            self._far.Allgatherv(IN_PLACE if in_place else own, [blocks.data, (counts, blocks.displs)])
            give_back(blocks.data)
            return
        with self._messages("Allgather", SUM, counts) as messages:
            Allgather(self._near, messages, self.comm.rank, own, blocks, residual).run(self._portions(counts))
        give_back(blocks.data)

    def Free(self) -> None:
        """Leave the Compressor's communicators; see Comm.Free."""
        self._near.Free()
        self._far.Free()

    def _divisor(self, op: int) -> int:
        return self.comm.size if op == AVG else 1

    @contextlib.contextmanager
    def _messages(self, collective: str, op: int, counts: Sequence[int]) -> Iterator[Messages]:
        """Give a call its messages, and wait until they have left; after an error tell the other ranks."""
        messages = Messages(self._far, KINDS[self.kind], collective, op, counts)
        try:
            yield messages
            messages.finish()
        except BaseException as error:  # others may wait for this rank in either communicator
            for each in (self._near, self._far):
                each.Abort(f"rank {self.comm.rank} could not end a compressed {collective}: {error}")
            raise


def _check(own: Array, out: Array, op: int, *, in_place: bool) -> None:
    """Refuse an op or dtypes that there are not, and buffers that overlap without being in place."""
    if op not in (SUM, AVG):
        raise InvalidArgument(f"op is {op}: a compressed reduction knows SUM and AVG")
    if own.dtype != out.dtype or own.dtype.name not in _DTYPES or not own.dtype.isnative:
        raise InvalidArgument(
            f"sendbuf has dtype {own.dtype} and recvbuf {out.dtype}: both must have one of {', '.join(_DTYPES)}"
        )
    if not in_place and np.may_share_memory(own, out):
        raise InvalidArgument("sendbuf and recvbuf overlap: give two buffers, or IN_PLACE")
