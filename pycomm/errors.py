"""The exceptions of pycomm, in two families: `Recoverable` (the machine failed) and `Misuse` (the program is wrong)."""

from __future__ import annotations


class PycommError(Exception):
    """Base of every error that pycomm raises on purpose."""


class Recoverable(PycommError):
    """The program was right and the machine was not: a peer died, a deadline passed, the system refused."""


class Misuse(PycommError):
    """The program must be changed: calling again with the same arguments fails again."""


class PeerLost(Recoverable):
    """A rank died, or left, while it was needed.

    Attributes:
        rank: the lost rank, numbered in the communicator of the failed call.
    """

    def __init__(self, message: str, rank: int = -1) -> None:
        super().__init__(message)
        self.rank = rank


class DeadlineExceeded(Recoverable, TimeoutError):
    """A call's deadline passed.

    Attributes:
        rank: the peer that was waited for, or -1 if it was not one peer.
    """

    def __init__(self, message: str, rank: int = -1) -> None:
        super().__init__(message)
        self.rank = rank


class SystemRefused(Recoverable, OSError):
    """The operating system refused something that pycomm needs (a socket, memory, a descriptor)."""


class Aborted(Recoverable):
    """The communicator was aborted, here or by another rank."""


class Mismatch(Misuse):
    """Two ranks disagree on a call: its collective, dtype, count, op, root or order. Raised on both.

    Attributes:
        rank: the rank that disagrees with this one.
    """

    def __init__(self, message: str, rank: int = -1) -> None:
        super().__init__(message)
        self.rank = rank


class InvalidArgument(Misuse, ValueError):
    """An argument is wrong; the message names it and what it should be."""


class ScheduleError(Misuse):
    """A schedule is malformed, or does not do what its collective promises; the message is the verifier's sentence."""


class Truncated(Misuse):
    """A message is larger than the buffer that was given for it."""


class AuthenticationError(Misuse):
    """A peer could not prove that it belongs to this job."""


class LaunchError(Misuse):
    """The environment of the job is absent, partial or contradictory; the message says which variable to set."""
