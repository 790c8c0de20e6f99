"""The command `pycomm lab`, which runs a command among the hosts of a laboratory."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..job.launch import execute
from ..lab.read import load
from ..lab.session import session


def register(subparsers: Any) -> None:
    """Add the command `lab` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "lab",
        help="run a command among emulated hosts, whose links have given rates and delays",
        description="Makes the hosts that a file describes, out of network namespaces, and runs a command on the first "
        "of them. `pycomm run` then spreads its ranks over the hosts, in their order; mpiexec does so by way of "
        "`pycomm-lab-ssh`. Everything goes when the command ends. This needs root, and `ip` and `tc`.",
        usage="pycomm lab [--on HOST] FILE.toml -- COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the hosts: see docs/lab.md")
    parser.add_argument("--on", metavar="HOST", help="run the command on this host")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not args.after_dashes:
        raise InvalidArgument("nothing to run: give -- COMMAND")
    if not shutil.which(args.after_dashes[0]):
        raise InvalidArgument(f"{args.after_dashes[0]}: no such executable")
    return session(load(args.file), lambda: execute(args.after_dashes), args.on)
