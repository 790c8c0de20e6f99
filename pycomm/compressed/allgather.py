"""One compressed Allgather on one rank: encoded blocks travel once to each group, which exchanges them as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..communicator.comm import Comm
from ..communicator.request import Request
from ..data.buffer import Array, Blocks
from .blocks import Portion
from .codec import Floats, Wire
from .messages import Arrival, Messages

_PHASE = 0


class Allgather:
    """One call. All portions are encoded and sent before the first is awaited, as in an Allreduce.

    Everybody, the owner included, decodes the same encoding of each block, so that all ranks get the same bits.

    Args:
        near: the ranks of the group.
        messages: of the call.
        rank: this rank.
        own: this rank's block.
        blocks: where everybody's blocks go to.
        residual: what the encoding of earlier calls has lost of this rank's block; None: lost it is.
    """

    def __init__(
        self, near: Comm, messages: Messages, rank: int, own: Array, blocks: Blocks, residual: Floats | None
    ) -> None:
        self._near, self._messages, self._rank = near, messages, rank
        self._data, self._starts, self._residual = blocks.data, blocks.displs.tolist(), residual
        with np.errstate(over="ignore"):  # what is too large for float32 becomes an infinity, and is seen
            self._own: Floats = own.astype(np.float32, copy=False)

    def run(self, portions: Sequence[Portion]) -> None:
        """Make the call, but for what is still being sent."""
        arrivals = [self._expect(portion) for portion in portions]
        sent = [self._send(portion) for portion in portions]
        started = [self._exchange(*each) for each in zip(portions, sent, arrivals, strict=True)]
        for portion, (request, wires) in zip(portions, started, strict=True):
            request.Wait()
            self._decode(portion, wires)

    def _expect(self, portion: Portion) -> list[Arrival]:
        return [
            self._messages.expect(stretch.size, stretch.owner, _PHASE, portion.number)
            for stretch in portion.near[self._near.rank]
            if stretch.owner != self._rank
        ]

    def _send(self, portion: Portion) -> list[Wire]:
        """Encode this rank's block, start to send it to the other groups, and return it."""
        wires = []
        for stretch in portion.owned:
            residual = None if self._residual is None else self._residual[stretch.span]
            wire = self._messages.encode(self._own[stretch.span], residual, _PHASE, portion.number)
            for carrier in stretch.carriers:
                if carrier != self._rank:
                    self._messages.send(wire, carrier, _PHASE)
            wires.append(wire)
        return wires

    def _exchange(self, portion: Portion, ours: Sequence[Wire], arrivals: Sequence[Arrival]) -> tuple[Request, Wire]:
        """Wait for what this rank carries, and start to exchange it within the group, encoded as it is."""
        own, theirs = iter(ours), iter(arrivals)
        carried = [
            next(own) if stretch.owner == self._rank else self._messages.arrived(next(theirs))
            for stretch in portion.near[self._near.rank]
        ]
        mine = np.concatenate([np.empty(0, np.uint8), *map(self._messages.body, carried)])
        counts = [sum(self._messages.body_bytes(stretch.size) for stretch in each) for each in portion.near]
        wires = np.empty(sum(counts), np.uint8)
        return self._near.Iallgatherv(mine, [wires, counts]), wires

    def _decode(self, portion: Portion, wires: Wire) -> None:
        at = 0
        for stretch in (stretch for each in portion.near for stretch in each):
            start = self._starts[stretch.owner]
            place = self._data[start + stretch.span.start : start + stretch.span.stop]
            result = place if place.dtype == np.float32 else np.empty(stretch.size, np.float32)
            self._messages.decode_body(wires[at:], result)
            if result is not place:
                place[:] = result
            at += self._messages.body_bytes(stretch.size)
