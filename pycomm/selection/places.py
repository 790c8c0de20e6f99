"""Where on its host a rank is bound to: a socket, a memory node, a last-level cache; from sysfs."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

SYS = Path("/sys")
ANYWHERE = -1  # of a rank that is not bound to one of several


class Place(NamedTuple):
    """What a rank is bound to, by the number of the first processor of each; ANYWHERE: it is not, or nobody knows.

    Attributes:
        socket: CPU package.
        node: memory node.
        cache: last-level cache.
    """

    socket: int = ANYWHERE
    node: int = ANYWHERE
    cache: int = ANYWHERE


def place_of(processors: AbstractSet[int], root: Path) -> Place:
    """Return what a rank is bound to that may use some processors of this host.

    Only what belongs to one of the processors is read, which takes some 0.1 ms on a host of any size.

    Args:
        processors: by number, at least one.
        root: where sysfs is, SYS.
    """
    one = root / f"devices/system/cpu/cpu{min(processors)}"
    nodes = (root / "devices/system/node" / link.name / "cpulist" for link in one.glob("node[0-9]*"))
    cache = last_cache(one)
    files = one / "topology/package_cpus_list", next(nodes, None), cache and cache / "shared_cpu_list"
    sets = (read_processors(text(file)) if file else frozenset() for file in files)
    return Place(*(min(found) if processors <= found else ANYWHERE for found in sets))


def last_cache(processor: Path) -> Path | None:
    """Return where sysfs describes the last cache before memory of a processor (devices/system/cpu/cpu*)."""
    return max(processor.glob("cache/index[0-9]*"), key=lambda cache: number(cache / "level") or 0, default=None)


def read_processors(listed: str) -> frozenset[int]:
    """Read "0-3,8"."""
    pairs = [part.partition("-") for part in listed.split(",") if part]
    return frozenset(n for first, _, last in pairs for n in range(int(first), int(last or first) + 1))


def number(file: Path) -> int | None:
    """Return the number in a file; None: there is none, or no such file."""
    said = text(file)
    return int(said) if said.lstrip("-").isdigit() else None


def text(file: Path) -> str:
    """Return what is in a file; "" if it is not there, or (the speed of an interface that is down) tells nothing."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
