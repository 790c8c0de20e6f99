"""Attributes: values that libraries attach to a communicator under a key of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .comm import Comm

Copy = Callable[["Comm", int, Any], Any]
Delete = Callable[["Comm", int, Any], Any]

KEYVAL_INVALID = 0
TAG_UB, UNIVERSE_SIZE, APPNUM, WTIME_IS_GLOBAL = range(1, 5)  # what MPI attaches to each communicator of all ranks
_MOST_TAG = (1 << 31) - 1


class _Key(NamedTuple):
    copy: Copy | None
    delete: Delete | None


_numbers = itertools.count(100)
_keys: dict[int, _Key] = {}


class Attributes:
    """Those of one communicator."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._values: dict[int, Any] = {}

    def get(self, keyval: int) -> Any:
        """Return a value, or None."""
        known = {TAG_UB: _MOST_TAG, UNIVERSE_SIZE: self._comm._world.size, APPNUM: 0, WTIME_IS_GLOBAL: False}
        return known[keyval] if keyval in known else self._values.get(_known(keyval))

    def set(self, keyval: int, value: Any) -> None:
        """Attach a value; what was there is deleted."""
        if keyval in self._values:
            self.delete(keyval)
        self._values[_known(keyval)] = value

    def delete(self, keyval: int) -> None:
        """Take a value away."""
        if _known(keyval) not in self._values:
            raise InvalidArgument("the communicator has no such attribute")
        value = self._values.pop(keyval)
        delete = _keys[keyval].delete if keyval in _keys else None
        if delete is not None:
            delete(self._comm, keyval, value)

    def copy_to(self, twin: Comm) -> None:
        """Attach to a duplicate what the keys' functions make of the values; NotImplemented: nothing."""
        for keyval, value in self._values.items():
            copy = _keys[keyval].copy if keyval in _keys else None
            copied = NotImplemented if copy is None else copy(self._comm, keyval, value)
            if copied is not NotImplemented:
                twin._attributes.set(keyval, copied)

    def clear(self) -> None:
        """Take all values away, the latest first: the communicator goes."""
        for keyval in reversed(list(self._values)):
            self.delete(keyval)


def create_keyval(copy_fn: Copy | bool | None = None, delete_fn: Delete | None = None) -> int:
    """Return a new key.

    Args:
        copy_fn: copy_fn(comm, keyval, value) returns what a duplicate has, or NotImplemented. True: the same value.
            None: nothing.
        delete_fn: delete_fn(comm, keyval, value) is called when the value goes.
    """
    number = next(_numbers)
    copy = (lambda comm, keyval, value: value) if copy_fn is True else copy_fn or None
    _keys[number] = _Key(copy, delete_fn)
    return number


def free_keyval(keyval: int) -> int:
    """Forget a key; returns KEYVAL_INVALID."""
    _keys.pop(_known(keyval), None)
    return KEYVAL_INVALID


def _known(keyval: int) -> int:
    if keyval not in _keys:
        raise InvalidArgument(f"there is no key {keyval}: Create_keyval makes one")
    return keyval
