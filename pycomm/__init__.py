"""pycomm: collective communication for machine learning and supercomputing.

    import numpy as np, pycomm
    comm = pycomm.init()
    total = np.empty(3)
    comm.Allreduce(np.full(3, comm.rank, dtype=float), total)

Run it with `pycomm run -n 4 script.py`, or under torchrun, mpiexec or srun.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import *
    from .MPI import COMM_SELF as COMM_SELF
    from .MPI import COMM_WORLD as COMM_WORLD

__all__ = [
    "ANY_SOURCE", "ANY_TAG", "AVG", "BAND", "BOR", "BXOR", "IN_PLACE", "LAND", "LOR", "LXOR", "MAX", "MAXLOC", "MIN",
    "MINLOC", "PROC_NULL", "PROD", "SUM", "UNDEFINED",
    "Aborted", "AuthenticationError", "Cartcomm", "Comm", "DeadlineExceeded", "Group", "InvalidArgument",
    "LaunchError", "Message", "Mismatch", "Misuse", "Op",
    "PeerLost", "Prequest", "PycommError", "Recoverable", "Request", "ScheduleError", "Status", "SystemRefused",
    "Truncated", "__version__", "algorithm", "init", "run_threads",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load everything at the first use of a name: each `import torch` loads this package, and must not pay for it."""
    if name in ("COMM_WORLD", "COMM_SELF"):  # joining the job is more than loading
        return getattr(importlib.import_module(".MPI", __name__), name)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module(".api", __name__)
    globals().update({public: getattr(api, public) for public in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
