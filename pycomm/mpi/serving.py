"""enable(): from a call on, what mpi4py calls MPI's collectives are the entries of libpycomm-mpi.so.

mpi4py's classes cannot be changed, and a program may hold communicators already; so it is the extension module's own
table of functions that is changed, which all of its communicators go by (csrc/preload/late.c).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from .. import knobs
from ..core import COLLECTIVES
from ..errors import LaunchError, SystemRefused

LIBRARY = Path(__file__).parents[1] / "lib" / "libpycomm-mpi.so"


class Counts(NamedTuple):
    """What this rank's calls of one collective were.

    Attributes:
        served: calls that pycomm ran.
        bytes: of their buffers; where blocks differ in length, 0.
        seconds: that were spent in them.
        passed: calls that were left to MPI.
    """

    served: int
    bytes: int
    seconds: float
    passed: int


class Serving:
    """What `enable` has begun; as a context manager it ends with the block."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._before = self._all()

    def counts(self) -> dict[str, Counts]:
        """Return what was served and what was passed to MPI since `enable`, by collective, where there were calls."""
        found = {}
        for name, now in self._all().items():
            served, size, nanoseconds, passed = (a - b for a, b in zip(now, self._before[name], strict=True))
            if served or passed:
                found[name] = Counts(served, size, nanoseconds / 1e9, passed)
        return found

    def __str__(self) -> str:
        """Return the counts as a table."""
        lines = [f"{'collective':16} {'served':>10} {'bytes':>14} {'seconds':>10} {'to MPI':>10}"]
        for name, (served, size, seconds, passed) in self.counts().items():
            lines.append(f"{name:16} {served:10} {size:14} {seconds:10.6f} {passed:10}")
        return "\n".join(lines)

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # else other ranks may be elsewhere, and would be waited for
            disable()

    def end(self) -> None:
        """Put MPI's functions back; for `disable`."""
        from mpi4py import MPI

        if not MPI.Is_finalized():
            MPI.COMM_WORLD.Barrier()  # no rank is waiting for what this one has to do in a collective
        self._library.pycomm_late_end()

    def _all(self) -> dict[str, tuple[int, ...]]:
        numbers = (ctypes.c_uint64 * 4)()
        found = {}
        for name, code in COLLECTIVES.items():
            self._library.pycomm_late_counts(code, numbers)
            found[name] = tuple(numbers)
        return found


_serving: list[Serving] = []  # one at most


def enable() -> Serving:
    """Have pycomm run the collectives of all communicators of mpi4py, also of those that the program holds already.

    Collective over MPI.COMM_WORLD, and no other thread may be in a call of MPI meanwhile. What is served, and what goes
    to MPI as before, is what `pycomm mpirun` serves (docs/mpi.md). A second call gives back what the first one did.

    Returns:
        What tells which calls were served.

    Raises:
        LaunchError: MPI was not initialized, or was finalized.
        SystemRefused: on some rank, mpi4py's module cannot be changed: it holds an MPI that was linked into it.
    """
    from mpi4py import MPI

    if not MPI.Is_initialized() or MPI.Is_finalized():
        raise LaunchError("MPI is not running: call pycomm.mpi.enable() between MPI.Init and MPI.Finalize")
    if _serving:
        return _serving[0]
    if knobs.PYTHON.source() == "default":
        os.environ[knobs.PYTHON.name] = sys.executable  # for the process that chooses schedules
    library = ctypes.CDLL(str(LIBRARY))
    library.pycomm_late_begin.argtypes = [ctypes.c_char_p, ctypes.c_int]
    library.pycomm_late_counts.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_uint64)]
    file = str(MPI.__file__).encode()
    able = MPI.COMM_WORLD.allgather(library.pycomm_late_begin(file, 0))
    if min(able) <= 0:
        raise SystemRefused(
            f"mpi4py's module on rank {able.index(min(able))} calls no functions of MPI that could be replaced: use an "
            "mpi4py that loads libmpi.so, such as that of PyPI"
        )
    library.pycomm_late_begin(file, 1)
    _serving.append(Serving(library))
    return _serving[0]


def disable() -> None:
    """Leave collectives to MPI again; collective over MPI.COMM_WORLD. Waits for what was started and is not done."""
    while _serving:
        _serving.pop().end()
