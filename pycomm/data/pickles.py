"""Objects as bytes: pickles of protocol 5, behind which the memory of arrays lies as it is.

A frame is: how many buffers, the pickle's length and theirs (all 64-bit), the pickle, then each buffer. These begin,
and the frame ends, at multiples of ALIGN bytes. Unpickling runs what the pickle says; so it is done for messages of
ranks alone, all of which have proved to the transport that they know the job's secret.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

from ..errors import InvalidArgument

ALIGN = 64  # bytes: what the kernels and numpy like best


def dumps(obj: Any) -> bytearray:
    """Return an object's frame; memory that it lends (protocol 5, as numpy's arrays do) is copied once."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    memories = [buffer.raw() for buffer in buffers]
    lengths = [memory.nbytes for memory in memories]
    frame = bytearray(struct.pack(f"<{2 + len(lengths)}Q", len(lengths), len(pickled), *lengths))
    frame += pickled
    for memory in memories:
        frame += bytes(-len(frame) % ALIGN)
        frame += memory
    frame += bytes(-len(frame) % ALIGN)
    return frame


def loads(frame: memoryview) -> Any:
    """Return the object of a frame; its arrays lie in the frame's memory and keep it alive.

    Raises:
        InvalidArgument: the bytes are no frame, as when the other rank has sent a buffer; nothing was unpickled.
    """
    if len(frame) < 16:
        raise _no_frame(frame)
    count, length = struct.unpack_from("<2Q", frame)
    if 16 + 8 * count > len(frame):
        raise _no_frame(frame)
    lengths = struct.unpack_from(f"<{count}Q", frame, 16)
    at = 16 + 8 * count
    pickled = frame[at : at + length]
    at += length
    buffers = []
    for each in lengths:
        at += -at % ALIGN
        buffers.append(frame[at : at + each])
        at += each
    if at > len(frame):
        raise _no_frame(frame)
    return pickle.loads(pickled, buffers=buffers)


def _no_frame(frame: memoryview) -> InvalidArgument:
    return InvalidArgument(f"a message of {len(frame)} bytes holds no object: was it sent with a method for buffers?")
