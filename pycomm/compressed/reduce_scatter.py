"""One compressed Reduce_scatter on one rank: groups add up by themselves, and owners of blocks add up the groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..communicator.comm import Comm
from ..communicator.request import Request
from ..data.buffer import Array, Blocks
from .blocks import Portion
from .codec import Floats
from .messages import Arrival, Messages
from .near import sums

_PHASE = 0


def carried(portions: Sequence[Portion], rank: int, place: int) -> int:
    """Return how many elements of others' blocks a rank encodes.

    Args:
        portions: as the rank sees them.
        rank: whose.
        place: of the rank in its group.
    """
    return sum(s.size for portion in portions for s in portion.near[place] if s.owner != rank)


class ReduceScatter:
    """One call. All portions are encoded and sent before the first is awaited, as in an Allreduce.

    Of its own block a rank adds up its group's sum, which is not encoded, and what the other groups have sent.

    Args:
        near: the ranks of the group.
        messages: of the call.
        rank: this rank.
        blocks: where everybody's blocks are in the input.
        residual: what the encoding of earlier calls has lost, of all elements that this rank encodes; None: lost it is.
    """

    def __init__(self, near: Comm, messages: Messages, rank: int, blocks: Blocks, residual: Floats | None) -> None:
        self._near, self._messages, self._rank = near, messages, rank
        self._data, self._starts, self._residual = blocks.data, blocks.displs.tolist(), residual
        self._result = np.empty(int(blocks.counts[rank]), np.float32)
        self._kept = 0

    def run(self, portions: Sequence[Portion]) -> Floats:
        """Make the call, but for what is still being sent, and return the sum of all ranks for this rank's block."""
        arrivals = [self._expect(portion) for portion in portions]
        for portion, shard in zip(portions, sums(portions, self._start), strict=True):
            self._scatter(portion, shard)
        for portion, coming in zip(portions, arrivals, strict=True):
            for stretch, those in zip(portion.owned, coming, strict=True):
                for arrival in those:
                    self._messages.decode(self._messages.arrived(arrival), self._result[stretch.span], add=True)
        return self._result

    def _expect(self, portion: Portion) -> list[list[Arrival]]:
        return [
            [
                self._messages.expect(stretch.size, source, _PHASE, portion.number)
                for source in stretch.carriers
                if source != self._rank
            ]
            for stretch in portion.owned
        ]

    def _start(self, portion: Portion) -> tuple[Request, Array]:
        """Start to add up a portion within the group; the input is copied, in the order of who carries what."""
        counts = [sum(stretch.size for stretch in each) for each in portion.near]
        packed = np.empty(sum(counts), self._data.dtype)
        at = 0
        for stretch in (stretch for each in portion.near for stretch in each):
            start = self._starts[stretch.owner]
            packed[at : at + stretch.size] = self._data[start + stretch.span.start : start + stretch.span.stop]
            at += stretch.size
        shard = np.empty(counts[self._near.rank], packed.dtype)
        return self._near.Ireduce_scatter(packed, shard, counts), shard

    def _scatter(self, portion: Portion, shard: Floats) -> None:
        """Keep of a shard what is this rank's own, and start to send the rest."""
        at = 0
        for stretch in portion.near[self._near.rank]:
            part = shard[at : at + stretch.size]
            at += stretch.size
            if stretch.owner == self._rank:
                self._result[stretch.span] = part
                continue
            residual = None if self._residual is None else self._residual[self._kept : self._kept + stretch.size]
            self._kept += stretch.size
            wire = self._messages.encode(part, residual, _PHASE, portion.number)
            self._messages.send(wire, stretch.owner, _PHASE)
