"""A device for tests whose memory no address reaches: torch's PrivateUse1, as "elsewhere", with kernels in Python.

A tensor there has no storage. What it holds is a tensor in host memory, tied to it, which only copies read and write.
"""

from __future__ import annotations

import torch
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
copies: list[tuple[str, str, int]] = []  # from, to, bytes
_kernels: list[torch.library.Library] = []


class _Stream:
    def synchronize(self) -> None:
        copies.append(("stream", "waited", 0))


class _Module(_DummyBackendModule):
    def current_stream(self, device: object = None) -> _Stream:
        return _Stream()


def _there(content: torch.Tensor) -> torch.Tensor:
    tensor = torch._C._acc.create_empty_tensor(list(content.shape), content.dtype)
    tensor.content = content
    return tensor


def _copy(source, target, non_blocking=False):
    copies.append((source.device.type, target.device.type, source.nbytes))
    getattr(target, "content", target).copy_(getattr(source, "content", source))
    return target


def _empty(size, dtype=None, **_):
    return _there(torch.empty(size, dtype=dtype))


def install() -> None:
    """Make the device known to torch, once in a process."""
    if _kernels:
        return
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("aten", "IMPL")
    _kernels.append(library)
    for name, kernel in {
        "empty.memory_format": _empty,
        "empty_strided": lambda size, stride, dtype=None, **_: _empty(size, dtype),
        "_copy_from": _copy,
        "view": lambda tensor, size: _there(tensor.content.view(size)),
        "as_strided": lambda tensor, size, stride, at=None: _there(tensor.content.as_strided(size, stride, at)),
        "detach": lambda tensor: _there(tensor.content.detach()),
    }.items():
        library.impl(name, kernel, "PrivateUse1")
