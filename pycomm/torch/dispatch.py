"""Tensors that are more than memory (fake, DTensor, of another device) and dispatch modes: torch's dispatcher first.

A ProcessGroup in Python is called before torch's dispatcher. What only the dispatcher understands is handed to it as
torch's own groups do, by the C++ method of the base class; if it ends at real CPU tensors, they come back here.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.library import Library

from ..errors import InvalidArgument
from .tensors import PLAIN

_modes = torch._C._len_torch_dispatch_stack
_now = threading.local()  # .replay: what the dispatcher's kernel is to call in this thread
_lock = threading.RLock()

# For each method: how many of its arguments are tensors, and the operator that stands for it in the dispatcher.
_OPERATORS = {
    "allreduce": (1, "allreduce_"),
    "allreduce_coalesced": (1, "allreduce_coalesced_"),
    "reduce": (1, "reduce_"),
    "reduce_scatter": (2, "reduce_scatter_"),
    "reduce_scatter_single": (2, "_reduce_scatter_base_"),
    "reduce_scatter_single_coalesced": (2, "reduce_scatter_tensor_coalesced_"),
    "broadcast": (1, "broadcast_"),
    "allgather": (2, "allgather_"),
    "allgather_coalesced": (2, "allgather_coalesced_"),
    "all_gather_single": (2, "_allgather_base_"),
    "all_gather_single_coalesced": (2, "allgather_into_tensor_coalesced_"),
    "gather": (2, "gather_"),
    "scatter": (2, "scatter_"),
    "alltoall": (2, "alltoall_"),
    "all_to_all_single": (2, "alltoall_base_"),
    "send": (1, "send"),
    "recv": (1, "recv_"),
    "recv_anysource": (1, "recv_any_source_"),
}
_OLDER = {
    "reduce_scatter_single": "_reduce_scatter_base",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
    "all_gather_single": "_allgather_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "all_to_all_single": "alltoall_base",
}


def is_foreign(group: Any, tensors: Sequence[Any]) -> bool:
    """Return whether a call must go through the dispatcher: a mode is on, or a tensor is not plain or another's."""
    if getattr(_now, "replaying", False):
        return False
    return bool(tensors and _modes()) or any(
        type(t) not in PLAIN or (not t.is_cpu and (t.is_meta or t.device.type in group.beside)) for t in tensors
    )


def inputs(method: str, arguments: Sequence[Any]) -> list[Any]:
    """Return the tensors of a method's last argument of tensors: its inputs, if it has inputs and outputs."""
    places = tensor_places(method)
    return tensors_of(arguments[max(0, places - 1) : places])


def tensor_places(method: str) -> int:
    """Return how many of a method's first arguments are tensors: outputs and inputs, or one for both."""
    return _OPERATORS.get(method, (0, ""))[0]


def tensors_of(arguments: Iterable[Any]) -> list[Any]:
    """Return the tensors of nested lists."""
    found: list[Any] = []
    for argument in arguments:
        if isinstance(argument, list | tuple):
            found += tensors_of(argument)
        elif isinstance(argument, torch.Tensor):
            found.append(argument)
    return found


def by_torch(group: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call torch's own method, which asks the dispatcher.

    Args:
        group: the process group.
        method: name of the method that was called, perhaps with an underscore before it.
        args, kwargs: its arguments.
    """
    name = method.lstrip("_")
    tensors, operator = _OPERATORS[name]
    own = getattr(type(group), method)
    rest = args[tensors:]
    replayed = []

    def replay(*given: Any) -> Any:
        replayed.append(own(group, *given, *rest, **kwargs))
        return replayed[0]

    base = getattr(dist.ProcessGroup, name, None) or getattr(dist.ProcessGroup, _OLDER[name])
    given = [argument for argument in args if argument is not None and argument != ()]
    named = {key: value for key, value in kwargs.items() if value is not None}
    before = getattr(_now, "replay", None)
    with _lock, torch.library._scoped_library("c10d", "IMPL") as library:
        kinds = {"cpu", *(tensor.device.type for tensor in tensors_of(args) if not tensor.is_meta)}
        for kind in kinds - group.beside.keys():
            _install(library, operator, torch._C._dispatch_key_for_device(kind))
        _now.replay = replay
        try:
            work = _frame(base.__name__)(group, base, given, named)
            return replayed[0] if replayed else work  # of the two, the group's own knows a message's sender
        finally:
            _now.replay = before


def _frame(name: str) -> Callable[..., Any]:
    """Return a function that calls a base method in a frame of the method's name.

    pybind11 calls the override of a virtual method unless the caller is that override, which it knows by its name.
    """

    def template(self: Any, base: Any, args: Any, kwargs: Any) -> Any:
        return base(self, *args, **kwargs)

    return types.FunctionType(template.__code__.replace(co_name=name), globals())


def _install(library: Library, operator: str, key: str) -> None:
    """Make an operator on a device's tensors call this thread's `replay` as long as the library lives."""
    returns = len(getattr(torch.ops.c10d, operator).default._schema.returns)

    def kernel(*args: Any) -> Any:
        replay = getattr(_now, "replay", None)
        if replay is None:
            raise InvalidArgument(
                "while a dispatch mode is on, only one thread may communicate: let the other process group wait"
            )
        at = next(i for i, argument in enumerate(args) if isinstance(argument, torch.ScriptObject))
        _now.replaying = True
        try:
            work = replay(*args[:at])
        finally:
            _now.replaying = False
        if work is None:
            future: Any = torch.futures.Future()
            future.set_result(None)
        else:
            future = work.get_future()
        handle = torch._C._distributed_c10d._create_work_from_future(future).boxed()
        return handle if returns == 1 else (args[0], handle)

    library.impl(operator, kernel, key, allow_override=True)


def keep_dynamo_out() -> None:
    """Keep torch.compile from looking into pycomm's functions, which work on addresses: they run as they are.

    Done for each code object, which needs no import of torch._dynamo.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "pycomm" and name not in _kept_out:
            _kept_out.add(name)
            for function in _functions(module):
                function._torchdynamo_disable = True
                for code in _codes(function.__code__):
                    _skip(code)


_kept_out: set[str] = set()


def _skip(code: types.CodeType) -> None:
    frames = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        frames.set_code_exec_strategy(
            code, frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)
        )
    else:
        frames.skip_code(code)


def _functions(module: types.ModuleType) -> Iterator[Any]:
    owners = [module, *(c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)]
    for owner in owners:
        for value in list(vars(owner).values()):
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            while isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function
                function = getattr(function, "__wrapped__", None)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
