"""The command `pycomm info`: versions, how this process was started, what is built in, and every setting."""

from __future__ import annotations

import argparse
import platform
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pycomm
from pycomm import core, knobs
from pycomm.errors import LaunchError
from pycomm.job import environment
from pycomm.schedules import registry
from pycomm.schedules.contract import CONTRACTS


def register(subparsers: Any) -> None:
    """Add the command `info` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "info", help="print versions, the launcher that is seen, what is built in, and all settings"
    )
    parser.add_argument(
        "--compile", action="store_true", help="print what a C compiler needs instead: cc x.c $(pycomm info --compile)"
    )
    parser.add_argument(
        "--prefix", action="store_true", help="print the folder of include/ and lib/ instead, for CMake and pkg-config"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    everything = (_versions, _launcher, _built_in, _settings)
    sections = (_compile,) if arguments.compile else (_prefix,) if arguments.prefix else everything
    for section in sections:
        print("\n".join(section()))
    return 0


def _folders() -> tuple[Path, Path]:
    package = files("pycomm")  # of an editable installation too, where both lie elsewhere
    header, library = (Path(str(package / place)).parent for place in ("include/pycomm.h", "lib/libpycomm.so"))
    return header, library


def _prefix() -> Iterator[str]:
    yield str(_folders()[1].parent)


def _compile() -> Iterator[str]:
    header, library = _folders()
    yield shlex.join([f"-I{header}", f"-L{library}", f"-Wl,-rpath,{library}", "-lpycomm"])


def _versions() -> Iterator[str]:
    import zmq

    python, zeromq = platform.python_version(), zmq.zmq_version()
    yield f"pycomm {pycomm.__version__}, Python {python}, ZeroMQ {zeromq}, {platform.platform()}"


def _launcher() -> Iterator[str]:
    try:
        place = environment.recognise()
        yield f"launcher: {place.launcher}, rank {place.rank} of {place.size}"
    except LaunchError as why:
        yield f"launcher: {why}"


def _built_in() -> Iterator[str]:
    yield f"transports: {', '.join(core.transports())}"
    yield f"kernels: {core.kernels()}"
    yield "algorithms:"
    for collective in CONTRACTS:
        yield f"  {collective:22} {', '.join(registry.known(collective))}"


def _settings() -> Iterator[str]:
    yield "settings:"
    for knob in knobs.KNOBS:
        try:
            knob.value()
            text = knob.text() or "-"
        except LaunchError as why:
            text = str(why)
        yield f"  {knob.name:22} {text:20} [{knob.source()}] {knob.help}"
