"""What rows of tensors and small facts of all ranks need of a communicator, and the memory that rows wait in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..communicator.comm import Comm
from ..communicator.pointers import Pointers, Side, apart
from ..core import lib
from ..torch.errors import as_torch
from ..torch.tensors import Tensor, carried

_ALLGATHER, _ALLTOALL, _INT64 = lib.PCM_ALLGATHER, lib.PCM_ALLTOALL, lib.PCM_INT64


class Exchange:
    """A communicator's calls on rows.

    Attributes:
        rank, size: this process's place in the communicator.

    Args:
        comm: the communicator.
    """

    def __init__(self, comm: Comm) -> None:
        self._pointers = Pointers(comm)
        self.rank, self.size = comm.rank, comm.size

    def facts(self, mine: Sequence[int]) -> list[list[int]]:
        """Give numbers to all ranks and return everybody's, by rank; their number is the same on all ranks."""
        everyone = self._equal("allgather", _ALLGATHER, torch.tensor(mine), len(mine) * self.size, len(mine))
        return everyone.view(self.size, len(mine)).tolist()  # type: ignore[no-any-return]

    def counts(self, sent: Tensor) -> list[int]:
        """Tell each rank one number, and return what each tells this one."""
        return self._equal("alltoall", _ALLTOALL, sent, self.size, 1).tolist()  # type: ignore[no-any-return]

    def rows(self, own: Tensor, sent: Sequence[int], out: Tensor, got: Sequence[int], at: Sequence[int]) -> None:
        """Send rows of a tensor to all ranks, and receive rows from them.

        Args:
            own: the rows, in the order of the ranks that get them.
            sent: how many each rank gets.
            out: what is written.
            got: how many come from each rank.
            at: the row of `out` at which each rank's begin.
        """
        dtype, per_element = carried(own.dtype)
        width = own.size(1) * per_element
        target = Side(out.data_ptr(), [n * width for n in got], [n * width for n in at])
        source = apart(Side(own.data_ptr(), [n * width for n in sent]), target)
        prepared = self._pointers.prepare("alltoall", source, target, 0, dtype, (own, out))
        self._pointers.run(self._pointers.ready(prepared))

    def _equal(self, name: str, code: int, own: Tensor, length: int, count: int) -> Any:
        out = torch.empty(length, dtype=torch.int64)
        quick = self._pointers.quick(as_torch)  # each time, for it knows whether the communicator is still there
        if not quick(code, own.data_ptr(), out.data_ptr(), count, _INT64, (own, out)):
            sides = Side(own.data_ptr()), Side(out.data_ptr())
            self._pointers.run(self._pointers.prepare(name, *sides, count, _INT64, (own, out)))
        return out


class Staging:
    """Memory in which rows wait to be sent or added up; kept, because fresh memory costs more than the copy into it."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    @contextmanager
    def rows(self, count: int, width: int, dtype: torch.dtype) -> Iterator[Tensor]:
        """Lend an uninitialized tensor of some rows; one that a failed call may still be reading is not lent again."""
        memory, self._memory = self._memory, None
        nbytes = count * width * dtype.itemsize
        if memory is None or memory.numel() < nbytes:
            memory = room(nbytes, 1, torch.uint8).view(-1)
        yield memory[:nbytes].view(dtype).view(count, width)
        self._memory = memory


def room(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialized tensor of some rows.

    Its memory is numpy's, which asks for huge pages where torch does not: otherwise a first touch of each 4 KiB would
    take longer than all that is written there.
    """
    nbytes = count * width * dtype.itemsize
    memory = torch.from_numpy(np.empty(max(1, nbytes), np.uint8))  # an empty array has strides that torch cannot view
    return memory[:nbytes].view(dtype).view(count, width)
