"""pycomm's errors as torch's: whoever catches either family gets them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from .. import errors
from ..errors import PycommError
from .flight_recorder import dump_if_asked

_Torch: type[Exception] = getattr(dist, "DistBackendError", RuntimeError)
_TWINS: dict[type[PycommError], type[PycommError]] = {}


def as_torch(error: PycommError) -> PycommError:
    """Return an error that is the same for who catches pycomm's, and a DistBackendError (a RuntimeError) too.

    All errors of operations come by here, so the flight recorder is dumped here, if the environment asks for that.

    Args:
        error: what pycomm raised. An error that is torch's already is returned as it is.
    """
    if isinstance(error, RuntimeError):
        return error
    twin: Any = _twin(type(error))
    if isinstance(error, errors.PeerLost | errors.DeadlineExceeded | errors.Mismatch):
        dump_if_asked()
        made: PycommError = twin(str(error), error.rank)
    else:
        made = twin(str(error))
    return made


def _twin(kind: type[PycommError]) -> type[PycommError]:
    if kind not in _TWINS:
        _TWINS[kind] = type(kind.__name__, (kind, _Torch), {"__doc__": kind.__doc__, "__module__": __name__})
    return _TWINS[kind]


def __getattr__(name: str) -> Any:
    """Give the twin of one of pycomm's errors: unpickling asks for it by name."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PycommError):
        return _twin(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
