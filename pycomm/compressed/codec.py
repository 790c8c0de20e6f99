"""The core's codecs (csrc/squeeze.h) on numpy arrays: float32 in fewer bits, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core import check, ffi, lib

Floats = npt.NDArray[np.float32]
Wire = npt.NDArray[np.uint8]

KINDS: dict[str, int] = {"bf16": lib.PCM_SQUEEZE_BF16, "int8": lib.PCM_SQUEEZE_INT8, "int4": lib.PCM_SQUEEZE_INT4}


def encoded_bytes(kind: int, count: int) -> int:
    """Return how many bytes some elements are encoded in."""
    return int(lib.pcm_squeeze_bytes(kind, count))


def encode(kind: int, wire: Wire, x: Floats, residual: Floats | None) -> None:
    """Encode an array.

    Args:
        kind: one of KINDS' codes.
        wire: what is written, encoded_bytes(kind, x.size) bytes.
        x: the elements.
        residual: of the same size; it is added to x, and becomes what the encoding lost. None: nothing is added.
    """
    lost = ffi.NULL if residual is None else ffi.from_buffer("float[]", residual)
    check(lib.pcm_squeeze_encode(kind, ffi.from_buffer(wire), ffi.from_buffer("float[]", x), lost, x.size))


def decode(kind: int, out: Floats, wire: Wire, *, add: bool) -> None:
    """Decode out.size elements into `out`, or add them to it."""
    check(lib.pcm_squeeze_decode(kind, ffi.from_buffer("float[]", out), ffi.from_buffer(wire), out.size, add))
