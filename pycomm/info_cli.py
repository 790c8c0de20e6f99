"""The command `pycomm info`: versions, how this process was started, and every setting with its value's source."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from typing import Any

import pycomm
from pycomm import environment, knobs
from pycomm.errors import LaunchError


def register(subparsers: Any) -> None:
    """Add the command `info` to the argument parser of pycomm."""
    parser = subparsers.add_parser("info", help="print versions, the launcher that is seen, and all settings")
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    for section in (_versions, _launcher, _settings):
        print("\n".join(section()))
    return 0


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


def _settings() -> Iterator[str]:
    yield "settings:"
    for knob in knobs.KNOBS:
        try:
            knob.value()
            text = knob.text() or "-"
        except LaunchError as why:
            text = str(why)
        yield f"  {knob.name:22} {text:20} [{knob.source()}] {knob.help}"
