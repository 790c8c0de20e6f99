"""Status: what is known of a received message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .datatype import Datatype

UNDEFINED = -32766  # no count, no index, no rank: what mpi4py's functions return then


@dataclass
class Status:
    """What is known of a received message.

    Attributes:
        source: the sender's rank.
        tag: the message's tag.
        nbytes: its length in bytes.
        cancelled: whether the receive was cancelled, so that there is no message.
        dtype: the core's code of its elements' type; -1: not known.
        error: 0: what goes wrong is raised.
    """

    source: int = -1
    tag: int = -1
    nbytes: int = 0
    cancelled: bool = False
    dtype: int = -1
    error: int = 0

    def Get_source(self) -> int:
        """Return the sender's rank."""
        return self.source

    def Set_source(self, source: int) -> None:
        """Set the sender's rank."""
        self.source = source

    def Get_tag(self) -> int:
        """Return the message's tag."""
        return self.tag

    def Set_tag(self, tag: int) -> None:
        """Set the message's tag."""
        self.tag = tag

    def Get_error(self) -> int:
        """Return 0, or what Set_error has set: what goes wrong is raised."""
        return self.error

    def Set_error(self, error: int) -> None:
        """Set an error's number."""
        self.error = error

    def Get_count(self, datatype: Datatype | None = None) -> int:
        """Return how many elements of a datatype the message has (bytes by default); UNDEFINED if no whole number."""
        size = 1 if datatype is None else datatype.size
        if not size:
            return 0
        return UNDEFINED if self.nbytes % size else self.nbytes // size

    def Get_elements(self, datatype: Datatype) -> int:
        """Return how many basic elements the message has, of which a datatype is made."""
        return self.nbytes // datatype.base.itemsize

    def Set_elements(self, datatype: Datatype, count: int) -> None:
        """Set the length to `count` elements of a datatype."""
        if count < 0:
            raise InvalidArgument(f"a message has 0 elements or more, not {count}")
        self.nbytes = count * datatype.size

    def Is_cancelled(self) -> bool:
        """Return whether the receive was cancelled."""
        return self.cancelled

    def Set_cancelled(self, flag: bool) -> None:
        """Set whether the receive was cancelled."""
        self.cancelled = flag

    @property
    def count(self) -> int:
        """The message's length in bytes, as mpi4py has it."""
        return self.nbytes

    def become(self, other: Status) -> None:
        """Take over all that another one says."""
        self.source, self.tag, self.nbytes = other.source, other.tag, other.nbytes
        self.cancelled, self.dtype, self.error = other.cancelled, other.dtype, other.error
