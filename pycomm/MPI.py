"""mpi4py's MPI without an MPI: `from pycomm import MPI` in place of `from mpi4py import MPI`.

Only names are given here; docs/mpi4py.md says what is the same, what is different and what is absent. The job is joined
when COMM_WORLD is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import runtime as _runtime
from .communicator.attributes import APPNUM, KEYVAL_INVALID, TAG_UB, UNIVERSE_SIZE, WTIME_IS_GLOBAL
from .communicator.cartesian import CART, Cartcomm, Compute_dims
from .communicator.comm import AVG, BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MAXLOC, MIN, MINLOC, PROD, SUM, Comm
from .communicator.errhandler import ERRORS_RETURN, Errhandler
from .communicator.graphs import DIST_GRAPH, GRAPH, Distgraphcomm, Graphcomm
from .communicator.groups import COMM_TYPE_SHARED, CONGRUENT, GROUP_EMPTY, IDENT, SIMILAR, UNEQUAL, Group
from .communicator.info import INFO_ENV, MAX_INFO_KEY, MAX_INFO_VAL, Info
from .communicator.intercomm import ROOT, Intercomm
from .communicator.messages import ANY_SOURCE, ANY_TAG, PROC_NULL, Message
from .communicator.neighbours import Topocomm
from .communicator.persistent import Prequest
from .communicator.request import REQUEST_NULL, Request
from .data import datatype as _datatype
from .data.buffer import IN_PLACE
from .data.datatype import ORDER_C, ORDER_FORTRAN, Datatype
from .data.op import Op
from .data.status import UNDEFINED, Status
from .errors import ERR_ARG, ERR_INTERN, ERR_OTHER, ERR_PROC_FAILED, ERR_REVOKED, ERR_TRUNCATE, SUCCESS
from .errors import PycommError as Exception
from .runtime import (
    SUBVERSION,
    THREAD_FUNNELED,
    THREAD_MULTIPLE,
    THREAD_SERIALIZED,
    THREAD_SINGLE,
    VERSION,
    Alloc_mem,
    Attach_buffer,
    Detach_buffer,
    Finalize,
    Free_mem,
    Get_library_version,
    Get_processor_name,
    Get_version,
    Init,
    Init_thread,
    Is_finalized,
    Is_initialized,
    Is_thread_main,
    Query_thread,
    Wtick,
    Wtime,
    get_vendor,
)

if TYPE_CHECKING:
    COMM_WORLD: Comm
    COMM_SELF: Comm

__all__ = [
    "ANY_SOURCE", "ANY_TAG", "APPNUM", "AVG", "BAND", "BOR", "BSEND_OVERHEAD", "BXOR", "CART", "COMM_NULL",
    "COMM_TYPE_SHARED", "CONGRUENT", "DATATYPE_NULL", "DIST_GRAPH", "ERRORS_RETURN", "ERR_ARG", "ERR_INTERN",
    "ERR_OTHER", "ERR_PROC_FAILED", "ERR_REVOKED", "ERR_TRUNCATE", "GRAPH", "GROUP_EMPTY", "GROUP_NULL", "IDENT",
    "INFO_ENV", "INFO_NULL", "IN_PLACE", "KEYVAL_INVALID", "LAND", "LOR", "LXOR", "MAX", "MAXLOC", "MAX_INFO_KEY",
    "MAX_INFO_VAL", "MESSAGE_NULL", "MIN", "MINLOC", "OP_NULL", "ORDER_C", "ORDER_F", "ORDER_FORTRAN", "PROC_NULL",
    "PROD", "REQUEST_NULL", "ROOT", "SIMILAR", "SUBVERSION", "SUCCESS", "SUM", "TAG_UB", "THREAD_FUNNELED",
    "THREAD_MULTIPLE", "THREAD_SERIALIZED", "THREAD_SINGLE", "UNDEFINED", "UNEQUAL", "UNIVERSE_SIZE", "VERSION",
    "WTIME_IS_GLOBAL",
    "Alloc_mem", "Attach_buffer", "Cartcomm", "Comm", "Compute_dims", "Datatype", "Detach_buffer", "Distgraphcomm",
    "Errhandler", "Exception", "Finalize", "Free_mem", "Get_library_version", "Get_processor_name", "Get_version",
    "Graphcomm", "Group", "Info", "Init", "Init_thread", "Intercomm", "Intracomm", "Is_finalized", "Is_initialized",
    "Is_thread_main", "Message", "Op", "Prequest", "Query_thread", "Request", "Status", "Topocomm", "Wtick", "Wtime",
    "get_vendor",
]  # fmt: skip

Intracomm = Comm
ORDER_F = ORDER_FORTRAN
# What is nothing is None, but for requests and messages, which become nothing when they are done.
COMM_NULL = GROUP_NULL = OP_NULL = DATATYPE_NULL = INFO_NULL = None
MESSAGE_NULL = Message()
BSEND_OVERHEAD = 0  # bytes that a buffer for Bsend would need beside the message

_typedict = {char: _datatype.of_dtype(char) for char in "?bBhHiIlLqQefdFD"}

_ABSENT = {
    "Win": "one-sided communication",
    "File": "files",
    "Session": "sessions",
    "BOTTOM": "absolute addresses",
    "ERRORS_ARE_FATAL": "error handlers: errors are raised",
    "LONG_DOUBLE": "long double",
    "WCHAR": "wide characters",
}


def __getattr__(name: str) -> Any:
    """Join the job when a communicator is first asked for; give datatypes by their names; say what is absent."""
    if name == "COMM_WORLD":
        return _runtime.comm_world()
    if name == "COMM_SELF":
        return _runtime.comm_self()
    if name in _datatype.NAMED:
        return _datatype.NAMED[name]
    why = f": pycomm has no {_ABSENT[name]} (docs/mpi4py.md)" if name in _ABSENT else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{why}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_datatype.NAMED, "COMM_WORLD", "COMM_SELF"})
