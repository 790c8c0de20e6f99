"""Persistent operations: calls that are described once and started many times, as a loop over time steps makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from ..errors import InvalidArgument
from .request import Request

if TYPE_CHECKING:
    from .comm import Comm

_P = ParamSpec("_P")


class Prequest(Request):
    """An operation that Start starts; each time it must be waited for before the next. Made by Comm's *_init methods.

    Buffers are looked at when it is started. After the first time the core has a plan, so that there is little to
    prepare: a persistent operation is as fast as the one that it repeats.

    Args:
        begin: starts the operation.
    """

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[], Request]) -> None:
        super().__init__()
        self._begin: Callable[[], Request] | None = begin

    def __bool__(self) -> bool:
        return self._begin is not None

    def Start(self) -> None:
        """Start the operation."""
        if self._active():
            raise InvalidArgument("the operation has been started: wait for it first")
        if self._begin is None:
            raise InvalidArgument("the request was freed")
        self._become(self._begin())

    @classmethod
    def Startall(cls, requests: Iterable[Prequest]) -> None:
        """Start all operations."""
        for request in requests:
            request.Start()

    def Free(self) -> None:
        """Forget the operation; if it is under way, it goes on."""
        super().Free()
        self._begin = None


def persistent(start: Callable[Concatenate[Comm, _P], Request]) -> Callable[Concatenate[Comm, _P], Prequest]:
    """Return the method that describes, for Start, what a method starts at once."""

    def prepare(comm: Comm, /, *args: _P.args, **kwargs: _P.kwargs) -> Prequest:
        return Prequest(functools.partial(start, comm, *args, **kwargs))

    prepare.__doc__ = f"Return a request whose Start does what {start.__name__} does with these arguments."
    return prepare
