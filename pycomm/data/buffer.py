"""What users pass as buffers (arrays, DLPack, the buffer protocol, lists like mpi4py's), as arrays over that memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .datatype import Datatype, of_dtype
from .layout import Array as Array
from .layout import as_type, borrow, borrow_pattern


class _InPlace:
    """The type of IN_PLACE."""

    def __repr__(self) -> str:
        return "pycomm.IN_PLACE"

    def __reduce__(self) -> str:
        return "IN_PLACE"


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


class Spec(NamedTuple):
    """What a user's list says: `[data]`, `[data, count]`, `[data, type]`, `[data, count, type]`, ...

    Attributes:
        data: what has the memory.
        count: elements, or (elements, displacements); None: not said.
        datatype: of an item; None: the data's own dtype.
    """

    data: Any
    count: Any
    datatype: Datatype | None


def as_array(buffer: Any, what: str, *, writes: bool = False, blocks: int = 1) -> Array:
    """Return a C-contiguous array over the memory of `buffer`.

    Nothing is copied, unless the elements do not lie one after the other: a strided view or a derived datatype is
    borrowed (see layout), and whoever has it written calls `give_back`. An array in Fortran's order is taken as it lies
    in memory, which is what mpi4py does.

    Args:
        buffer: a numpy array, anything with `__dlpack__` or the buffer protocol, or `[data, count]`, `[data, type]`,
            `[data, count, type]`, with (count, displacement) in place of the count.
        what: what to call it in errors, e.g. "recvbuf".
        writes: whether it will be written to.
        blocks: how many blocks it has; a count is that of one.

    Raises:
        InvalidArgument: it is none of these, or read-only where it must be written.
    """
    if type(buffer) is np.ndarray and buffer.flags.c_contiguous and not writes:
        return buffer  # the usual case, at once
    if not isinstance(buffer, (list, tuple)):
        return _contiguous(_memory(buffer, what, writes), writes)
    spec = _spec(buffer, what)
    array, datatype = _typed(spec, what, writes)
    count, displ = spec.count if isinstance(spec.count, tuple) else (spec.count, 0)
    displ = _number(displ or 0, f"{what}'s displacement")
    extent = datatype.extent // datatype.base.itemsize
    room = (array.size - displ * extent) // extent if extent else 0
    if count is not None:
        number = _number(count, f"{what}'s count") * blocks
        if not number >= 0 or not displ >= 0 or (datatype.offsets is None and number > room):
            each = " in each block" if blocks > 1 else ""
            raise InvalidArgument(f"{what} says {number // blocks} elements{each} and has {max(room, 0)}")
    else:
        number = max(room, 0)
    if datatype.offsets is None:
        return array[displ : displ + number]
    return borrow_pattern(array, displ * extent + datatype.index(number), what, writes=writes)


def as_blocks(buffer: Any, size: int, what: str, *, writes: bool = False) -> Blocks:
    """Return a buffer of blocks.

    Args:
        buffer: `[data, counts]`, `[data, (counts, displs)]`, either with a datatype behind it, or data alone; counts
            and displacements are in items, one a rank. One count stands for equal blocks, no counts for blocks that are
            as equal as can be; one displacement is the distance of two blocks; by default one lies after the other.
        size: how many blocks.
        what, writes: see as_array.

    Raises:
        InvalidArgument: the counts are not one a rank, are negative, or reach beyond the data.
    """
    spec = _spec(buffer, what) if isinstance(buffer, (list, tuple)) else Spec(buffer, None, None)
    array, datatype = _typed(spec, what, writes)
    given, placed = spec.count if isinstance(spec.count, tuple) and _is_pair(spec.count) else (spec.count, None)
    extent = datatype.extent // datatype.base.itemsize
    if given is None:
        items = array.size // extent if extent else 0
        counts = items // size + (np.arange(size) < items % size)
    else:
        counts = _numbers([given] * size if _is_number(given) else given, size, f"{what}'s counts")
    displs = np.cumsum(counts) - counts
    if placed is not None:
        displs = _numbers(np.arange(size) * placed if _is_number(placed) else placed, size, f"{what}'s displacements")
    if datatype.offsets is not None:
        if (counts < 0).any():
            raise InvalidArgument(f"{what}: the count of rank {int(np.argmin(counts))} is negative")
        index = [datatype.index(count) + at * extent for count, at in zip(counts, displs, strict=True)]
        array = borrow_pattern(array, np.concatenate(index), what, writes=writes)
        counts = counts * len(datatype.offsets)
        displs = np.cumsum(counts) - counts
    if (counts < 0).any() or (displs < 0).any() or (counts + displs > array.size).any():
        rank = int(np.argmax((counts < 0) | (displs < 0) | (counts + displs > array.size)))
        raise InvalidArgument(
            f"{what}: the block of rank {rank} ({counts[rank]} elements from {displs[rank]}) does not lie within the "
            f"{array.size} elements of the data"
        )
    if writes and placed is not None:
        _check_apart(counts, displs, what)
    return Blocks(array, counts.astype(np.uint64), displs.astype(np.uint64))


def _memory(buffer: Any, what: str, writes: bool) -> Array:
    """Return an array over the memory of what is no list."""
    if buffer is IN_PLACE:
        raise InvalidArgument(f"{what} cannot be IN_PLACE here: give a buffer")
    if isinstance(buffer, np.ndarray):
        array = buffer
    elif hasattr(buffer, "__dlpack__"):
        array = np.from_dlpack(buffer)
    else:
        try:
            array = np.asarray(memoryview(buffer))
        except TypeError:
            raise InvalidArgument(
                f"{what} is a {type(buffer).__name__}: give a numpy array, or what has DLPack or the buffer protocol"
            ) from None
    if writes and not array.flags.writeable:
        raise InvalidArgument(f"{what} is read-only, and the result must be written to it")
    return array


def _contiguous(array: Array, writes: bool) -> Array:
    if array.flags.c_contiguous:
        return array
    return array.T if array.flags.f_contiguous else borrow(array, writes=writes)


def _spec(items: Sequence[Any], what: str) -> Spec:
    """Read a user's list, as mpi4py does."""
    rest = list(items[1:])
    if len(rest) > 1 and rest[-1] is None:  # no datatype is said
        rest.pop()
    datatype = _datatype(rest.pop(), what) if rest and isinstance(rest[-1], (Datatype, str, np.dtype)) else None
    if not items or len(rest) > 2 or (len(rest) == 2 and datatype is None):
        raise InvalidArgument(
            f"{what} is a list of {len(items)}: give [data, count], [data, type], [data, count, type], with "
            "(counts, displs) in place of the count, or the data alone"
        )
    return Spec(items[0], tuple(rest) if len(rest) == 2 else rest[0] if rest else None, datatype)


def _datatype(given: Any, what: str) -> Datatype:
    try:
        return given if isinstance(given, Datatype) else of_dtype(given)
    except TypeError:
        raise InvalidArgument(f"{what}: {given!r} is neither a count nor a datatype") from None


def _typed(spec: Spec, what: str, writes: bool) -> tuple[Array, Datatype]:
    """Return the data as one-dimensional elements, and the type of an item."""
    if spec.data is None:
        datatype = spec.datatype or of_dtype(np.uint8)
        return np.empty(0, datatype.base), datatype
    array = _contiguous(_memory(spec.data, what, writes), writes)
    datatype = spec.datatype or Datatype(array.dtype)
    return as_type(array, datatype, what), datatype


def _is_number(given: Any) -> bool:
    return np.ndim(given) == 0 and hasattr(given, "__index__")


def _is_pair(given: tuple[Any, ...]) -> bool:
    """Whether a tuple is (counts, displs), which it is if there are two: counts are a list."""
    return len(given) == 2


def _number(given: Any, what: str) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise InvalidArgument(f"{what} must be a whole number, not {given!r}") from None


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
