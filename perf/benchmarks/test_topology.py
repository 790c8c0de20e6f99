"""What it costs to make large machines, and to find paths on them. Run with `pytest perf/benchmarks`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pycomm.topology import check_period, generate

LARGE = ["fat-tree:102400", "fat-tree:102400,hosts=8", "rails:12800x8", "torus:48x48x48", "dragonfly:200x32x16"]
PAIRS = 1_000_000


@pytest.mark.parametrize("text", LARGE)
def test_generate(benchmark: Any, text: str) -> None:
    """Time the making of a machine of 102,400 ranks."""
    benchmark.pedantic(generate, (text,), rounds=3)


@pytest.mark.parametrize("text", LARGE)
def test_paths(benchmark: Any, text: str) -> None:
    """Time the paths of a million pairs of ranks."""
    topology = generate(text)
    source, target = np.random.default_rng(0).integers(0, topology.size, (2, PAIRS), dtype=np.int32)
    benchmark.pedantic(topology.paths, (source, target), rounds=3)


def test_check_period(benchmark: Any) -> None:
    """Time the proof that 102,400 ranks on a fat tree look the same after a rotation."""
    benchmark.pedantic(check_period, (generate("fat-tree:102400,hosts=8"),), rounds=3)
