"""Tensors on devices that no transport reaches: copied through host memory in slices, some of which are under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from ..errors import InvalidArgument
from . import dispatch
from .collectives import one
from .engine import manner
from .logs import log
from .tensors import Tensor
from .work import Work

# The device types that are staged, and whether torch has pinned memory for them, which a device copies without its
# host's help. A device that is torch's PrivateUse1 and has no line of its own has that of "privateuseone".
PINNED = {
    "cuda": True,
    "xpu": True,
    "npu": True,
    "mlu": True,
    "musa": True,
    "gcu": True,
    "mtia": False,
    "mps": False,
    "privateuseone": False,
}
SLICE = 4 << 20  # bytes of a rank's block that are copied at once
AHEAD = 4  # slices that are under way while the next is copied; their host memory is all that a waiting call takes

_ELEMENTWISE = ("allreduce", "reduce", "broadcast")
_BY_BLOCKS = ("all_gather_single", "reduce_scatter_single")
_MESSAGES = ("send", "recv", "recv_anysource")


def call(group: Any, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work | None:
    """Do what a method of a process group does, on copies of its tensors in host memory.

    An asynchronous call returns when its inputs have been copied; whoever finds its end copies the results back.
    Allreduce, reduce, broadcast, and all_gather and reduce_scatter of one tensor are done in slices, one of which is
    copied while earlier ones are under way; all else at once.

    Args:
        group: the process group.
        method: works on tensors in host memory.
        args, kwargs: its arguments.

    Raises:
        InvalidArgument: a tensor is on a device that is not known here, or is sparse.
    """
    name, engine = method.__name__.lstrip("_"), group.engine
    places = dispatch.tensor_places(name)
    if name in _ELEMENTWISE:
        args = (one(args[0], "the input"), *args[1:])
    tensors = dispatch.tensors_of(args[:places])
    for tensor in tensors:
        _check(group, name, tensor)
    _settle(tensors)  # the caller's stream may still work on them; after that, copies may take any stream
    options, root = _options(args[places:], kwargs)
    reads, writes = _directions(name, places, root, engine.rank)
    waits = manner(options).waits and name not in _MESSAGES and not engine.batching
    works: deque[Work] = deque()
    whole = _contiguous(name, args)
    for part in _slices(name, whole, places, engine.size):
        hosts = [_to_host(argument, read) for argument, read in zip(part, reads, strict=False)]
        with engine.starting():
            work = method(group, *hosts, *part[places:], **kwargs)
        back = [pair for pair, write in zip(zip(part, hosts, strict=False), writes, strict=True) if write]
        works.append(Work([] if work is None else [work], [], partial(_put_back, back), engine.completer))
        if waits and len(works) > AHEAD:
            works.popleft().wait()
    outputs = zip(args, whole, writes, strict=False)
    then = partial(_put_back, [(tensor, used) for tensor, used, write in outputs if write and used is not tensor])
    if waits:
        for work in works:
            work.wait()
        then()
        return None
    result = dispatch.tensors_of(args[:1])
    start = partial(engine.message, works[0]) if name in _MESSAGES else partial(engine.work, list(works))
    ended: Work = start(result, then)
    return ended


def _check(group: Any, name: str, tensor: Tensor) -> None:
    """Raise unless a tensor can be staged; say once that it is."""
    kind = tensor.device.type
    if kind == "cpu":
        return
    if not _is_known(kind):
        raise InvalidArgument(
            f"{name}: pycomm does not reach the memory of {tensor.device}: give it tensors in host memory (.cpu()), or "
            f"the device a backend of its own, as in init_process_group('cpu:pycomm,{kind}:BACKEND')"
        )
    if tensor.layout is not torch.strided:
        raise InvalidArgument(
            f"{name}: a tensor of layout {tensor.layout} on {tensor.device} cannot be staged: give it in host memory "
            "(.cpu()), or dense (.to_dense())"
        )
    if kind not in group.staged:
        group.staged.add(kind)
        log.warning(
            "group %s: tensors on %s are staged through host memory; a backend of the device's own may be faster, as "
            "in init_process_group('cpu:pycomm,%s:BACKEND')", group.group_name, kind, kind,
        )  # fmt: skip


def _is_known(kind: str) -> bool:
    return kind in PINNED or kind == torch._C._get_privateuse1_backend_name()


def _settle(tensors: Sequence[Tensor]) -> None:
    """Wait for what this thread's streams do with tensors."""
    for device in {tensor.device for tensor in tensors if not tensor.is_cpu}:
        current = getattr(torch.get_device_module(device), "current_stream", None)
        if current is not None:
            current(device).synchronize()


def _options(rest: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, int]:
    """Return torch's options of a call, if there are any, and the root, which may be given without options."""
    given = [*rest, *kwargs.values()]
    options: Any = next((each for each in given if hasattr(each, "timeout")), None)
    return options, getattr(options, "rootRank", next((each for each in given if isinstance(each, int)), 0))


def _directions(name: str, places: int, root: int, rank: int) -> tuple[list[bool], list[bool]]:
    """Return, for each argument of tensors, whether the call reads it, and whether it writes it."""
    if places == 2:
        return [False, True], [True, False]
    reads = not (name.startswith("recv") or (name == "broadcast" and root != rank))
    writes = not (name == "send" or (name == "broadcast" and root == rank) or (name == "reduce" and root != rank))
    return [reads], [writes]


def _contiguous(name: str, args: Sequence[Any]) -> list[Any]:
    """Return arguments of which those that are cut into slices are contiguous: themselves, or copies."""
    places = 1 if name in _ELEMENTWISE else 2 if name in _BY_BLOCKS else 0
    return [*(tensor.contiguous() for tensor in args[:places]), *args[places:]]


def _slices(name: str, args: Sequence[Any], places: int, size: int) -> Iterator[Sequence[Any]]:
    """Yield the arguments of the calls that a call is cut into; ranks that agree on it agree on them."""
    tensors = args[:places]
    if name in _ELEMENTWISE or (name in _BY_BLOCKS and _ratio(tensors) == size):
        count = min(tensor.numel() for tensor in tensors)
        step = max(1, SLICE // tensors[0].element_size())
        if count > step:
            blocks = [tensor.view(-1, count) for tensor in tensors]
            for at in range(0, count, step):
                yield [*(block[:, at : at + step] for block in blocks), *args[places:]]
            return
    yield args


def _ratio(tensors: Sequence[Tensor]) -> float:
    few, many = sorted(tensor.numel() for tensor in tensors)
    return many / few if few else 0.0


def _to_host(argument: Any, read: bool) -> Any:
    """Return room in host memory for a tensor, or for those of nested lists; it holds what is read."""
    if isinstance(argument, list | tuple):
        return [_to_host(each, read) for each in argument]
    copy = torch.empty(argument.shape, dtype=argument.dtype, pin_memory=PINNED.get(argument.device.type, False))
    return copy.copy_(argument.detach()) if read else copy


def _put_back(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Copy results into the tensors that they are for; the copies have ended, as other streams may use them now."""
    tensors = dispatch.tensors_of(given for given, _ in pairs)
    for tensor, copy in zip(tensors, dispatch.tensors_of(copies for _, copies in pairs), strict=True):
        tensor.detach().copy_(copy)
    _settle(tensors)
