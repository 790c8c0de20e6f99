"""Rows with everything unimportant filled in."""

from __future__ import annotations

import pytest

from pycomm.perf.results import Row


@pytest.fixture
def row():
    """Makes rows."""

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
