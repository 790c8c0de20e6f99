"""The exceptions of pycomm, in two families: `Recoverable` (the machine failed) and `Misuse` (the program is wrong)."""

from __future__ import annotations

from typing import ClassVar

# MPI's classes of errors, as far as errors here fall into them.
SUCCESS, ERR_ARG, ERR_TRUNCATE, ERR_OTHER, ERR_INTERN, ERR_PROC_FAILED, ERR_REVOKED = 0, 13, 15, 16, 17, 54, 56


class PycommError(Exception):
    """Base of every error that pycomm raises on purpose.

    Attributes:
        error_class: MPI's class of it, e.g. ERR_TRUNCATE.
    """

    error_class: ClassVar[int] = ERR_OTHER

    def Get_error_class(self) -> int:
        """Return MPI's class of this error."""
        return self.error_class

    def Get_error_code(self) -> int:
        """Return the same as the class."""
        return self.error_class

    def Get_error_string(self) -> str:
        """Return the sentence."""
        return str(self)

    error_code, error_string = property(Get_error_code), property(Get_error_string)


class Recoverable(PycommError):
    """The program was right and the machine was not: a peer died, a deadline passed, the system refused."""


class Misuse(PycommError):
    """The program must be changed: calling again with the same arguments fails again."""


class PeerLost(Recoverable):
    """A rank died, or left, while it was needed.

    Attributes:
        rank: the lost rank, numbered in the communicator of the failed call.
    """

    error_class = ERR_PROC_FAILED

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

    error_class = ERR_REVOKED


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

    error_class = ERR_ARG


class ScheduleError(Misuse):
    """A schedule is malformed, or does not do what its collective promises; the message is the verifier's sentence."""

    error_class = ERR_INTERN


class Truncated(Misuse):
    """A message is larger than the buffer that was given for it."""

    error_class = ERR_TRUNCATE


class AuthenticationError(Misuse):
    """A peer could not prove that it belongs to this job."""


class LaunchError(Misuse):
    """The environment of the job is absent, partial or contradictory; the message says which variable to set."""
