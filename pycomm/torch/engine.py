"""What every operation of a process group does: a communicator, calls on tensors' memory, and Works for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch._C import _distributed_c10d as c10d

from ..communicator.calls import Prepared
from ..communicator.pointers import NOTHING, Pointers, Side, apart
from ..communicator.request import Request
from ..core import lib
from ..errors import InvalidArgument, Mismatch, PycommError, Truncated
from . import profiling
from .logs import is_detailed, log
from .meeting import Membership
from .tensors import Tensor, carried
from .work import Completer, Then, Work

_MANY = 64
_NOTHING = nullcontext()
MOST_TAGS = 1 << 30  # tags from here on are the library's own
# Before torch 2.8 few options said whether the caller waits, and it waited by itself for the Work that it got.
SAYS_WHO_WAITS = hasattr(c10d.AllreduceOptions, "asyncOp")


class Manner(NamedTuple):
    """How a call is made.

    Attributes:
        waits: whether it returns only when it is done.
        timeout: seconds; None: the group's.
    """

    waits: bool = False
    timeout: float | None = None


class Layout(NamedTuple):
    """Where the blocks of a buffer are.

    Attributes:
        counts: elements of each.
        displs: where each begins, in elements; None: one after the other.
    """

    counts: Sequence[int]
    displs: Sequence[int] | None = None


def manner(options: Any) -> Manner:
    """Return what torch's options of a call say of its manner; None: torch's defaults."""
    if options is None:
        return Manner()
    timeout: timedelta = options.timeout
    return Manner(
        SAYS_WHO_WAITS and not options.asyncOp, None if timeout.days < 0 or not timeout else timeout.total_seconds()
    )


class Engine:
    """The communicator of a process group, and how operations on tensors are started there.

    Args:
        membership: the communicator.
        name: of the group, for the completion thread and the profiler.
    """

    def __init__(self, membership: Membership, name: str) -> None:
        self._membership = membership
        self.comm, self.name = membership.comm, name
        self.pointers = Pointers(self.comm)
        self._detailed = is_detailed()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.completer, self.message_completer = (
            Completer(f"pycomm futures {name}"),
            Completer(f"pycomm messages {name}"),
        )
        self.pending: set[Work] = set()  # collectives that have not been found to have ended
        self._batch: list[Work] | None = None

    def call(
        self,
        collective: str,
        own: Tensor | None,
        out: Tensor | None,
        count: int,
        how: Manner,
        *,
        op: int = 0,
        root: int = 0,
        own_blocks: Layout | None = None,
        out_blocks: Layout | None = None,
        keep: Any = None,
        then: Then | None = None,
        result: list[Any] | None = None,
    ) -> Work | None:
        """Run a collective on dense tensors; None: it is done.

        Args:
            collective: e.g. "allreduce".
            own, out: input and output, None: this rank has none; the same tensor means in place.
            count: elements a block, where blocks are equal.
            how: whether to wait for it, and how long.
            op: the core's code.
            root: rank in the group.
            own_blocks, out_blocks: where the blocks of a side are, where their lengths may differ.
            keep: what else must stay alive as long as the call.
            then: what to do when it has ended well.
            result: the tensors that hold the result, for the Work.
        """
        sample = out if own is None else own
        dtype, per_element = (lib.PCM_UINT8, 1) if sample is None else carried(sample.dtype)
        if own is not None and out is not None and own.dtype is not out.dtype:
            raise InvalidArgument(f"the input has dtype {own.dtype} and the output {out.dtype}")
        source, target = _side(own, own_blocks, per_element), _side(out, out_blocks, per_element)
        if own is not out:
            source = apart(source, target)
        prepared = self.pointers.prepare(
            collective,
            source,
            target,
            count * per_element,
            dtype,
            (own, out, keep),
            op=op,
            root=root,
            timeout=how.timeout,
        )
        with self._telling(prepared) if self._seen() else _NOTHING:
            if not how.waits or self._batch is not None:
                return self.work([self.pointers.start(prepared)], result or [], then)
            self.pointers.run(prepared)
        if then is not None:
            then()
        return None

    def _seen(self) -> bool:
        """Return whether anybody wants to know what is called."""
        return self._detailed or profiling.is_on()

    def _telling(self, prepared: Prepared) -> AbstractContextManager[Any]:
        """Tell torch's log how a collective is run, and return what tells its profiler."""
        choice = self.pointers.choice(prepared)
        return self._tell(
            prepared.collective, choice.algorithm, self.transports, bytes=prepared.nbytes, algorithm=choice.algorithm,
            slices=choice.slices, operation=self.pointers.calls(),
        )  # fmt: skip

    def _telling_message(self, what: str, nbytes: int, peer: int, tag: int) -> AbstractContextManager[Any]:
        transport = self.transports if peer == lib.PCM_ANY_SOURCE else self.comm.transport(peer)
        return self._tell(what, what, transport, bytes=nbytes, peer=peer, tag=tag)

    def _tell(self, what: str, how: str, transport: str, **facts: int | str) -> AbstractContextManager[Any]:
        facts = {"group": self.name, **facts, "transport": transport}
        if self._detailed:
            log.debug("%s %s", what, " ".join(f"{name}={fact}" for name, fact in facts.items()))
        if not profiling.is_on():
            return _NOTHING
        return profiling.telling(f"{how} over {transport}", collective=what, **facts)

    def work(self, requests: Sequence[Request | Work], result: list[Any], then: Then | None = None) -> Work:
        """Return the Work of operations that were started."""
        if len(self.pending) > _MANY:  # nobody waits for them: look which have ended
            for earlier in list(self.pending):
                earlier.is_completed()
        work = Work(requests, result, then, self.completer, self.pending)
        if self._batch is not None:
            self._batch.append(work)
        return work

    def send(self, tensor: Tensor, dest: int, tag: int, timeout: float | None = None) -> Work:
        """Start to send a dense tensor."""
        dtype, _ = carried(tensor.dtype)
        with self._telling_message("send", tensor.nbytes, dest, tag) if self._seen() else _NOTHING:
            request = self.pointers.send(tensor.data_ptr(), tensor.nbytes, dtype, dest, tag, tensor, timeout)
        return self.message(request, [tensor], None)

    def receive(self, tensor: Tensor, source: int, tag: int, then: Then | None, result: list[Any],
                timeout: float | None = None) -> Work:  # fmt: skip
        """Start to receive a message that must be as long as a dense tensor."""
        dtype, _ = carried(tensor.dtype)
        with self._telling_message("recv", tensor.nbytes, source, tag) if self._seen() else _NOTHING:
            request = self.pointers.recv(tensor.data_ptr(), tensor.nbytes, dtype, source, tag, tensor, timeout)

        def check() -> None:
            got = work.status
            if got.nbytes != tensor.nbytes:
                raise Mismatch(
                    f"rank {got.source} sent {got.nbytes} bytes (tag {got.tag}) and rank {self.rank} receives "
                    f"{tensor.nbytes}: send and receive tensors of the same size",
                    got.source,
                )
            if then is not None:
                then()

        def tell(error: PycommError) -> None:
            if isinstance(error, Mismatch | Truncated):  # the sender hears of it too, in its next call at the latest
                self.comm.Abort(str(error))

        work = self.message(request, result, check, tell)
        return work

    def message(self, request: Request | Work, result: list[Any], then: Then | None,
                otherwise: Callable[[PycommError], None] | None = None) -> Work:  # fmt: skip
        """Return the Work of a message that was started."""
        # A message may wait for long, and the futures of later collectives must not wait for it.
        work = Work([request], result, then, self.message_completer, otherwise=otherwise)
        if self._batch is not None:
            self._batch.append(work)
        return work

    @cached_property
    def transports(self) -> str:
        """The names of the transports that reach the other ranks; of a group of one, "nothing"."""
        names = {self.comm.transport(rank) for rank in range(self.size) if rank != self.rank}
        return ", ".join(sorted(names)) or "nothing"

    # ---- batches ----------------------------------------------------------------------------------------------------

    def begin_batch(self) -> None:
        """From now on start what is called, and wait for nothing."""
        self._batch = []

    def end_batch(self) -> Work:
        """Return one Work of all that was called since `begin_batch`."""
        works, self._batch = self._batch or [], None
        return self.together(works)

    def together(self, works: Sequence[Work]) -> Work:
        """Return one Work of several."""
        return Work(works, [t for work in works for t in work.result()], None, self.completer)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within this, start what is called and wait for nothing; the Works are in no batch."""
        outer, self._batch = self._batch, []
        try:
            yield
        finally:
            self._batch = outer

    @property
    def batching(self) -> bool:
        """Whether a batch is open."""
        return self._batch is not None

    # ---- life -------------------------------------------------------------------------------------------------------

    def split(self, part: Sequence[int], timeout: float) -> Membership | None:
        """Make a communicator of some ranks, in this order. All ranks call it, each for its part; the rest get None.

        Raises:
            InvalidArgument: the part is empty, or its ranks are not different ones of the group's.
            Mismatch: not all ranks of the part have named it.
        """
        if not part or len(set(part)) < len(part) or not set(part) <= set(range(self.size)):
            raise InvalidArgument(f"a part must be different ranks from 0 to {self.size - 1}, and this is {list(part)}")
        # Ranks that name different parts get different communicators, none of which is complete.
        color = int.from_bytes(blake2b(repr(list(part)).encode(), digest_size=7).digest(), "little")
        here = self.rank in part
        membership = self._membership.split(color if here else None, part.index(self.rank) if here else 0)
        if membership is not None:
            membership.comm.set_timeout(timeout)
            if membership.comm.size != len(part):
                membership.leave()
                raise Mismatch(f"{membership.comm.size} ranks have named the part {list(part)}: all of its ranks must")
        return membership

    def close(self) -> None:
        """Leave the communicator; what is under way fails. A second call does nothing."""
        self._membership.leave()
        self.pending.clear()
        self.completer.close()
        self.message_completer.close()


def _side(tensor: Tensor | None, blocks: Layout | None, per_element: int) -> Side:
    if tensor is None:
        return NOTHING
    if blocks is None:
        return Side(tensor.data_ptr())
    counts = [n * per_element for n in blocks.counts]
    displs = None if blocks.displs is None else [n * per_element for n in blocks.displs]
    return Side(tensor.data_ptr(), counts, displs)


def done(result: list[Any]) -> Work:
    """Return a Work that has ended."""
    work = Work([], result)
    work.advance(None)
    return work


def as_list(tensors: Any) -> list[Tensor]:
    """Return one tensor, or a sequence of them, as a list."""
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
