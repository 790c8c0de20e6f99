"""Error handlers: there is one, which is in force always, since errors are raised as exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .comm import Comm


class Errhandler:
    """What happens when a call fails."""

    def Free(self) -> None:
        """Do nothing: Python does it."""


ERRORS_RETURN = Errhandler()


def Get_errhandler(comm: Comm) -> Errhandler:
    """Return ERRORS_RETURN."""
    return ERRORS_RETURN


def Set_errhandler(comm: Comm, errhandler: Errhandler) -> None:
    """Accept ERRORS_RETURN, as which mpi4py raises exceptions too, and nothing else."""
    if errhandler is not ERRORS_RETURN:
        raise InvalidArgument("errors are raised as exceptions: there is no other handler than ERRORS_RETURN")
