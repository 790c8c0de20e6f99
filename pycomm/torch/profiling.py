"""Events of torch's profiler: one for each operation, from call to end, and in it one that tells how it runs."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd import profiler as switch

from .tensors import Tensor

# What torch's backends call the operations of a process group's methods; all else has its own name.
_NAMES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "reduce_scatter_single": "reduce_scatter",
    "reduce_scatter_single_coalesced": "reduce_scatter",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather",
    "all_gather_single": "all_gather",
    "all_gather_single_coalesced": "all_gather",
    "alltoall": "all_to_all",
    "all_to_all_single": "all_to_all",
    "recv_anysource": "recvAnySource",
}


def is_on() -> bool:
    """Return whether this thread is profiled. Where it counts, `switch._is_profiler_enabled` is asked first."""
    return bool(switch._is_profiler_enabled and torch.autograd._profiler_enabled())


@functools.cache
def _other_thread(process: int) -> ThreadPoolExecutor:
    """Return a thread of this process, which must not be one of the process that it was forked from."""
    return ThreadPoolExecutor(1, "pycomm profiler")


class Event:
    """An operation from its call to its end.

    It ends in another thread than it has begun in: by that the profiler knows what goes on beside its caller, which
    all operations of torch's process groups do.

    Args:
        backend: the name that the group answers to.
        method: of the process group.
        inputs: what is given away, or received into; their shapes are recorded if the profiler was asked for shapes.
    """

    def __init__(self, backend: str, method: str, inputs: Iterable[Tensor]) -> None:
        self._thread = threading.get_ident()
        self._end: torch.futures.Future[None] = torch.futures.Future()
        record = torch.autograd._record_function_with_args_enter(f"{backend}:{_NAMES.get(method, method)}", *inputs)
        # The end is told to the profiler of this thread, whichever thread completes the future.
        torch.ops.profiler._call_end_callbacks_on_jit_fut._RecordFunction(record, self._end)

    def end(self) -> None:
        """End it."""
        if threading.get_ident() != self._thread:
            self._end.set_result(None)
            return
        _other_thread(os.getpid()).submit(self._end.set_result, None).result()


def telling(how: str, **facts: int | str) -> AbstractContextManager[Any]:
    """Return what records, as long as it is entered, an event that tells how an operation runs.

    Args:
        how: in few words, for the event's name.
        facts: for the trace, which the profiler takes if it was asked for shapes.
    """
    event: AbstractContextManager[Any] = torch._C._profiler._RecordFunctionFast(f"pycomm {how}", [], facts)
    return event
