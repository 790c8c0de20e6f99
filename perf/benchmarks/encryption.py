"""What PYCOMM_ENCRYPT=1 costs: messages and allreduces of two ranks over tcp, without it and with it."""

from __future__ import annotations

import os
import time

import numpy as np

import pycomm
from pycomm.job.launch import run_ranks

SIZES = (8, 64 << 10, 1 << 20, 64 << 20)  # bytes
CALLS = {8: 400, 64 << 10: 200, 1 << 20: 60, 64 << 20: 7}


def rank() -> list[tuple[float, float]]:
    """Be a rank; return for each size the best times of half a message's round trip and of an allreduce, in seconds."""
    comm = pycomm.init(transports="tcp")
    found = []
    for size in SIZES:
        own, got = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
        trips, calls = [], []
        for call in range(CALLS[size] + 3):
            comm.Barrier()
            begun = time.perf_counter()
            if comm.rank == 0:
                comm.Send(own, 1)
                comm.Recv(got, 1)
            else:
                comm.Recv(got, 0)
                comm.Send(own, 0)
            between = time.perf_counter()
            comm.Allreduce(own, got)
            if call >= 3:
                trips.append((between - begun) / 2)
                calls.append(time.perf_counter() - between)
        found.append((min(trips), min(calls)))
    return found


def main() -> None:
    """Measure and print."""
    print(f"{'bytes':>10} {'message':>22} {'allreduce':>22}   plain, encrypted; processors: {os.cpu_count()}")
    plain, sealed = (run_ranks(2, rank, env={"PYCOMM_ENCRYPT": value}, timeout=120)[0] for value in "01")
    for size, before, after in zip(SIZES, plain, sealed, strict=True):
        times = [f"{1e6 * one:9.1f} {1e6 * other:9.1f} us" for one, other in zip(before, after, strict=True)]
        rates = f"message {size / before[0] / 1e9:.2f} and {size / after[0] / 1e9:.2f} GB/s"
        print(f"{size:>10} {times[0]} {times[1]}   {rates}")


if __name__ == "__main__":
    main()
