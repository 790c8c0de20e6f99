"""The C core as Python sees it: the library, its codes, its errors as exceptions, the quick way to a collective.

Nothing else speaks to cffi.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import errors
from ._pycomm import ffi as ffi
from ._pycomm import lib as lib
from ._quick import Handle as Handle
from ._quick import Operation as Operation
from ._quick import know_dtype, quick_message, quick_method, quick_start, quick_wait, quick_waitall
from ._quick import know_python as know_python
from ._quick import know_requests as know_requests
from .job import keys

COLLECTIVES = {
    "allreduce": lib.PCM_ALLREDUCE,
    "reduce": lib.PCM_REDUCE,
    "broadcast": lib.PCM_BROADCAST,
    "allgather": lib.PCM_ALLGATHER,
    "reduce_scatter": lib.PCM_REDUCE_SCATTER,
    "gather": lib.PCM_GATHER,
    "scatter": lib.PCM_SCATTER,
    "alltoall": lib.PCM_ALLTOALL,
    "scan": lib.PCM_SCAN,
    "exscan": lib.PCM_EXSCAN,
    "barrier": lib.PCM_BARRIER,
}

_EXCEPTIONS: dict[int, type[errors.PycommError]] = {
    lib.PCM_ERR_PEER_LOST: errors.PeerLost,
    lib.PCM_ERR_TIMEOUT: errors.DeadlineExceeded,
    lib.PCM_ERR_SYSTEM: errors.SystemRefused,
    lib.PCM_ERR_ABORTED: errors.Aborted,
    lib.PCM_ERR_MISMATCH: errors.Mismatch,
    lib.PCM_ERR_ARGUMENT: errors.InvalidArgument,
    lib.PCM_ERR_SCHEDULE: errors.ScheduleError,
    lib.PCM_ERR_TRUNCATED: errors.Truncated,
    lib.PCM_ERR_AUTH: errors.AuthenticationError,
}
_WITH_RANK = (errors.PeerLost, errors.DeadlineExceeded, errors.Mismatch)


def text(pointer: Any) -> str:
    """Return a C string as str."""
    return str(ffi.string(pointer), "utf-8", "replace")


def fail(status: int) -> NoReturn:
    """Raise the exception for a status that is not PCM_OK, with the core's own sentence."""
    last = lib.pcm_last_error()
    kind = _EXCEPTIONS.get(status, errors.PycommError)
    sentence = text(last.text)
    if kind in _WITH_RANK:
        raise kind(sentence, last.rank)
    raise kind(sentence)


def status_of(error: Exception) -> int:
    """Return the core's status for an exception of ours, PCM_ERR_SYSTEM for any other."""
    return next((status for status, kind in _EXCEPTIONS.items() if type(error) is kind), int(lib.PCM_ERR_SYSTEM))


def check(status: int) -> None:
    """Raise unless a status is PCM_OK."""
    if status:
        fail(status)


@ffi.def_extern(error=1)  # type: ignore[untyped-decorator]
def pycomm_mac(user: Any, data: Any, size: int, mac: Any) -> int:
    """Lend the core a message authentication code under the job's secret, which `user` is a handle of."""
    secret: bytes = ffi.from_handle(user)
    ffi.memmove(mac, keys.authenticate(secret, ffi.buffer(data, size)[:]), 32)
    return 0


# ---- the quick way -------------------------------------------------------------------------------------------------

_Method = TypeVar("_Method", bound=Callable[..., Any])


def quick(
    collective: str, *, buffers: int = 2, op: bool = False, root: bool = False, uneven: bool = False
) -> Callable[[_Method], _Method]:
    """Decorate a blocking method of a Handle: the core is called at once where nothing needs to be decided in Python.

    That is so when the buffers are plain arrays, no other keyword than these is given, and the communicator has a plan
    for such a call. Otherwise the method's own body runs.

    Args:
        collective: which one the method runs.
        buffers: how many of its arguments are buffers: input and output, one for both, or none.
        op, root: whether an op, and then a root, follows; both are 0 where they are left out.
        uneven: whether buffers of several blocks are lists of an array and its counts.
    """

    def decorate(method: _Method) -> _Method:
        wrapped = quick_method(method, COLLECTIVES[collective], buffers, op, root, uneven)
        return cast(_Method, functools.update_wrapper(cast(_Method, wrapped), method))

    return decorate


def quickly(how: Callable[..., Any], *args: Any) -> Callable[[_Method], _Method]:
    """Decorate a method that the extension has a quick way for, whose own body runs where that is none.

    Args:
        how: the extension's function that makes the quick method.
        args: what it is told besides the method.
    """

    def decorate(method: _Method) -> _Method:
        return cast(_Method, functools.update_wrapper(cast(_Method, how(method, *args)), method))

    return decorate


def quick_send(*, starts: bool) -> Callable[[_Method], _Method]:
    """Decorate Send (or Isend, which starts it): plain arrays that go to a rank need no Python."""
    return quickly(quick_message, False, starts)


def quick_receive(*, starts: bool) -> Callable[[_Method], _Method]:
    """Decorate Recv (or Irecv)."""
    return quickly(quick_message, True, starts)


waits = quickly(quick_wait)
waits_for_all = quickly(quick_waitall)
starts_bound = quickly(quick_start)


# ---- dtypes -------------------------------------------------------------------------------------------------------

_BY_NAME = {text(lib.pcm_dtype_name(code)): code for code in range(lib.PCM_NDTYPES)}
_OUTSIDE = {"float8_e4m3fn": lib.PCM_FLOAT8_E4M3, "float8_e5m2": lib.PCM_FLOAT8_E5M2, "bfloat16": lib.PCM_BFLOAT16}
_codes: dict[np.dtype[Any], int] = {}


def dtype_code(dtype: npt.DTypeLike) -> int:
    """Return the core's code of a numpy dtype (ml_dtypes' bfloat16, float8_e4m3fn and float8_e5m2 included).

    Raises:
        InvalidArgument: the dtype cannot be carried: it is not native, or has no number (structured, str, object).
    """
    known = np.dtype(dtype)
    code = _codes.get(known)
    if code is None:
        code = _OUTSIDE.get(known.name, _BY_NAME.get(known.name))
        if code is None or not known.isnative:
            raise errors.InvalidArgument(
                f"dtype {known} cannot be communicated: use one of {', '.join(sorted(_BY_NAME))} in native byte order"
            )
        _codes[known] = code
        know_dtype(known.num, code)
    return code


def dtype_name(code: int) -> str:
    """Return the core's name of a dtype."""
    return text(lib.pcm_dtype_name(code))


def dtype_size(name: str) -> int:
    """Return the bytes of an element, by the core's name of the dtype."""
    return int(lib.pcm_dtype_size(_BY_NAME[name]))


# ---- facts --------------------------------------------------------------------------------------------------------

VERSION = text(lib.pcm_version())


def transports() -> list[str]:
    """Return the names of the compiled transports."""
    return text(lib.pcm_transports()).split(",")


def load_transport(path: str) -> None:
    """Make the transport in a shared object known by its name.

    Raises:
        InvalidArgument: it cannot be loaded.
        SystemRefused: it is no transport, or was built for another version of pycomm.
    """
    check(lib.pcm_transport_load(path.encode()))


def kernels() -> str:
    """Return the instruction set that the reductions use."""
    return text(lib.pcm_kernels_name())
