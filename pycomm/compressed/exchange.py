"""What a rank sends and receives between groups in one call, in one shot or in two."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from .codec import Floats, Wire
from .layout import Cell, Part, pieces
from .messages import Arrival, Messages

_SUMMANDS, _SUMS = 0, 1  # phases


class Exchange:
    """One call's messages between groups. Its methods are called for all slices in turn, one method after the other.

    No rank encodes what was encoded before, but for a sum of other numbers: an element's error is that of each group's
    summand, and in two shots that of the sum.

    Args:
        messages: of this call.
        mine: the number of this rank's group.
        residual: what the encoding of earlier calls has lost, of all elements that this rank carries; None: lost it is.
    """

    def __init__(self, messages: Messages, mine: int, residual: Floats | None) -> None:
        self._messages, self._mine, self._residual = messages, mine, residual

    def expect(self, part: Part) -> None:
        """Start to receive all that is to come."""
        raise NotImplementedError

    def scatter(self, part: Part, shard: Floats) -> None:
        """Start to send the sum of this rank's group; the shard may be written to afterwards."""
        raise NotImplementedError

    def reduce(self, part: Part) -> None:
        """Add up what this rank is to add up, and start to send it."""

    def finish(self, part: Part, result: Floats) -> None:
        """Wait for the sum of all groups, and write it to the result."""
        raise NotImplementedError

    def _encode(self, part: Part, span: slice, x: Floats, phase: int) -> Wire:
        residual = None if self._residual is None else self._residual[part.kept][span]
        return self._messages.encode(x, residual, phase, part.number)

    def _expect(self, part: Part, span: slice, source: int, phase: int) -> Arrival:
        return self._messages.expect(span.stop - span.start, source, phase, part.number)


class OneShot(Exchange):
    """Between two groups: each sends its encoded sum, and both add the same two numbers."""

    def __init__(self, messages: Messages, mine: int, residual: Floats | None) -> None:
        super().__init__(messages, mine, residual)
        self._theirs: dict[int, list[Arrival]] = {}
        self._ours: dict[int, list[Wire]] = {}

    def expect(self, part: Part) -> None:
        """See Exchange."""
        other = 1 - self._mine
        self._theirs[part.number] = [
            self._expect(part, cell.span, cell.carriers[other], _SUMMANDS) for cell in part.cells
        ]

    def scatter(self, part: Part, shard: Floats) -> None:
        """See Exchange."""
        wires = [self._encode(part, cell.span, shard[cell.span], _SUMMANDS) for cell in part.cells]
        for cell, wire in zip(part.cells, wires, strict=True):
            self._messages.send(wire, cell.carriers[1 - self._mine], _SUMMANDS)
        self._ours[part.number] = wires

    def finish(self, part: Part, result: Floats) -> None:
        """See Exchange."""
        both = zip(part.cells, self._ours.pop(part.number), self._theirs.pop(part.number), strict=True)
        for cell, ours, arrival in both:
            theirs = self._messages.arrived(arrival)
            first, second = (ours, theirs) if self._mine == 0 else (theirs, ours)
            self._messages.decode(first, result[cell.span], add=False)
            self._messages.decode(second, result[cell.span], add=True)


class _Share(NamedTuple):
    """A carrier's piece of a cell.

    Attributes:
        span: where in the shard.
        group: of the carrier that adds it up.
        others: the other carriers.
        owner: the carrier that adds it up.
    """

    span: slice
    group: int
    owner: int
    others: list[int]


def _shares(cell: Cell) -> list[_Share]:
    return [
        _Share(span, group, owner, [rank for rank in cell.carriers if rank != owner])
        for group, (span, owner) in enumerate(zip(pieces(cell), cell.carriers, strict=True))
        if span.start < span.stop
    ]


class TwoShot(Exchange):
    """Between more groups: each carrier adds up a piece of its cells, and sends the sum, encoded once, to the others.

    It adds its own group's summand as it is. A rank's summands for others and the sum that it makes are different
    elements of its shard, so that one residual serves both.
    """

    def __init__(self, messages: Messages, mine: int, residual: Floats | None) -> None:
        super().__init__(messages, mine, residual)
        self._summands: defaultdict[int, list[list[Arrival]]] = defaultdict(list)
        self._own: defaultdict[int, list[Floats]] = defaultdict(list)
        self._sums: defaultdict[int, list[tuple[_Share, Arrival | Wire]]] = defaultdict(list)

    def expect(self, part: Part) -> None:
        """See Exchange."""
        for share in self._shares_of(part):
            if share.group == self._mine:
                arrivals = [self._expect(part, share.span, rank, _SUMMANDS) for rank in share.others]
                self._summands[part.number].append(arrivals)
            else:
                self._sums[part.number].append((share, self._expect(part, share.span, share.owner, _SUMS)))

    def scatter(self, part: Part, shard: Floats) -> None:
        """See Exchange."""
        for share in self._shares_of(part):
            if share.group == self._mine:
                self._own[part.number].append(shard[share.span].copy())
            else:
                wire = self._encode(part, share.span, shard[share.span], _SUMMANDS)
                self._messages.send(wire, share.owner, _SUMMANDS)

    def reduce(self, part: Part) -> None:
        """See Exchange."""
        own = [share for share in self._shares_of(part) if share.group == self._mine]
        arrived = zip(own, self._own.pop(part.number, []), self._summands.pop(part.number, []), strict=True)
        for share, total, arrivals in arrived:
            for arrival in arrivals:
                self._messages.decode(self._messages.arrived(arrival), total, add=True)
            wire = self._encode(part, share.span, total, _SUMS)
            for rank in share.others:
                self._messages.send(wire, rank, _SUMS)
            self._sums[part.number].append((share, wire))

    def finish(self, part: Part, result: Floats) -> None:
        """See Exchange."""
        for share, sums in self._sums.pop(part.number, []):
            wire = self._messages.arrived(sums) if isinstance(sums, Arrival) else sums
            self._messages.decode(wire, result[share.span], add=False)

    def _shares_of(self, part: Part) -> list[_Share]:
        return [share for cell in part.cells for share in _shares(cell)]
