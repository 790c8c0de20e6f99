"""`pycomm mpirun`: programs of MPI, as they are, whose collectives run on pycomm."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Any

from .. import knobs
from ..errors import InvalidArgument
from ..mpi.serving import LIBRARY


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "mpirun",
        help="start a program of MPI, as it is, with its collectives on pycomm",
        description="Run a command, such as mpiexec -n 4 ./app, with libpycomm-mpi.so in front of MPI.",
        epilog="pycomm mpirun -- mpiexec -n 4 ./app. PYCOMM_MPI_REPORT=1 says at the end what was run by whom.",
    )
    parser.set_defaults(run=_run)


def environment() -> dict[str, str]:
    """Return the variables that put the library in front of MPI, for whoever starts the ranks."""
    others = os.environ.get("LD_PRELOAD")
    return {"LD_PRELOAD": f"{LIBRARY}:{others}" if others else str(LIBRARY), knobs.PYTHON.name: sys.executable}


def _run(args: argparse.Namespace) -> int:
    command = args.after_dashes
    if not command:
        raise InvalidArgument("nothing to run: pycomm mpirun -- mpiexec -n 4 ./app")
    if not shutil.which(command[0]):
        raise InvalidArgument(f"{command[0]}: no such executable")
    os.execvpe(command[0], command, os.environ | environment())
