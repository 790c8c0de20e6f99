"""A finding: what is wrong, how bad that is, and what to do. All of them follow from the facts alone."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How bad it is: ERROR breaks a job, WARNING makes it slow or breaks a larger one, NOTE may explain something."""

    ERROR = 0
    WARNING = 1
    NOTE = 2


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        severity: how bad it is.
        what: what is wrong, and where, without a full stop.
        do: what to do about it, likewise.
    """

    severity: Severity
    what: str
    do: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.severity.name.lower()}: {self.what}. {self.do[0].upper()}{self.do[1:]}."
