"""Persistent operations: calls that are described once and started many times, as a loop over time steps makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..core import ffi, starts_bound
from ..errors import InvalidArgument
from .calls import Prepared
from .request import Request

if TYPE_CHECKING:
    from .comm import Comm

_P = ParamSpec("_P")
_C = TypeVar("_C", bound="Comm")


class Prequest(Request):
    """An operation that Start starts; each time it must be waited for before the next. Made by Comm's *_init methods.

    Buffers are looked at when it is started. If they are used where they lie, this is done once: from the second time
    on, Start is one call of the core.

    Args:
        begin: starts the operation.
        comm: of a collective, its communicator; None: it must be begun anew each time.
    """

    __slots__ = ("_begin", "_comm")

    def __init__(self, begin: Callable[[], Request], comm: Comm | None = None) -> None:
        super().__init__()
        self._begin: Callable[[], Request] | None = begin
        self._comm = comm

    def __bool__(self) -> bool:
        return self._begin is not None

    @starts_bound
    def Start(self) -> None:
        """Start the operation."""
        if self._active():
            raise InvalidArgument("the operation has been started: wait for it first")
        if self._begin is None:
            raise InvalidArgument("the request was freed")
        request = self._begin()
        prepared = request._keep
        repeats = isinstance(prepared, Prepared) and request._after is None and prepared.repeats
        self._become(request)
        if self._comm is not None and repeats:
            self._bind(self._comm, int(ffi.cast("uintptr_t", prepared.call)), prepared)

    @classmethod
    def Startall(cls, requests: Iterable[Prequest]) -> None:
        """Start all operations."""
        for request in requests:
            request.Start()

    def Free(self) -> None:
        """Forget the operation; if it is under way, it goes on."""
        super().Free()
        self._unbind()
        self._begin = self._comm = None


def persistent(
    start: Callable[Concatenate[_C, _P], Request], *, binds: bool = True
) -> Callable[Concatenate[_C, _P], Prequest]:
    """Return the method that describes, for Start, what a method starts at once.

    Args:
        start: the method.
        binds: whether it may be begun once for all. All ranks need not: what begins must take no message.
    """

    def prepare(comm: _C, /, *args: _P.args, **kwargs: _P.kwargs) -> Prequest:
        return Prequest(functools.partial(start, comm, *args, **kwargs), comm if binds else None)

    prepare.__doc__ = f"Return a request whose Start does what {start.__name__} does with these arguments."
    return prepare
