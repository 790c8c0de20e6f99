"""Jobs of MPI: ranks that meet by way of it, its own collectives beside ours, and ours for programs that use mpi4py."""

from .serving import Counts, Serving, disable, enable

__all__ = ["Counts", "Serving", "disable", "enable"]
