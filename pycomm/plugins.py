"""What other packages add to pycomm by entry points; nothing of it is looked for before somebody asks for its name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from .errors import InvalidArgument

ALGORITHMS = "pycomm.algorithms"  # named as the algorithm; they name its function, or the module that has it
TRANSPORTS = "pycomm.transports"  # named as the transport; they name the path of its shared object


@functools.cache
def found(group: str) -> Sequence[metadata.EntryPoint]:
    """Return the entry points of a group, by name, as they were when this was first called."""
    return sorted(metadata.entry_points(group=group), key=lambda point: point.name)


def named(group: str, name: str) -> metadata.EntryPoint | None:
    """Return the entry point of that name, if there is one.

    Raises:
        InvalidArgument: several packages have one.
    """
    points = [point for point in found(group) if point.name == name]
    if len(points) > 1:
        raise InvalidArgument(
            f"{' and '.join(map(package, points))} both have a {name} for {group}: remove one of them"
        )
    return points[0] if points else None


def load(point: metadata.EntryPoint) -> Any:
    """Return what an entry point names.

    Raises:
        InvalidArgument: it cannot be imported.
    """
    try:
        return point.load()
    except Exception as why:  # whatever a stranger's module raises
        reason = f"{type(why).__name__}: {why}"
        raise InvalidArgument(
            f"{point.name}, which {package(point)} adds to {point.group}, cannot be loaded: {reason}"
        ) from why


def package(point: metadata.EntryPoint) -> str:
    """Return the name and the version of the package that has an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
