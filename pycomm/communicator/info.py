"""Info: hints with mpi4py's names. They can be set and read; nothing here is done otherwise because of one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Self

from ..data.status import Status
from ..errors import InvalidArgument
from .request import Request

if TYPE_CHECKING:
    from .comm import Comm

MAX_INFO_KEY, MAX_INFO_VAL = 255, 1023  # characters, as of MPICH and Open MPI or more

Items = Mapping[str, str] | Iterable[tuple[str, str]]


class Info(MutableMapping[str, str]):
    """Keys and values, both text, in the order in which they were set; a dict's methods work too.

    Args:
        items: what is in it at first; another Info is copied.
    """

    def __init__(self, items: Items | None = None) -> None:
        self._items: dict[str, str] = {}
        self.update(items or ())

    @classmethod
    def Create(cls, items: Items | None = None) -> Self:
        """Return an Info with some items."""
        return cls(items)

    @classmethod
    def Create_env(cls, args: Sequence[str] | None = None) -> Self:
        """Return what is known of how the program was started: "command" and "argv", as much of it as a value holds.

        Args:
            args: the program's; None: sys.argv.
        """
        command, *rest = args or sys.argv
        return cls({"command": command[:MAX_INFO_VAL], "argv": " ".join(rest)[:MAX_INFO_VAL]})

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __setitem__(self, key: str, value: str) -> None:
        for text, most, what in ((key, MAX_INFO_KEY, "key"), (value, MAX_INFO_VAL, "value")):
            if not isinstance(text, str) or len(text) > most or (what == "key" and not text):
                raise InvalidArgument(f"a {what} of an Info is a text of at most {most} characters, not {text!r}")
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        """Whether it is one, which INFO_NULL (None) is not; an empty one is."""
        return True

    def __repr__(self) -> str:
        return f"pycomm.MPI.Info({self._items})"

    def Get(self, key: str) -> str | None:
        """Return a key's value; None if there is none."""
        return self._items.get(key)

    def Set(self, key: str, value: str) -> None:
        """Set a key's value."""
        self[key] = value

    def Delete(self, key: str) -> None:
        """Take a key away."""
        if key not in self._items:
            raise InvalidArgument(f"the Info has no key {key!r}")
        del self._items[key]

    def Get_nkeys(self) -> int:
        """Return how many keys there are."""
        return len(self._items)

    def Get_nthkey(self, n: int) -> str:
        """Return the n-th key."""
        if not 0 <= n < len(self._items):
            raise InvalidArgument(f"the Info has no key {n}: it has {len(self._items)}")
        return list(self._items)[n]

    def Dup(self) -> Self:
        """Return a copy."""
        return type(self)(self._items)

    copy = Dup

    def Free(self) -> None:
        """Forget all items; Python does the rest."""
        self._items.clear()

    free = Free


INFO_ENV = Info.Create_env(sys.argv or [""])


# ---- methods of Comm ------------------------------------------------------------------------------------------------


def Get_info(comm: Comm) -> Info:
    """Return a copy of the hints that Set_info or Dup_with_info has given."""
    return comm._info.Dup()


def Set_info(comm: Comm, info: Info | None) -> None:
    """Give hints, which Get_info returns: nothing else comes of them."""
    comm._info.update(info or {})


def Dup_with_info(comm: Comm, info: Info | None) -> Comm:
    """Do as Dup, with other hints."""
    twin = comm.Dup()
    twin._info = Info(info)
    return twin


def Idup_with_info(comm: Comm, info: Info | None) -> tuple[Comm, Request]:
    """Do as Dup_with_info; the request is done at once."""
    return Dup_with_info(comm, info), Request(done=Status())
