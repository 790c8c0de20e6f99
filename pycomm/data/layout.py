"""Buffers whose elements do not lie one after the other: copies that are sent, or put back when they were received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .datatype import Datatype, Offsets

Array = npt.NDArray[Any]


class Borrowed(np.ndarray[Any, Any]):
    """A contiguous copy of a buffer that the core works on in its stead; so are its views.

    Attributes:
        give_back: writes what the copy holds to where it belongs; None: the buffer is only read.
    """

    give_back: Callable[[], None] | None = None

    def __array_finalize__(self, parent: Array | None) -> None:
        self.give_back = getattr(parent, "give_back", None)


def borrow(array: Array, *, writes: bool) -> Array:
    """Return a contiguous copy of an array, in the order of its indices."""
    copy = np.ascontiguousarray(array).view(Borrowed)
    if writes:

        def give_back() -> None:
            array[...] = copy

        copy.give_back = give_back
    return copy


def copied(array: Array) -> Array:
    """Return a copy of an array that is only read."""
    return np.array(array).view(Borrowed)


def borrow_pattern(flat: Array, index: Offsets, what: str, *, writes: bool) -> Array:
    """Return a copy of the elements of a one-dimensional array that lie at `index`, in this order."""
    if len(index) and not (index.min() >= 0 and index.max() < flat.size):
        raise InvalidArgument(
            f"{what}: the datatype reaches from element {index.min()} to {index.max()} of {flat.size} that there are"
        )
    copy = flat[index].view(Borrowed)
    if writes:

        def give_back() -> None:
            flat[index] = copy

        copy.give_back = give_back
    return copy


def give_back(array: Array) -> None:
    """Write a buffer that was borrowed to where it belongs, once the core is done with it."""
    if isinstance(array, Borrowed) and array.give_back is not None:
        array.give_back()


def giving_back(array: Array) -> Callable[[object], None] | None:
    """Return what a request calls for a buffer when it is done; None if there is nothing to do."""
    home = array.give_back if isinstance(array, Borrowed) else None
    return None if home is None else lambda _: home()


def as_type(array: Array, datatype: Datatype, what: str) -> Array:
    """Return the memory of an array as one-dimensional elements of a datatype's dtype."""
    if array.dtype == datatype.base:
        return array.reshape(-1)
    if array.nbytes % datatype.base.itemsize:
        raise InvalidArgument(f"{what} has {array.nbytes} bytes, which are no whole number of {datatype.name}")
    return array.reshape(-1).view(np.uint8).view(datatype.base)
