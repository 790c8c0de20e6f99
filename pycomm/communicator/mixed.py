"""Alltoallw: an all-to-all whose blocks have types of their own. They are packed, and travel as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.buffer import IN_PLACE, as_array
from ..data.datatype import Datatype
from ..data.layout import give_back
from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .calls import How
    from .comm import Comm
    from .request import Request

_BYTES = np.dtype(np.uint8)


def start(comm: Comm, sendbuf: Any, recvbuf: Any, how: How) -> Request:
    """Start an Alltoallw."""
    there, arriving = places(recvbuf, comm.size, "recvbuf", writes=True)
    here, leaving = (there, arriving) if sendbuf is IN_PLACE else places(sendbuf, comm.size, "sendbuf", writes=False)
    packed = np.concatenate([here[index] for index in leaving])
    came = np.empty(sum(map(len, arriving)), np.uint8)
    request = comm.Ialltoallv([packed, [*map(len, leaving)]], [came, [*map(len, arriving)]], **how)

    def unpack(_: object) -> None:
        there[np.concatenate(arriving)] = came
        give_back(there)

    return request.then(unpack)


def places(
    spec: Any, size: int, what: str, *, writes: bool
) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.int64]]]:
    """Return a buffer's bytes, and where those of each block lie."""
    data, counts, displs, types = _parts(spec, size, what)
    memory = as_array(data, what, writes=writes)
    bytes_ = memory.reshape(-1).view(np.uint8)
    index = [
        datatype._in_units_of(_BYTES).index(count) + displ
        for count, displ, datatype in zip(counts, displs, types, strict=True)
    ]
    for rank, each in enumerate(index):
        if len(each) and not 0 <= each.min() <= each.max() < len(bytes_):
            raise InvalidArgument(f"{what}: the block of rank {rank} does not lie within its {len(bytes_)} bytes")
    return bytes_, index


def _parts(spec: Any, size: int, what: str) -> tuple[Any, Sequence[int], Sequence[int], Sequence[Datatype]]:
    match spec:
        case [data, types]:
            counts, displs = [1] * size, [0] * size
        case [data, (counts, displs), types] | [data, counts, displs, types]:
            pass
        case _:
            raise InvalidArgument(
                f"{what} must be [data, types], or [data, (counts, displs), types] with bytes as displs"
            )
    if not len(counts) == len(displs) == len(types) == size:
        raise InvalidArgument(f"{what}: counts, displs and types must be {size} each, one a rank")
    return data, counts, displs, types
