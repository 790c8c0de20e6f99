"""PycommGroup: torch's ProcessGroup on pycomm. It reads torch's arguments; `collectives` does what they ask for."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as c10d
from torch.autograd import profiler as _profiler

from ..core import lib
from ..errors import InvalidArgument, PycommError
from . import collectives, dispatch, flight_recorder, logs, profiling, staging
from .collectives import one
from .engine import MOST_TAGS, SAYS_WHO_WAITS, Engine, as_list, manner
from .errors import as_torch
from .meeting import Membership, meet
from .monitor import monitored_barrier
from .tensors import CODES, OPS, PLAIN, Tensor, dense, put_back, room_for
from .work import Work

_ALLREDUCE, _BROADCAST, _ALLGATHER, _BARRIER = lib.PCM_ALLREDUCE, lib.PCM_BROADCAST, lib.PCM_ALLGATHER, lib.PCM_BARRIER
_REDUCE_SCATTER, _ALLTOALL = lib.PCM_REDUCE_SCATTER, lib.PCM_ALLTOALL
_UINT8 = lib.PCM_UINT8
_AllreduceOptions = c10d.AllreduceOptions if SAYS_WHO_WAITS else None  # else no call is quick: each returns a Work
_STRIDED = torch.strided
_modes = torch._C._len_torch_dispatch_stack
# What the quick path takes: tensors whose memory is their elements, once they are contiguous and not lazily negated.
_QUICK = {dtype: code for dtype, code in CODES.items() if not dtype.is_complex}

_F = TypeVar("_F", bound=Callable[..., Any])


def _surface(method: _F) -> _F:
    """Mark a method that torch calls.

    Tensors that only the dispatcher understands go there, errors become torch's, and torch's profiler sees the call.
    """
    name = method.__name__.lstrip("_")

    @functools.wraps(method)
    def called(self: PycommGroup, *args: Any, **kwargs: Any) -> Any:
        try:
            tensors = dispatch.tensors_of(args)
            if dispatch.is_foreign(self, tensors):
                return dispatch.by_torch(self, method.__name__, args, kwargs)
            staged = not all(tensor.is_cpu for tensor in tensors)
            if _profiler._is_profiler_enabled and profiling.is_on():
                return _profiled(self, name, method, args, kwargs, staged)
            return staging.call(self, method, args, kwargs) if staged else method(self, *args, **kwargs)
        except PycommError as error:
            raise as_torch(error) from error.__cause__

    return cast("_F", called)


def _profiled(group: PycommGroup, name: str, method: Callable[..., Any], args: Any, kwargs: Any, staged: bool) -> Any:
    """Make a call that torch's profiler is to see until it has ended."""
    event = profiling.Event(group.known_as, name, dispatch.inputs(name, args))
    work = None
    try:
        work = staging.call(group, method, args, kwargs) if staged else method(group, *args, **kwargs)
    finally:
        if work is None:
            event.end()
    if work is not None:
        work.at_end(event.end)
        if not name.startswith(("send", "recv")):
            work.get_future()  # its thread sees the end of a collective; a message ends for who waits for it
    return work


def _options(kind: type[Any], given: Any, **fields: Any) -> Any:
    """Return the options of a call: an object of torch's, or made of what a shorter overload was given."""
    if isinstance(given, kind):
        return given
    options = kind()
    for name, value in fields.items():
        if value is not None:
            setattr(options, name, value)
    return options


def _is_quick(tensor: Any) -> bool:
    """Return whether a tensor can be given to the core as it is, with no question to anybody."""
    return (
        SAYS_WHO_WAITS
        and type(tensor) in PLAIN
        and not _modes()
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and tensor.dtype in _QUICK
        and not tensor.is_neg()
        and not _profiler._is_profiler_enabled
    )


class PycommGroup(dist.ProcessGroup):  # type: ignore[misc]
    """A process group whose data pycomm moves; made by init_process_group("pycomm") and new_group(backend="pycomm").

    Methods have torch's names, in the spelling of torch 2.13 and in the older one, and its overloads. Tensors may have
    any dtype, layout and size. A call that is not asynchronous returns None once it is done.

    Besides torch's ReduceOps on torch's dtypes: AVG of integers rounds towards zero; float16, bfloat16 and float8
    are combined in float32; `reduce` leaves the buffers of other ranks than the root as they are; lists may hold
    tensors of different sizes.

    They raise pycomm's errors, all of which are DistBackendErrors (RuntimeErrors) too: Mismatch on both sides if ranks
    disagree on the call, PeerLost, DeadlineExceeded (a TimeoutError), Aborted, InvalidArgument (a ValueError). After
    one of the first four the group is of no further use.

    Attributes:
        ranks: the group's ranks in the default group; empty for the default group.
        known_as: the backend that the program asked for: "pycomm", or "gloo" whose name pycomm answers to.
        beside: other backends, by the device types that they serve.
        staged: other device types, whose tensors have come and are staged through host memory.
        engine: the communicator and what is under way in it.

    Args:
        store: where the ranks meet.
        rank, size: this process's place in the group.
        timeout: that calls may take.
        ranks: the group's ranks in the default group; empty for the default group.
        name: of the group.
        backend: the name to answer to.
        membership: the communicator, if the ranks have met already.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        timeout: timedelta,
        ranks: Sequence[int] = (),
        name: str = "",
        backend: str = "pycomm",
        membership: Membership | None = None,
    ) -> None:
        super().__init__(rank, size)  # the overload with a store cannot be subclassed
        self._store, self._name, self._desc, self._backend = store, name, "", backend
        self.ranks, self.known_as = tuple(ranks), "pycomm"
        self.beside: dict[str, Any] = {}
        self.staged: set[str] = set()
        self._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.CUSTOM, None)
        self._set_default_backend(dist.ProcessGroup.BackendType.CUSTOM)
        logs.heed_debug_level()
        dispatch.keep_dynamo_out()
        try:
            self.engine = Engine(membership or meet(store, rank, size, ranks, timeout.total_seconds()), name)
        except PycommError as error:
            raise as_torch(error) from error.__cause__
        # A quick call is not logged.
        self._quick = self._quickly = _never if logs.is_detailed() else self.engine.pointers.quick(as_torch)
        self._timeout = timeout
        flight_recorder.groups.add(self)
        self._log()

    def _log(self) -> None:
        if not logs.log.isEnabledFor(logging.INFO):
            return
        engine, machine = self.engine, self.engine.comm.machine
        logs.log.info(
            "group %s: rank %d of %d, ranks %s of the default group, over %s, timeout %g s%s%s",
            self._name, engine.rank, engine.size, list(self.ranks) or "all", engine.transports,
            self._timeout.total_seconds(), ", more ranks than processors" if machine.crowded else "",
            ", some ranks only by sockets" if machine.far else "",
        )  # fmt: skip

    # ---- what it is -------------------------------------------------------------------------------------------------

    def getBackendName(self) -> str:
        """Return "pycomm"."""
        return self._backend

    def getRank(self) -> int:
        """Return this process's rank in the group."""
        return self.engine.rank

    def getSize(self) -> int:
        """Return how many ranks the group has."""
        return self.engine.size

    def getGroupName(self) -> str:
        """Return the name that torch gave to the group."""
        return self._name

    def setGroupName(self, name: str) -> None:
        """Take a name."""
        self._name = name

    def getGroupDesc(self) -> str:
        """Return the description that the user gave to the group."""
        return self._desc

    def setGroupDesc(self, desc: str) -> None:
        """Take a description."""
        self._desc = desc

    def get_group_store(self) -> Any:
        """Return the store that the group was made with."""
        return self._store

    group_name = property(getGroupName)
    group_desc = property(getGroupDesc)
    _set_group_name, _set_group_desc = setGroupName, setGroupDesc

    def _get_backend(self, device: torch.device) -> Any:
        """Return who serves a device: the group itself, unless another backend does."""
        return super()._get_backend(device) if device.type in self.beside else self

    supports_splitting = supports_coalescing = supports_shrinking = supports_time_estimate = False

    def supports_tensor_alloc(self, device: Any) -> bool:
        """Return False: any memory will do."""
        return False

    @property
    def options(self) -> Any:
        """The group's timeout, as torch's backends have it."""
        options = (
            dist.ProcessGroup.Options(self._backend)
            if hasattr(dist.ProcessGroup, "Options")
            else c10d.Backend.Options(self._backend)
        )
        options._timeout = self._timeout
        return options

    # ---- life -------------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Leave the group; what is under way fails. A second call does nothing."""
        flight_recorder.groups.discard(self)
        self._quick = self._quickly = _never
        self.engine.close()
        for backend in self._backends_beside():
            backend.shutdown()
        self.beside.clear()

    def abort(self) -> None:
        """Make everything that is under way fail with Aborted, here and on the other ranks, at once."""
        with contextlib.suppress(InvalidArgument):  # it was shut down
            self.engine.comm.Abort("the process group was aborted")

    def split_group(
        self, ranks: Sequence[int], timeout: timedelta | None = None, opts: Any = None, group_name: str | None = None,
        group_desc: str | None = None, device_types: Any = None,
    ) -> PycommGroup | None:  # fmt: skip
        """Make a group of some of this group's ranks, in ascending order. All ranks call it, each for its own part.

        Args:
            ranks: of the part, as this group numbers them; a caller that is not among them gets None.
            timeout: that calls may take; None: this group's.
            opts, device_types: not looked at.
            group_name, group_desc: of the new group.
        """
        part, timeout = sorted(ranks), timeout or self._timeout
        try:
            membership = self.engine.split(part, timeout.total_seconds())
        except PycommError as error:
            raise as_torch(error) from None
        if membership is None:
            return None
        name = group_name or f"{self._name}:{'_'.join(map(str, part))}"
        ours = [self.ranks[r] for r in part] if self.ranks else part
        store = dist.PrefixStore(f"{name}/", self._store)
        group = PycommGroup(
            store, membership.comm.rank, len(part), timeout, ours, name, self._backend, membership=membership
        )
        group.setGroupDesc(group_desc or "")
        return group

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long calls may take from now on."""
        self._timeout = timeout
        self.engine.comm.set_timeout(timeout.total_seconds())
        for backend in self._backends_beside():
            backend._set_default_timeout(timeout)

    _set_default_timeout = set_timeout

    def _backends_beside(self) -> list[Any]:
        return list({id(backend): backend for backend in self.beside.values()}.values())

    def _set_sequence_number_for_group(self) -> None:
        """Do nothing: the core counts."""

    def _get_sequence_number_for_group(self) -> int:
        """Return how many collectives this rank has called."""
        return self.engine.pointers.calls()

    def _start_coalescing(self, device: Any = None) -> None:
        """Start what is called from now on, and wait for nothing."""
        self._quick = _never
        self.engine.begin_batch()

    def _end_coalescing(self, device: Any = None) -> Work:
        """Return one Work of all that was called since `_start_coalescing`."""
        self._quick = self._quickly
        return self.engine.end_batch()

    # ---- reductions -------------------------------------------------------------------------------------------------

    def allreduce(self, tensors: Any, opts: Any = None, *, op: Any = None, timeout: Any = None) -> Work | None:
        """Reduce a tensor over all ranks, in place.

        Args:
            tensors: a tensor, or a list of one.
            opts: AllreduceOptions, or the ReduceOp alone.
            op, timeout: instead of opts.
        """
        if type(opts) is _AllreduceOptions and type(tensors) is list and len(tensors) == 1:
            tensor = tensors[0]
            # _is_quick, written out: this is the call that counts
            if (
                type(tensor) is Tensor and not _modes() and tensor.is_cpu and tensor.layout is _STRIDED
                and tensor.is_contiguous() and not opts.asyncOp and opts.timeout.days < 0
                and not _profiler._is_profiler_enabled
            ):  # fmt: skip
                code, dtype = OPS[hash(opts.reduceOp)], _QUICK.get(tensor.dtype)
                if code is not None and dtype is not None and not tensor.is_neg():
                    at = tensor.data_ptr()
                    if self._quick(_ALLREDUCE | code << 8, at, at, tensor.numel(), dtype, tensor):
                        return None
        return self._allreduce(tensors, opts, op=op, timeout=timeout)

    @_surface
    def _allreduce(self, tensors: Any, opts: Any, op: Any, timeout: Any) -> Work | None:
        if opts is not None and not isinstance(opts, c10d.AllreduceOptions):
            op, opts = opts, None
        options = _options(c10d.AllreduceOptions, opts, reduceOp=op, timeout=timeout)
        return collectives.allreduce(self.engine, one(tensors, "the input"), options.reduceOp, manner(options))

    @_surface
    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Work | None:
        """Reduce several tensors over all ranks, in place."""
        options = _options(c10d.AllreduceCoalescedOptions, opts)
        return collectives.allreduce_coalesced(self.engine, as_list(tensors), options.reduceOp, manner(options))

    @_surface
    def reduce(
        self, tensors: Any, opts: Any = None, op: Any = None, timeout: Any = None, *, root: Any = None
    ) -> Work | None:
        """Reduce a tensor over all ranks; the root gets the result.

        Args:
            tensors: a tensor, or a list of one.
            opts: ReduceOptions, or the root's rank.
            root, op, timeout: instead of opts.
        """
        if isinstance(opts, int):
            root, opts = opts, None
        options = _options(c10d.ReduceOptions, opts, reduceOp=op, rootRank=root, timeout=timeout)
        return collectives.reduce(
            self.engine, one(tensors, "the input"), options.reduceOp, options.rootRank, manner(options)
        )

    @_surface
    def reduce_scatter(
        self, outputs: Any, inputs: Any, opts: Any = None, *, op: Any = None, timeout: Any = None
    ) -> Work | None:
        """Reduce a list of tensors over all ranks; rank r gets the r-th.

        Args:
            outputs: a tensor, or a list of one.
            inputs: a list of one tensor a rank, or a list of one such list.
            opts: ReduceScatterOptions, or the ReduceOp alone.
            op, timeout: instead of opts.
        """
        if opts is not None and not isinstance(opts, c10d.ReduceScatterOptions):
            op, opts = opts, None
        options = _options(c10d.ReduceScatterOptions, opts, reduceOp=op, timeout=timeout)
        own = _inner(inputs, "the input")
        return collectives.reduce_scatter(
            self.engine, one(outputs, "the output"), own, options.reduceOp, manner(options)
        )

    def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> Work | None:
        """Reduce `size` equal blocks over all ranks; rank r gets the r-th.

        Args:
            output: a tensor of n elements.
            input: a tensor of size * n elements.
            opts: ReduceScatterOptions.
        """
        if opts is not None and _is_quick(input) and _is_quick(output):
            code = OPS[hash(opts.reduceOp)]
            count, dtype = output.numel(), output.dtype
            if (
                code is not None and not opts.asyncOp and opts.timeout.days < 0
                and dtype is input.dtype and input.numel() == count * self.engine.size
            ):  # fmt: skip
                what = _REDUCE_SCATTER | code << 8
                if self._quick(what, input.data_ptr(), output.data_ptr(), count, _QUICK[dtype], (input, output)):
                    return None
        return self._reduce_scatter_single(output, input, opts)

    @_surface
    def _reduce_scatter_single(self, output: Any, input: Any, opts: Any) -> Work | None:
        options = _options(c10d.ReduceScatterOptions, opts)
        return collectives.reduce_scatter_single(self.engine, output, input, options.reduceOp, manner(options))

    @_surface
    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Work | None:
        """Do several reduce_scatter_single at once."""
        options = _options(c10d.ReduceScatterOptions, opts)
        calls = (
            functools.partial(collectives.reduce_scatter_single, self.engine, out, own, options.reduceOp)
            for out, own in zip(outputs, inputs, strict=True)
        )
        return collectives.many(self.engine, calls, manner(options))

    # ---- movement ---------------------------------------------------------------------------------------------------

    def broadcast(self, tensors: Any, opts: Any = None, timeout: Any = None, *, root: Any = None) -> Work | None:
        """Give the root's tensor to all.

        Args:
            tensors: a tensor, or a list of one.
            opts: BroadcastOptions, or the root's rank.
            root, timeout: instead of opts.
        """
        if type(opts) is c10d.BroadcastOptions and type(tensors) is list and len(tensors) == 1:
            tensor = tensors[0]
            if _is_quick(tensor) and not opts.asyncOp and opts.timeout.days < 0:
                at, source = tensor.data_ptr(), opts.rootRank
                if 0 <= source < self.engine.size:
                    own = at if source == self.engine.rank else 0
                    if self._quick(_BROADCAST | source << 32, own, at, tensor.numel(), _QUICK[tensor.dtype], tensor):
                        return None
        return self._broadcast(tensors, opts, timeout, root)

    @_surface
    def _broadcast(self, tensors: Any, opts: Any, timeout: Any, root: Any) -> Work | None:
        if isinstance(opts, int):
            root, opts = opts, None
        options = _options(c10d.BroadcastOptions, opts, rootRank=root, timeout=timeout)
        root = self._check_root(options.rootRank)
        return collectives.broadcast(self.engine, one(tensors, "the input"), root, manner(options))

    @_surface
    def allgather(self, outputs: Any, inputs: Any, opts: Any = None, *, timeout: Any = None) -> Work | None:
        """Give everybody's tensor to all, into a list of one tensor a rank.

        Args:
            outputs: a list of one tensor a rank, or a list of one such list.
            inputs: a tensor, or a list of one.
            opts: AllgatherOptions.
            timeout: instead of opts.
        """
        options = _options(c10d.AllgatherOptions, opts, timeout=timeout)
        return collectives.allgather(
            self.engine, _inner(outputs, "the output"), one(inputs, "the input"), manner(options)
        )

    @_surface
    def allgather_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Work | None:
        """Do an allgather for each of several inputs; outputs[r][i] is what rank r gives as its i-th."""
        options = _options(c10d.AllgatherOptions, opts)
        calls = (
            functools.partial(collectives.allgather, self.engine, [outs[i] for outs in outputs], own)
            for i, own in enumerate(inputs)
        )
        return collectives.many(self.engine, calls, manner(options))

    def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> Work | None:
        """Give everybody's tensor to all, one after the other in one tensor.

        Args:
            output: a tensor of size * n elements.
            input: a tensor of n elements; it may be this rank's block of the output.
            opts: AllgatherOptions.
        """
        if opts is not None and _is_quick(input) and _is_quick(output) and not opts.asyncOp and opts.timeout.days < 0:
            count, dtype = input.numel(), input.dtype
            if (
                dtype is output.dtype and output.numel() == count * self.engine.size
                and self._quick(_ALLGATHER, input.data_ptr(), output.data_ptr(), count, _QUICK[dtype], (input, output))
            ):  # fmt: skip
                return None
        return self._all_gather_single(output, input, opts)

    @_surface
    def _all_gather_single(self, output: Any, input: Any, opts: Any) -> Work | None:
        return collectives.allgather_single(self.engine, output, input, manner(_options(c10d.AllgatherOptions, opts)))

    @_surface
    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Work | None:
        """Do several all_gather_single at once."""
        options = _options(c10d.AllgatherOptions, opts)
        calls = (
            functools.partial(collectives.allgather_single, self.engine, out, own)
            for out, own in zip(outputs, inputs, strict=True)
        )
        return collectives.many(self.engine, calls, manner(options))

    @_surface
    def gather(
        self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None, *, root: Any = None
    ) -> Work | None:
        """Give everybody's tensor to the root, into a list of one tensor a rank.

        Args:
            outputs: on the root a list of one tensor a rank, or a list of one such list; elsewhere empty.
            inputs: a tensor, or a list of one.
            opts: GatherOptions, or the root's rank.
            root, timeout: instead of opts.
        """
        if isinstance(opts, int):
            root, opts = opts, None
        options = _options(c10d.GatherOptions, opts, rootRank=root, timeout=timeout)
        root = self._check_root(options.rootRank)
        outs = _inner(outputs, "the output") if root == self.engine.rank else None
        return collectives.gather(self.engine, outs, one(inputs, "the input"), root, manner(options))

    @_surface
    def scatter(
        self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None, *, root: Any = None
    ) -> Work | None:
        """Give each rank its tensor of the root's list.

        Args:
            outputs: a tensor, or a list of one.
            inputs: on the root a list of one tensor a rank, or a list of one such list; elsewhere empty.
            opts: ScatterOptions, or the root's rank.
            root, timeout: instead of opts.
        """
        if isinstance(opts, int):
            root, opts = opts, None
        options = _options(c10d.ScatterOptions, opts, rootRank=root, timeout=timeout)
        root = self._check_root(options.rootRank)
        own = _inner(inputs, "the input") if root == self.engine.rank else None
        return collectives.scatter(self.engine, one(outputs, "the output"), own, root, manner(options))

    @_surface
    def alltoall(self, outputs: Any, inputs: Any, opts: Any = None) -> Work | None:
        """Give the r-th tensor of a list to rank r, and get one from each."""
        options = _options(c10d.AllToAllOptions, opts)
        return collectives.alltoall(self.engine, outputs, inputs, manner(options))

    def all_to_all_single(self, output: Any, input: Any, output_split_sizes: Any = (), input_split_sizes: Any = (),
                          opts: Any = None) -> Work | None:  # fmt: skip
        """Give parts of a tensor's first dimension to all ranks, and get a part from each.

        Args:
            output, input: tensors.
            output_split_sizes, input_split_sizes: rows from and to each rank; both empty: equal parts.
            opts: AllToAllOptions.
        """
        if (
            opts is not None and not output_split_sizes and not input_split_sizes
            and _is_quick(input) and _is_quick(output) and not opts.asyncOp and opts.timeout.days < 0
        ):  # fmt: skip
            total, size, dtype = input.numel(), self.engine.size, input.dtype
            if dtype is output.dtype and output.numel() == total and input.dim() and input.size(0) % size == 0:
                own, out = input.data_ptr(), output.data_ptr()
                if self._quick(_ALLTOALL, own, out, total // size, _QUICK[dtype], (input, output)):
                    return None
        return self._all_to_all_single(output, input, output_split_sizes, input_split_sizes, opts)

    @_surface
    def _all_to_all_single(self, output: Any, input: Any, out_splits: Any, own_splits: Any, opts: Any) -> Work | None:
        options = _options(c10d.AllToAllOptions, opts)
        return collectives.alltoall_single(self.engine, output, input, out_splits, own_splits, manner(options))

    # ---- synchronization --------------------------------------------------------------------------------------------

    def barrier(self, opts: Any = None, *, timeout: Any = None) -> Work | None:
        """Wait until all ranks have come here."""
        if (
            SAYS_WHO_WAITS and type(opts) is c10d.BarrierOptions and not opts.asyncOp and opts.timeout.days < 0
            and not _profiler._is_profiler_enabled
            and not self.engine.pending and self._quick(_BARRIER, 0, 0, 0, _UINT8, None)
        ):  # fmt: skip
            return None
        return self._barrier(opts, timeout)

    @_surface
    def _barrier(self, opts: Any, timeout: Any) -> Work | None:
        return collectives.barrier(self.engine, manner(_options(c10d.BarrierOptions, opts, timeout=timeout)))

    @_surface
    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Wait until all ranks have come here; if some do not come in time, say which.

        Args:
            timeout: None: the group's.
            wait_all_ranks: whether rank 0 names all that are missing, or the first.

        Raises:
            DeadlineExceeded: on rank 0, naming the missing; on the others Aborted, with the same sentence.
        """
        seconds = (self._timeout if timeout is None else timeout).total_seconds()
        monitored_barrier(self.engine, seconds, wait_all_ranks)

    # ---- messages ---------------------------------------------------------------------------------------------------

    @_surface
    def send(self, tensors: Any, dst: int, tag: int = 0) -> Work:
        """Start to send a tensor (or a list of one) to a rank of the group, with a tag."""
        return self.engine.send(dense(one(tensors, "the input")), dst, _checked(tag))

    @_surface
    def recv(self, tensors: Any, src: int, tag: int = 0) -> Work:
        """Start to receive into a tensor (or a list of one) from a rank of the group, with a tag."""
        if not 0 <= src < self.engine.size:
            raise InvalidArgument(f"there is no rank {src} in a group of {self.engine.size}")
        return self._receive(tensors, src, tag)

    @_surface
    def recv_anysource(self, tensors: Any, tag: int = 0) -> Work:
        """Start to receive into a tensor (or a list of one) from any rank, with a tag."""
        return self._receive(tensors, lib.PCM_ANY_SOURCE, tag)

    def _receive(self, tensors: Any, source: int, tag: int) -> Work:
        tensor = one(tensors, "the output")
        room = room_for(tensor)
        then = None if room is tensor else lambda: put_back(tensor, room)
        return self.engine.receive(room, source, _checked(tag), then, [tensor])

    def _check_root(self, root: int) -> int:
        if not 0 <= root < self.engine.size:
            raise InvalidArgument(f"the root is {root} and must be a rank of the group, 0 to {self.engine.size - 1}")
        return root

    # ---- older spellings --------------------------------------------------------------------------------------------

    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single
    if not hasattr(dist.ProcessGroup, "all_to_all_single"):  # before torch 2.13; there torch's own methods come here
        alltoall_base = all_to_all_single
        allgather_into_tensor_coalesced = all_gather_single_coalesced
        reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced


def _inner(lists: Any, what: str) -> list[Tensor]:
    """Return a list of tensors, from that or a list of one such list."""
    if lists and isinstance(lists[0], torch.Tensor):
        return list(lists)
    return list(one(lists, what))


def _checked(tag: int) -> int:
    if not 0 <= tag < MOST_TAGS:
        raise InvalidArgument(f"a tag is a number from 0 to {MOST_TAGS - 1}, and this one is {tag}")
    return tag


def _never(*_: Any) -> bool:
    return False


@atexit.register
def _leave_all() -> None:
    """Leave the groups that the program has not destroyed, before the interpreter takes their threads away."""
    for group in list(flight_recorder.groups):
        group.shutdown()
