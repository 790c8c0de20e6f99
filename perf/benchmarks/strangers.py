"""Allreduces over tcp while strangers knock: `strangers.py`; prints what they took with and without.

Two ranks add 32 MiB again and again. Then another process, which does not hold the job's secret, opens ten thousand
connections to the ports of both, one after the other, says something on each, and hangs up. Results are checked in each
call. The time of a call is the whole time over the number of calls. A stranger needs a processor too: `--pause` (s)
between its connections tells how much of the slowdown is that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import time
from pathlib import Path
from statistics import median

import numpy as np

import pycomm
from pycomm.job.launch import run_ranks

WORDS = (b"GET / HTTP/1.1\r\n\r\n", b"pycomm\r\n" + bytes(128), bytes(64), b"")


def ports() -> list[int]:
    """Return the ports at which this process listens."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as known:
            if known.family == socket.AF_INET and known.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(known.getsockname()[1])
    return found


def knock(doors: list[int], times: int, pause: float) -> None:
    """Be a stranger."""
    for number in range(times):
        with socket.socket() as caller:
            caller.settimeout(20)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leaves no TIME_WAIT behind
            with contextlib.suppress(OSError):
                caller.connect(("127.0.0.1", doors[number % len(doors)]))
                caller.sendall(WORDS[number // len(doors) % len(WORDS)])
        if pause:
            time.sleep(pause)


def rank(count: int, times: int, pause: float) -> tuple[list[float], list[float], int]:
    """Be a rank; return the times of calls without strangers and with them, and how many were turned away."""
    comm = pycomm.init(transports="tcp")
    own = np.arange(count, dtype=np.float32) % 1000 + comm.rank
    wanted = 2 * (np.arange(count, dtype=np.float32) % 1000) + 1
    out = np.empty_like(own)
    doors = [port for each in comm.allgather(ports()) for port in each]

    def call() -> float:
        out[:] = 0
        begun = time.monotonic()
        comm.Allreduce(own, out)
        took = time.monotonic() - begun
        assert np.array_equal(out, wanted), "an allreduce is wrong"
        return took

    for _ in range(5):
        call()
    alone = [call() for _ in range(40)]
    stranger = 0
    if comm.rank == 0 and not (stranger := os.fork()):
        knock(doors, times, pause)
        os._exit(0)
    beset = []
    while comm.bcast(not stranger or os.waitpid(stranger, os.WNOHANG)[0] == 0, 0):
        beset.append(call())
    return alone, beset, comm._world.refused


def main() -> None:
    """Measure."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--connections", type=int, default=10_000)
    asked.add_argument("--mib", type=float, default=32, help="of a vector (default: %(default)s)")
    asked.add_argument("--pause", type=float, default=0.0, help="seconds between connections (default: %(default)s)")
    how = asked.parse_args()
    found = run_ranks(2, rank, int(how.mib * 2**18), how.connections, how.pause, timeout=300)
    alone, beset = (median(times) * 1e3 for times in found[0][:2])
    mean = 1e3 * sum(found[0][1]) / len(found[0][1])
    print(
        f"{how.connections} connections of strangers during {len(found[0][1])} allreduces of {how.mib:g} MiB, all right"
    )
    print(f"without strangers {alone:.1f} ms, with them {beset:.1f} ms (mean {mean:.1f}): {beset / alone:.2f} times")
    print(f"turned away for what they said: {sum(refused for _, _, refused in found)}")


if __name__ == "__main__":
    main()
