"""Keeps what was measured of networks, in the user's cache, for jobs on the same hosts on the same day."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ..errors import InvalidArgument
from ..network import Network, loads

_FRESH = 24 * 3600.0  # seconds; links degrade, and are repaired


def find(key: str) -> Network | None:
    """Return what is known of the hosts that a key stands for, None if it is nothing, or old."""
    with contextlib.suppress(OSError, InvalidArgument):
        path = _path(key)
        if _fresh(path):
            return loads(path.read_bytes())
    return None


def keep(key: str, network: Network) -> None:
    """Remember a network, and forget old ones. A cache that cannot be written is no error: the next job measures."""
    with contextlib.suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob("network-*.json"):  # of hosts that may never come back, such as containers
            if not _fresh(other):
                other.unlink(missing_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(network.dumps())
        beside.replace(path)


def _fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < _FRESH


def _path(key: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pycomm" / f"network-{key}.json"
