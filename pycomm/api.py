"""The names that `import pycomm` gives."""

from __future__ import annotations

from .buffer import IN_PLACE
from .cartesian import Cartcomm
from .comm import AVG, BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MAXLOC, MIN, MINLOC, PROD, SUM, Comm
from .core import VERSION as __version__
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
from .groups import Group
from .messages import ANY_SOURCE, ANY_TAG, PROC_NULL, Message
from .op import Op
from .persistent import Prequest
from .registry import algorithm
from .request import Request
from .start import init
from .status import UNDEFINED, Status
from .threads import run_threads

__all__ = [
    "ANY_SOURCE", "ANY_TAG", "AVG", "BAND", "BOR", "BXOR", "IN_PLACE", "LAND", "LOR", "LXOR", "MAX", "MAXLOC", "MIN",
    "MINLOC", "PROC_NULL", "PROD", "SUM", "UNDEFINED",
    "Aborted", "AuthenticationError", "Cartcomm", "Comm", "DeadlineExceeded", "Group", "InvalidArgument",
    "LaunchError", "Message", "Mismatch", "Misuse", "Op",
    "PeerLost", "Prequest", "PycommError", "Recoverable", "Request", "ScheduleError", "Status", "SystemRefused",
    "Truncated", "__version__", "algorithm", "init", "run_threads",
]  # fmt: skip
