"""Encoded elements as messages between two ranks; a header in front shows when the two disagree on the call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..comm import Comm
from ..errors import Mismatch
from ..request import Request, Status
from .codec import Floats, Wire, decode, encode, encoded_bytes

_HEADER = 16  # bytes: kind, op, phase and slice, then the elements of the whole vector


class Arrival(NamedTuple):
    """A message that is to come."""

    request: Request
    wire: Wire
    header: bytes
    source: int


class Messages:
    """The messages of one call.

    Args:
        comm: carries nothing else.
        kind: of encoding.
        op: of the call.
        count: elements of the whole vector.
    """

    def __init__(self, comm: Comm, kind: int, op: int, count: int) -> None:
        self._comm, self._kind, self._op, self._count = comm, kind, op, count
        self._sent: list[Request] = []

    def encode(self, x: Floats, residual: Floats | None, phase: int, number: int) -> Wire:
        """Return a message with some elements of a slice; see codec.encode."""
        wire = np.empty(_HEADER + encoded_bytes(self._kind, x.size), np.uint8)
        wire[:_HEADER] = np.frombuffer(self._header(phase, number), np.uint8)
        encode(self._kind, wire[_HEADER:], x, residual)
        return wire

    def send(self, wire: Wire, dest: int, phase: int) -> None:
        """Start to send a message."""
        self._sent.append(self._comm.Isend(wire, dest, phase))

    def expect(self, count: int, source: int, phase: int, number: int) -> Arrival:
        """Start to receive some elements of a slice."""
        wire = np.empty(_HEADER + encoded_bytes(self._kind, count), np.uint8)
        return Arrival(self._comm.Irecv(wire, source, phase), wire, self._header(phase, number), source)

    def arrived(self, arrival: Arrival) -> Wire:
        """Wait for a message and return it.

        Raises:
            Mismatch: the sender makes another call.
        """
        status = Status()
        arrival.request.Wait(status)
        theirs = arrival.wire[:_HEADER].tobytes()
        if status.nbytes != arrival.wire.size or theirs != arrival.header:
            raise Mismatch(
                f"ranks {self._comm.rank} and {arrival.source} disagree on a compressed Allreduce: here it is "
                f"{_words(arrival.header)} in {arrival.wire.size} bytes, and there {_words(theirs)} in {status.nbytes}",
                arrival.source,
            )
        return arrival.wire

    def decode(self, wire: Wire, out: Floats, *, add: bool) -> None:
        """Decode a message; see codec.decode."""
        decode(self._kind, out, wire[_HEADER:], add=add)

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        Request.Waitall(self._sent)

    def _header(self, phase: int, number: int) -> bytes:
        return np.array([self._kind | self._op << 8 | phase << 16 | number << 32, self._count], np.int64).tobytes()


def _words(header: bytes) -> str:
    what, count = np.frombuffer(header, np.int64).tolist()
    return f"kind {what & 255}, op {what >> 8 & 255}, {count} elements, slice {what >> 32}"
