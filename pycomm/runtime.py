"""The job as mpi4py's programs see it: its two communicators, made at first use; its beginning, its end, its clock."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from .communicator import groups
from .communicator.comm import Comm
from .communicator.messages import attach, detach, flush_buffered
from .core import VERSION as _VERSION
from .errors import InvalidArgument, PycommError
from .start import init

THREAD_SINGLE, THREAD_FUNNELED, THREAD_SERIALIZED, THREAD_MULTIPLE = range(4)
VERSION, SUBVERSION = 4, 0  # of the standard whose names are used


@dataclass
class _Job:
    world: Comm | None = None
    own: Comm | None = None
    ended: bool = False
    failed: bool = False


_job = _Job()
_joining = threading.Lock()


def comm_world() -> Comm:
    """Return the communicator of all ranks; the first call joins the job, as `init` does."""
    with _joining:
        if _job.ended:
            raise InvalidArgument("Finalize was called: there is no communicator any more")
        if _job.world is None:
            world = init()
            world.Set_name("MPI_COMM_WORLD")
            world._world.at_close(_part)
            _job.world = world
        return _job.world


def comm_self() -> Comm:
    """Return the communicator of this rank alone."""
    world = comm_world()
    with _joining:
        if _job.own is None:
            _job.own = groups.among(world, [world.rank], f"self {world.rank}", Comm)
            _job.own.Set_name("MPI_COMM_SELF")
        return _job.own


def _part() -> None:
    """Wait until all ranks leave, as MPI_Finalize does, unless this one leaves because of an error.

    A program may let some ranks end early and others receive from anybody, which connects to all.
    """
    if _job.world is not None and not _job.failed and getattr(sys, "last_value", None) is None:
        with contextlib.suppress(PycommError):  # others have not come so far: it is for them to say so
            flush_buffered()
            # a choice would load the simulator, and threads can be made no more
            _job.world.Barrier(algorithm="dissemination", slices=1)


def fail() -> None:
    """Say that this rank leaves because of an error, so that it does not wait for the others."""
    _job.failed = True


def Init() -> None:
    """Join the job, unless that is done."""
    comm_world()


def Init_thread(required: int = THREAD_MULTIPLE) -> int:
    """Join the job; returns THREAD_MULTIPLE: any thread may make any call at any time."""
    comm_world()
    return THREAD_MULTIPLE


def Query_thread() -> int:
    """Return THREAD_MULTIPLE."""
    return THREAD_MULTIPLE


def Is_thread_main() -> bool:
    """Return whether this is the main thread."""
    return threading.current_thread() is threading.main_thread()


def Is_initialized() -> bool:
    """Return whether the job has been joined."""
    return _job.world is not None


def Finalize() -> None:
    """Leave the job when all ranks do; the end of the program does so by itself."""
    with _joining:
        if _job.world is not None and not _job.ended:
            _job.ended = True
            _job.world._world.close()


def Is_finalized() -> bool:
    """Return whether Finalize was called."""
    return _job.ended


def Attach_buffer(buf: Any) -> None:
    """Keep a buffer for Detach_buffer to return; Bsend makes room for itself."""
    attach(buf)


def Detach_buffer() -> Any:
    """Wait until what Bsend has sent need not be kept any more, and return the buffer that was attached."""
    return detach()


def Alloc_mem(size: int, info: None = None) -> memoryview:
    """Return memory of `size` bytes, which is nothing special."""
    return memoryview(bytearray(size))


def Free_mem(mem: memoryview) -> None:
    """Do nothing: Python does it."""


def Wtime() -> float:
    """Return seconds since some time in the past."""
    return time.perf_counter()


def Wtick() -> float:
    """Return the resolution of Wtime in seconds."""
    return time.get_clock_info("perf_counter").resolution


def Get_processor_name() -> str:
    """Return the host's name."""
    return socket.gethostname()


def Get_version() -> tuple[int, int]:
    """Return the version of the MPI standard whose names are used."""
    return VERSION, SUBVERSION


def Get_library_version() -> str:
    """Return the library's name and version."""
    return f"pycomm {_VERSION}"


def get_vendor() -> tuple[str, tuple[int, ...]]:
    """Return the library's name, and its version as numbers."""
    return "pycomm", tuple(int(part) for part in _VERSION.split(".")[:3])
