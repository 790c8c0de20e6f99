"""pycomm's errors as torch's: whoever catches either family gets them."""

from __future__ import annotations

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
    kind = type(error)
    if isinstance(error, RuntimeError):
        return error
    twin = _TWINS.get(kind)
    if twin is None:
        twin = type(kind.__name__, (kind, _Torch), {"__doc__": kind.__doc__, "__module__": __name__})
        _TWINS[kind] = twin
    if isinstance(error, errors.PeerLost | errors.DeadlineExceeded | errors.Mismatch):
        dump_if_asked()
        return twin(str(error), error.rank)
    return twin(str(error))
