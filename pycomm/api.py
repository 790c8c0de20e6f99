"""The names that `import pycomm` gives."""

from __future__ import annotations

from .buffer import IN_PLACE
from .comm import ANY_SOURCE, ANY_TAG, AVG, BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MIN, PROD, SUM, Comm
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
from .registry import algorithm
from .request import Request, Status
from .start import init
from .threads import run_threads

__all__ = [
    "ANY_SOURCE", "ANY_TAG", "AVG", "BAND", "BOR", "BXOR", "IN_PLACE", "LAND", "LOR", "LXOR", "MAX", "MIN", "PROD",
    "SUM",
    "Aborted", "AuthenticationError", "Comm", "DeadlineExceeded", "InvalidArgument", "LaunchError", "Mismatch",
    "Misuse",
    "PeerLost", "PycommError", "Recoverable", "Request", "ScheduleError", "Status", "SystemRefused", "Truncated",
    "__version__", "algorithm", "init", "run_threads",
]  # fmt: skip
