"""What calls from Python cost, beside MPI through mpi4py: `python perf/benchmarks/calls.py`; all in microseconds.

The same worker runs over pycomm.MPI and over mpi4py, with whichever MPI libraries pycomm perf would find; each round
starts one job of two ranks for each library in turn, and medians over the rounds are printed. The lines:

- `Allreduce`: one of 8 bytes on COMM_SELF; `in C`: the same from a loop in C, to which mpi4py's call comes down as well
  (MPI_Allreduce, or pcm_run, on the same buffers and handles); `above C`: the difference, in the same process.
- `Start`, `Wait`: of what Allreduce_init has made of that call; "-" where the MPI has none.
- `message`: time for each of the messages of 8 bytes that rank 0 sends to rank 1 in windows: the receiver calls Irecv
  for all of a window, the sender Isend, both Waitall, and an answer ends the window.

Needs a compiler (cc), for the loop in C.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from cffi import FFI  # type: ignore[import-untyped]

from pycomm.perf.rivals import PYCOMM, choose

WINDOW = 64
ROWS = ("Allreduce", "in C", "above C", "Start", "Wait", "message")
_DECLARATIONS = """
double loop_run(void *run, void *comm, const void *call, long calls);
double loop_allreduce(void *allreduce, const void *in, void *out, int count, intptr_t type, intptr_t op,
                      intptr_t comm, long calls);
int MPI_Allreduce(const void *, void *, int, intptr_t, intptr_t, intptr_t);
"""


# ---- one rank of one library ----------------------------------------------------------------------------------------


def worker(library: str, loops: str, calls: int) -> None:
    """Be a rank; rank 0 prints what was measured."""
    if library == PYCOMM.name:
        from pycomm import MPI
    else:
        from mpi4py import MPI  # type: ignore[no-redef]
    found = {} if MPI.COMM_WORLD.rank else allreduces(MPI, library, loops, calls)
    taken = messages(MPI.COMM_WORLD, MPI.Request, max(calls // WINDOW, 1))
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found | {"message": taken}), flush=True)


def allreduces(mpi: Any, library: str, loops: str, calls: int) -> dict[str, float | None]:
    """Time a small Allreduce of one rank, from Python and from C, at once and in two steps."""
    comm = mpi.COMM_SELF
    a, b = np.ones(1), np.empty(1)
    in_python, in_c = [], []
    for _ in range(5):  # in turns, so that both see the same machine
        begun = perf_counter()
        for _ in range(calls):
            comm.Allreduce(a, b)
        in_python.append((perf_counter() - begun) / calls)
        in_c.append(_in_c(mpi, library, loops, a, b, calls))
    taken: dict[str, float | None] = {"Allreduce": median(in_python), "in C": median(in_c)}
    taken["above C"] = median(in_python) - median(in_c)
    try:
        bound = comm.Allreduce_init(a, b)
    except NotImplementedError:
        return taken | {"Start": None, "Wait": None}
    starts, waits = [], []
    for _ in range(calls):
        begun = perf_counter()
        bound.Start()
        started = perf_counter()
        bound.Wait()
        starts.append(started - begun)
        waits.append(perf_counter() - started)
    clock = median(_clock() for _ in range(calls))
    return taken | {"Start": median(starts) - clock, "Wait": median(waits) - clock}


def _clock() -> float:
    begun = perf_counter()
    return perf_counter() - begun


def _in_c(mpi: Any, library: str, loops: str, a: Any, b: Any, calls: int) -> float:
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    loop = ffi.dlopen(loops)
    if library == PYCOMM.name:
        from pycomm import core

        call = mpi.COMM_SELF._prefix("allreduce", a, b, mpi.SUM, {}).call
        given = (core.ffi.addressof(core.lib, "pcm_run"), mpi.COMM_SELF._handle, call)
        run, comm, struct = (ffi.cast("void *", int(core.ffi.cast("uintptr_t", each))) for each in given)
        return float(loop.loop_run(run, comm, struct, calls))
    allreduce = ffi.cast("void *", ffi.dlopen(os.environ["MPI4PY_LIBMPI"]).MPI_Allreduce)
    handles = (mpi.DOUBLE.handle, mpi.SUM.handle, mpi.COMM_SELF.handle)
    buffers = (ffi.cast("void *", each.ctypes.data) for each in (a, b))
    return float(loop.loop_allreduce(allreduce, *buffers, 1, *handles, calls))


def messages(comm: Any, request: Any, windows: int) -> float:
    """Return the time for a message."""
    rank = comm.rank
    blocks = [np.ones(1) for _ in range(WINDOW)]
    answer = np.zeros(1)

    def window() -> None:
        if rank == 0:
            request.Waitall([comm.Isend(block, 1) for block in blocks])
            comm.Recv(answer, 1)
        else:
            request.Waitall([comm.Irecv(block, 0) for block in blocks])
            comm.Send(answer, 0)

    taken = []
    comm.Barrier()
    for _ in range(windows * 5):
        begun = perf_counter()
        window()
        taken.append((perf_counter() - begun) / WINDOW)
    return median(taken)


# ---- all libraries --------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--rounds", type=int, default=5, help="jobs of each library (default: %(default)s)")
    asked.add_argument("--calls", type=int, default=20_000, help="of each kind in a job (default: %(default)s)")
    asked.add_argument("--on", default="openmpi,mpich,impi", help="beside pycomm (default: %(default)s)")
    asked.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.worker:
        library, loops = given.worker
        worker(library, loops, given.calls)
    else:
        _print(_measure(given.rounds, given.calls, given.on))


def _measure(rounds: int, calls: int, on: str) -> dict[str, list[dict[str, float | None]]]:
    """Return what the jobs of each library have printed."""
    rivals, missing = choose([PYCOMM.name, *on.split(",")])
    print(*missing, sep="\n", end="\n" if missing else "")
    found: dict[str, list[dict[str, float | None]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        loops = Path(folder) / "calls.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", loops, Path(__file__).with_name("calls.c")], check=True)
        for rival, place in rivals * rounds:
            own = [sys.executable, __file__, "--calls", str(calls), "--worker", rival.name, str(loops)]
            [(command, more)] = rival.launch(place, 2, own)
            said = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, timeout=100,
                                  check=False)  # fmt: skip
            if said.returncode:
                raise SystemExit(f"{rival.name} has failed:\n{said.stdout}{said.stderr}")
            found[rival.name].append(json.loads(said.stdout))
    return found


def _print(found: dict[str, list[dict[str, float | None]]]) -> None:
    print(f"{'us':<12}" + "".join(f"{name:>10}" for name in found))
    for row in ROWS:
        cells = []
        for jobs in found.values():
            values = [value for job in jobs if (value := job[row]) is not None]
            cells.append(f"{median(values) * 1e6:>10.3f}" if values else f"{'-':>10}")
        print(f"{row:<12}" + "".join(cells))


if __name__ == "__main__":
    main()
