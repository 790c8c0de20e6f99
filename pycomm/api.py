"""The names that `import pycomm` gives."""

from __future__ import annotations

from .communicator.cartesian import Cartcomm
from .communicator.comm import AVG, BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MAXLOC, MIN, MINLOC, PROD, SUM, Comm
from .communicator.groups import Group
from .communicator.messages import ANY_SOURCE, ANY_TAG, PROC_NULL, Message
from .communicator.persistent import Prequest
from .communicator.request import Request
from .core import VERSION as __version__
from .data.buffer import IN_PLACE
from .data.op import Op
from .data.status import UNDEFINED, Status
from .errors import (
    Aborted,
    AuthenticationError,
    DeadlineExceeded,
    InvalidArgument,
    LaunchError,
    Mismatch,
    Misuse,
    PeerLost,
    PycommError,
    Recoverable,
    ScheduleError,
    SystemRefused,
    Truncated,
)
from .schedules.registry import algorithm
from .start import init
from .threads import run_threads

__all__ = [
    "ANY_SOURCE", "ANY_TAG", "AVG", "BAND", "BOR", "BXOR", "IN_PLACE", "LAND", "LOR", "LXOR", "MAX", "MAXLOC", "MIN",
    "MINLOC", "PROC_NULL", "PROD", "SUM", "UNDEFINED",
    "Aborted", "AuthenticationError", "Cartcomm", "Comm", "DeadlineExceeded", "Group", "InvalidArgument",
    "LaunchError", "Message", "Mismatch", "Misuse", "Op",
    "PeerLost", "Prequest", "PycommError", "Recoverable", "Request", "ScheduleError", "Status", "SystemRefused",
    "Truncated", "__version__", "algorithm", "init", "run_threads",
]  # fmt: skip
