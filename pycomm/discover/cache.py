"""Keeps what was measured of networks, in the user's cache, for jobs on the same hosts on the same day."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ..errors import InvalidArgument
from ..selection.network import Network, loads

_FRESH = 24 * 3600.0  # seconds; links degrade, and are repaired


def find(key: str) -> Network | None:
    """Return what is known of the hosts that a key stands for, None if it is nothing, or old."""
    known = read(f"network-{key}.json")
    with contextlib.suppress(InvalidArgument):
        return None if known is None else loads(known)
    return None


def keep(key: str, network: Network) -> None:
    """Remember a network."""
    write(f"network-{key}.json", network.dumps().encode())


def read(name: str) -> bytes | None:
    """Return what a file of the cache holds, None if there is none, or an old one."""
    with contextlib.suppress(OSError):
        path = _path(name)
        if _fresh(path):
            return path.read_bytes()
    return None


def write(name: str, content: bytes) -> None:
    """Write a file, and forget old ones. A cache that cannot be written is no error: the next job measures."""
    with contextlib.suppress(OSError):
        path = _path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{name.partition('-')[0]}-*.json"):
            if not _fresh(other):  # of hosts that may never come back, such as containers
                other.unlink(missing_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(content)
        beside.replace(path)


def _fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < _FRESH


def _path(name: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pycomm" / name
