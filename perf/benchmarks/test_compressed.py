"""How fast vectors are encoded for slow links, and decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pycomm.compressed.codec import KINDS, decode, encode, encoded_bytes

_ELEMENTS = 1 << 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["encode", "encode with feedback", "decode", "decode and add"])
def test_codec(benchmark: Any, kind: str, what: str) -> None:
    """Time one pass over 4 MiB of float32; `gb_a_second` counts the bytes of float32."""
    x = np.random.default_rng(0).uniform(-1, 1, _ELEMENTS).astype(np.float32)
    wire = np.empty(encoded_bytes(KINDS[kind], x.size), np.uint8)
    encode(KINDS[kind], wire, x, None)
    if what.startswith("encode"):
        benchmark(encode, KINDS[kind], wire, x, np.zeros_like(x) if "feedback" in what else None)
    else:
        benchmark(decode, KINDS[kind], x, wire, add="add" in what)
    if benchmark.stats:
        benchmark.extra_info["gb_a_second"] = x.nbytes / benchmark.stats.stats.min / 1e9
