"""Encoded elements as messages between two ranks; a header in front shows when the two disagree on the call."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..communicator.comm import Comm
from ..communicator.request import Request
from ..data.status import Status
from ..errors import Mismatch
from .codec import Floats, Wire, decode, encode, encoded_bytes

_HEADER = 24  # bytes: kind, op, phase, collective and slice; the elements of all blocks; a checksum of their counts
_COLLECTIVES = ("Allreduce", "Reduce_scatter", "Allgather")


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
        collective: one of Allreduce, Reduce_scatter, Allgather.
        op: of the call.
        counts: elements of each block; of an Allreduce, of the whole vector.
    """

    def __init__(self, comm: Comm, kind: int, collective: str, op: int, counts: Sequence[int]) -> None:
        self._comm, self._kind = comm, kind
        self._what = kind | op << 8 | _COLLECTIVES.index(collective) << 24
        self._counts = [sum(counts), zlib.crc32(np.array(counts, np.int64).tobytes())]
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
                f"ranks {self._comm.rank} and {arrival.source} disagree on a compressed call: here it is "
                f"{_words(arrival.header)} in {arrival.wire.size} bytes, and there {_words(theirs)} in {status.nbytes}",
                arrival.source,
            )
        return arrival.wire

    def decode(self, wire: Wire, out: Floats, *, add: bool) -> None:
        """Decode a message; see codec.decode."""
        decode(self._kind, out, self.body(wire), add=add)

    def body(self, wire: Wire) -> Wire:
        """Return a message without its header."""
        return wire[_HEADER:]

    def body_bytes(self, count: int) -> int:
        """Return the length of the body of a message with some elements."""
        return encoded_bytes(self._kind, count)

    def decode_body(self, body: Wire, out: Floats) -> None:
        """Decode a message's body."""
        decode(self._kind, out, body, add=False)

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        Request.Waitall(self._sent)

    def _header(self, phase: int, number: int) -> bytes:
        return np.array([self._what | phase << 16 | number << 32, *self._counts], np.int64).tobytes()


def _words(header: bytes) -> str:
    what, count, check = np.frombuffer(header, np.int64).tolist()
    collective = what >> 24 & 255
    name = _COLLECTIVES[collective] if collective < len(_COLLECTIVES) else "nothing known"
    return (
        f"{name} of kind {what & 255}, op {what >> 8 & 255}, {count} elements (checksum of counts {check:08x}), "
        f"slice {what >> 32}"
    )
