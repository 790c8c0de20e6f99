"""What users pass as buffers (arrays, DLPack, the buffer protocol, lists like mpi4py's), as arrays over that memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument

Array = npt.NDArray[Any]


class _InPlace:
    """The type of IN_PLACE."""

    def __repr__(self) -> str:
        return "pycomm.IN_PLACE"


IN_PLACE: Final = _InPlace()


class Blocks(NamedTuple):
    """A buffer of blocks of given counts, as the v-collectives take it: `[data, counts]` or `[data, (counts, displs)]`.

    Attributes:
        data: one-dimensional array over the whole buffer.
        counts: elements of each rank's block.
        displs: where each block starts, in elements.
    """

    data: Array
    counts: npt.NDArray[np.uint64]
    displs: npt.NDArray[np.uint64]


def as_array(buffer: Any, what: str, *, writes: bool = False) -> Array:
    """Return a C-contiguous array over the memory of `buffer`; nothing is copied.

    Args:
        buffer: a numpy array, anything with `__dlpack__` or the buffer protocol, or `[data, count]`.
        what: what to call it in errors, e.g. "recvbuf".
        writes: whether it will be written to.

    Raises:
        InvalidArgument: it is none of these, not contiguous, or read-only where it must be written.
    """
    if buffer is IN_PLACE:
        raise InvalidArgument(f"{what} cannot be IN_PLACE here: give a buffer")
    if isinstance(buffer, np.ndarray):
        array = buffer
    elif isinstance(buffer, (list, tuple)):
        array = _counted(buffer, what, writes)
    elif hasattr(buffer, "__dlpack__"):
        array = np.from_dlpack(buffer)
    else:
        try:
            array = np.asarray(memoryview(buffer))
        except TypeError:
            raise InvalidArgument(
                f"{what} is a {type(buffer).__name__}: give a numpy array, or what has DLPack or the buffer protocol"
            ) from None
    if not array.flags.c_contiguous:
        raise InvalidArgument(f"{what} is not contiguous (strides {array.strides}): pass np.ascontiguousarray of it")
    if writes and not array.flags.writeable:
        raise InvalidArgument(f"{what} is read-only, and the result must be written to it")
    return array


def _counted(spec: Sequence[Any], what: str, writes: bool) -> Array:
    if len(spec) != 2:
        raise InvalidArgument(f"{what} is a list of {len(spec)}: give [data, count] or the data alone")
    data = as_array(spec[0], what, writes=writes).reshape(-1)
    try:
        count = operator.index(spec[1])
    except TypeError:
        raise InvalidArgument(f"{what}'s count must be a whole number, not {spec[1]!r}") from None
    if not 0 <= count <= data.size:
        raise InvalidArgument(f"{what} says {count} elements and has {data.size}")
    return data[:count]


def as_blocks(spec: Any, size: int, what: str, *, writes: bool = False) -> Blocks:
    """Return `[data, counts]` or `[data, (counts, displs)]` as Blocks; by default one block lies after the other.

    Raises:
        InvalidArgument: the counts are not one a rank, are negative, or reach beyond the data.
    """
    if not isinstance(spec, (list, tuple)) or len(spec) != 2:
        raise InvalidArgument(f"{what} must be [data, counts] or [data, (counts, displs)]")
    data = as_array(spec[0], what, writes=writes).reshape(-1)
    given = spec[1]
    pair = isinstance(given, tuple) and len(given) == 2 and not np.isscalar(given[0])
    counts = _numbers(given[0] if pair else given, size, f"{what}'s counts")
    displs = np.cumsum(counts) - counts
    if pair and given[1] is not None:
        displs = _numbers(given[1], size, f"{what}'s displacements")
    if (counts < 0).any() or (displs < 0).any() or (counts + displs > data.size).any():
        rank = int(np.argmax((counts < 0) | (displs < 0) | (counts + displs > data.size)))
        raise InvalidArgument(
            f"{what}: the block of rank {rank} ({counts[rank]} elements from {displs[rank]}) does not lie within the "
            f"{data.size} elements of the data"
        )
    if writes and pair:
        _check_apart(counts, displs, what)
    return Blocks(data, counts.astype(np.uint64), displs.astype(np.uint64))


def _numbers(given: Any, size: int, what: str) -> npt.NDArray[np.int64]:
    try:
        numbers = np.asarray(given)
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"{what} must be whole numbers, one a rank, not {given!r}") from None
    if numbers.shape != (size,):
        raise InvalidArgument(f"{what} must be {size} numbers, one a rank, and are {numbers.size}")
    return numbers.astype(np.int64)


def _check_apart(counts: npt.NDArray[np.int64], displs: npt.NDArray[np.int64], what: str) -> None:
    """Refuse blocks that would be written over each other."""
    filled = np.flatnonzero(counts)
    order = filled[np.argsort(displs[filled], kind="stable")]
    over = np.flatnonzero((displs + counts)[order[:-1]] > displs[order[1:]])
    if over.size:
        raise InvalidArgument(f"{what}: the blocks of ranks {order[over[0]]} and {order[over[0] + 1]} overlap")
