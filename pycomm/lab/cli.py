"""The commands `pycomm lab`, which runs a command in a laboratory, and `pycomm lab-ssh`, which reaches all its hosts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from .. import knobs
from ..errors import InvalidArgument
from ..launch import execute
from . import place
from .read import load
from .session import session


def register(subparsers: Any) -> None:
    """Add the commands to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "lab",
        help="run a command among emulated hosts, whose links have given rates and delays",
        description="Makes the hosts that a file describes, out of network namespaces, and runs a command on the first "
        "of them. `pycomm run` then spreads its ranks over the hosts, in their order; mpiexec does so by way of "
        "`pycomm lab-ssh`. Everything goes when the command ends. This needs root, and `ip` and `tc`.",
        usage="pycomm lab [--on HOST] FILE.toml -- COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the hosts: see docs/lab.md")
    parser.add_argument("--on", metavar="HOST", help="run the command on this host")
    parser.set_defaults(run=_lab)
    parser = subparsers.add_parser(
        "lab-ssh",
        help="run a command on another host of the laboratory, as ssh would",
        description="Within `pycomm lab`: runs a command on a host, in a shell, as ssh does; options are ignored.",
        prefix_chars="\0",  # whose options they are is not argparse's to tell
        add_help=False,
        usage="pycomm lab-ssh HOST COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="HOST COMMAND")
    parser.set_defaults(run=_ssh)


def _lab(args: argparse.Namespace) -> int:
    if not args.after_dashes:
        raise InvalidArgument("nothing to run: give -- COMMAND")
    return session(load(args.file), lambda: execute(args.after_dashes), args.on)


def _ssh(args: argparse.Namespace) -> NoReturn:
    words = args.words + (["--", *args.after_dashes] if args.after_dashes is not None else [])
    while words and words[0].startswith("-"):  # launchers give ssh options such as -x
        words.pop(0)
    if len(words) < 2:
        raise InvalidArgument("give a host and a command")
    places = place.from_environment()
    found = [each for each in places if each.name == words[0]]
    if not found:
        names = ", ".join(each.name for each in places) or f"no laboratory ({knobs.LAB.name} is not set)"
        raise InvalidArgument(f"there is no host {words[0]!r}: there is {names}")
    found[0].enter()
    execute(["/bin/sh", "-c", " ".join(words[1:])])
