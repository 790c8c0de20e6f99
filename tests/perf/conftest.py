"""Makes pycomm.perf importable from a bare checkout, here and in the processes that perf starts."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _installed() -> bool:
    try:
        return importlib.util.find_spec("pycomm.perf") is not None
    except ModuleNotFoundError:
        return False


if not _installed():
    _farm = tempfile.TemporaryDirectory(prefix="pycomm-farm-")
    _package = Path(_farm.name) / "pycomm"
    _package.mkdir()
    for _entry in (ROOT / "pycomm").iterdir():
        (_package / _entry.name).symlink_to(_entry)
    for _room in ("perf", "algorithms"):
        (_package / _room).symlink_to(ROOT / _room)
    for _name in [name for name in sys.modules if name.partition(".")[0] == "pycomm"]:
        del sys.modules[_name]
    sys.path.insert(0, _farm.name)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_farm.name, os.environ.get("PYTHONPATH"))))


@pytest.fixture
def row():
    """Makes rows with everything unimportant filled in."""
    from pycomm.perf.results import Row

    def make(library: str = "pycomm", nbytes: int = 8, median: float = 1.0, **changes: object) -> Row:
        fields = {
            "library": library,
            "transport": None,
            "algorithm": None,
            "collective": "allreduce",
            "ranks": 2,
            "bytes": nbytes,
            "count": nbytes // 4,
            "dtype": "float",
            "op": "sum",
            "root": 0,
            "in_place": False,
            "iterations": 10,
            "median_us": median,
            "min_us": median / 2,
            "max_us": median * 4,
            "p99_us": median * 3,
            "cv_percent": 12.5,
            "algbw_gbs": nbytes / median / 1e3,
            "busbw_gbs": nbytes / median / 1e3,
            "limit_fraction": None,
            "wrong": 0,
        }
        return Row(**(fields | changes))

    return make
