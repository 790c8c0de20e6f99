"""The command `pycomm info`: versions, how this process was started, the processor, what is there, and all settings."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pycomm
from pycomm import conf, core, knobs, plugins
from pycomm.errors import LaunchError, PycommError
from pycomm.job import environment
from pycomm.schedules import registry
from pycomm.schedules.contract import CONTRACTS

# What the kernels are written for, or a compiler makes use of, as the kernel names it.
_USEFUL = {
    "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "asimd", "asimdhp", "asimddp", "sve", "sve2",
    "bf16",
}  # fmt: skip


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
    everything = (_versions, _launcher, _processor, _transports, _algorithms, _settings)
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


def _processor() -> Iterator[str]:
    words = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in words}
    features = facts.get("flags", facts.get("Features", "")).split()  # on x86-64, on aarch64
    count = len(os.sched_getaffinity(0))
    yield f"processors: {count} may be used, {facts.get('model name') or platform.machine()}"
    yield f"  with {', '.join(filter(_USEFUL.__contains__, features)) or 'nothing that sums are made faster by'}"
    yield f"kernels: {core.kernels()}"


def _transports() -> Iterator[str]:
    yield f"transports: {', '.join(core.transports())}"
    for point in plugins.found(plugins.TRANSPORTS):
        try:
            path = plugins.load(point)
            core.load_transport(str(path))
            told = str(path)
        except PycommError as why:
            told = f"CANNOT BE USED: {why}"
        yield f"  {point.name}, of {plugins.package(point)}: {told}"


def _algorithms() -> Iterator[str]:
    brought = registry.brought()
    yield "algorithms:"
    for collective in CONTRACTS:
        yield f"  {collective:22} {', '.join(registry.known(collective))}"
    for point, wrong in brought:
        yield f"  {point.name}, of {plugins.package(point)}: {f'CANNOT BE USED: {wrong}' if wrong else point.value}"


def _settings() -> Iterator[str]:
    places = ", that over ".join(map(str, conf.places()))
    yield f"settings (an argument of pycomm.init wins over the environment, that over {places}):"
    yield f"  {'name':22} {'type':15} {'default':10} {'value':20} [where it comes from]"
    told = ""
    for knob in knobs.KNOBS:
        try:
            knob.value()
            found = knob.setting()
            text, source = knob.text() or "-", found.source
            if found.name != knob.name:
                source = f"{source}: {found.name}"
        except LaunchError as why:  # a malformed file is every setting's error
            text, source = "(as above)" if str(why) == told else str(why), "CANNOT BE USED"
            told = str(why)
        yield f"  {knob.name:22} {knob.kind.name:15} {knob.default or '-':10} {text:20} [{source}] {_help(knob)}"


def _help(knob: knobs.Knob[Any]) -> str:
    others = f" (else {', '.join(knob.fallbacks)})" if knob.fallbacks else ""
    return knob.help + others
