"""tcp between two hosts of a laboratory, over a link of 1 Gbit/s: only the link may bound large allreduces."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

import pycomm
from pycomm.lab import Lab

RATE = 1e9 / 8  # bytes a second
SIZES = (8 << 20, 32 << 20)
TRIES = 4  # other programs may hold the ranks up
ENOUGH = 0.85  # of the rate; it is 0.95 where nothing else runs
SECONDS = 60

LAB = """
burst = "2ms"
[[host]]
count = 2
nics = ["1Gbit"]
"""


def _times() -> list[float]:
    """Be a rank, and return the seconds that an allreduce of each size takes."""
    comm = pycomm.init()
    found = []
    for nbytes in SIZES:
        data = np.ones(nbytes // 4, np.float32)
        times = []
        for _ in range(4):
            comm.Barrier()
            start = time.perf_counter()
            comm.Allreduce(data, data, timeout=20)
            times.append(time.perf_counter() - start)
        assert (data == 2**4).all()
        found.append(sorted(times)[1])
    return found


@pytest.mark.timeout(240)
def test_a_link_is_kept_busy(make_lab: Callable[[str], Lab]) -> None:
    """Two ranks exchange as many bytes as the buffer has, each way; headers alone take 4 to 5 % of the rate."""
    lab = make_lab(LAB)
    best = dict.fromkeys(SIZES, 0.0)
    for _ in range(TRIES):
        times = lab.run_ranks(2, _times, env={"PYCOMM_TRANSPORTS": "tcp"}, timeout=SECONDS)[0]
        for nbytes, seconds in zip(SIZES, times, strict=True):
            best[nbytes] = max(best[nbytes], nbytes / RATE / seconds)
        if min(best.values()) >= ENOUGH:
            return
    shares = ", ".join(f"{share:.1%} at {size >> 20} MiB" for size, share in best.items())
    pytest.fail(f"of 1 Gbit/s were used: {shares}")
