"""A laboratory: hosts made of network namespaces on this machine, with links of given rates, delays and losses."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .build import Lab
    from .model import Event, Host, Model, Trunk
    from .read import load, loads

__all__ = ["Event", "Host", "Lab", "Model", "Trunk", "load", "loads"]

_HOMES = {"Lab": "build", "load": "read", "loads": "read"}


def __getattr__(name: str) -> object:
    """Import what is asked for: ranks load this package, and need only `place`."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'model')}"), name)
