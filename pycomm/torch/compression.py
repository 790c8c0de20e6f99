"""A communication hook for DDP that compresses gradients between groups of ranks, such as hosts or sites."""

# DDP compares the annotations of a hook with its own classes, so they are not left as strings here.

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from ..communicator.comm import AVG
from ..compressed import Compressor, Feedback
from ..core import lib
from ..data.buffer import IN_PLACE
from ..errors import InvalidArgument, PycommError
from .errors import as_torch
from .group import PycommGroup
from .tensors import Tensor, put_back

_AS_THEY_ARE = (torch.float32, torch.float64)  # gradients of other dtypes are averaged in float32


class CompressionState:
    """What `compression_hook` keeps from step to step: communicators, and what each bucket's compression has lost.

    Making one is collective in the group, and each model takes one of its own:

        model.register_comm_hook(pycomm.torch.CompressionState("int8"), pycomm.torch.compression_hook)

    Attributes:
        compressor: does the work (docs/compression.md).

    Args:
        kind: "bf16", "int8" or "int4": what crosses between groups is a half, a quarter or an eighth of float32.
        process_group: the one that DDP was given, made by pycomm; None: the default group.
        groups: lists of ranks of the process group, in which each rank is once; None: the ranks of each host. What
            crosses between groups is compressed, and nothing else.

    Raises:
        InvalidArgument: the process group is not pycomm's, there is no such kind, or a rank is not in one group alone.
    """

    def __init__(
        self, kind: str, process_group: dist.ProcessGroup | None = None, groups: Sequence[Any] | None = None
    ) -> None:
        group = process_group or distributed_c10d._get_default_group()
        try:
            if not isinstance(group, PycommGroup):
                raise InvalidArgument(
                    f"the process group is of backend {dist.get_backend(group)!r}: make it with backend 'pycomm'"
                )
            self.compressor = Compressor(group.engine.comm, kind, groups)
        except PycommError as error:
            raise as_torch(error) from error.__cause__
        self._buckets: dict[int, tuple[list[int], Feedback]] = {}
        # One thread: DDP calls the hook for bucket after bucket, in the same order on all ranks.
        self._thread = ThreadPoolExecutor(1, "pycomm compression", lib.pcm_thread_patient)

    def feedback(self, bucket: dist.GradBucket) -> Feedback:
        """Return the feedback of a bucket, a new one if DDP has put other parameters there, as it does after a step."""
        parameters = [id(parameter) for parameter in bucket.parameters()]
        before, feedback = self._buckets.get(bucket.index(), ([], Feedback()))
        if before != parameters:
            feedback = Feedback()
        self._buckets[bucket.index()] = parameters, feedback
        return feedback

    def start(self, gradients: Tensor, feedback: Feedback) -> torch.futures.Future[Tensor]:
        """Start to average a dense tensor in host memory over all ranks, in place; it is the future's value."""
        # DDP wants a tensor of a hook's future, and only what a callback raises is an error to it.
        start: torch.futures.Future[None] = torch.futures.Future()
        future: torch.futures.Future[Tensor] = start.then(lambda _: self._average(gradients, feedback))
        self._thread.submit(start.set_result, None)
        return future

    def _average(self, gradients: Tensor, feedback: Feedback) -> Tensor:
        used = gradients if gradients.dtype in _AS_THEY_ARE else gradients.float()
        try:
            self.compressor.Allreduce(IN_PLACE, used.numpy(), AVG, feedback=feedback)
        except PycommError as error:
            raise as_torch(error) from error.__cause__
        put_back(gradients, used)
        return gradients


def compression_hook(state: CompressionState, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients, compressed where it crosses between groups, while the backward pass goes on.

    What compression loses of a bucket is added to its next gradients (error feedback), so that SGD converges as it does
    uncompressed. All ranks get the same bits.

    Args:
        state: of this model.
        bucket: gradients in host memory.

    Returns the future of their average. An error becomes a RuntimeError of the backward pass, with its text.

    Raises:
        InvalidArgument: the gradients are on another device.
    """
    gradients = bucket.buffer()
    if not gradients.is_cpu:
        raise as_torch(
            InvalidArgument(f"gradients are on {gradients.device}: the hook compresses those in host memory alone")
        )
    return state.start(gradients, state.feedback(bucket))
