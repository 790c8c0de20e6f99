"""The command `pycomm topo`: tells what a described machine is, and draws it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import InvalidArgument
from .topology import FAMILIES, load
from .topology.draw import draw
from .topology.summary import summary


def register(subparsers: Any) -> None:
    """Add the command `topo` to the argument parser of pycomm."""
    shapes = ", ".join(f"{family.name}:{family.shape}" for family in FAMILIES.values())
    parser = subparsers.add_parser(
        "topo",
        help="tell what a described machine is, and draw it",
        description="Reads a machine from a file, or makes one, prints what it is, and draws it.",
        epilog=f"Generators: {shapes}; with ,key=value settings. docs/topology.md tells of them, and of TOML.",
    )
    parser.add_argument(
        "machine",
        metavar="FILE|GENERATOR",
        help="machine.toml, NCCL's box.xml[,hosts=4], or fat-tree:1024,taper=2",
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it into a file, as SVG")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it into a file, as PNG (needs matplotlib)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    topology = load(arguments.machine)
    for line in summary(topology):
        print(line)
    if arguments.svg or arguments.png:
        scene = draw(topology)
        try:
            if arguments.svg:
                arguments.svg.write_text(scene.svg(), encoding="utf-8")
            if arguments.png:
                scene.png(arguments.png)
        except OSError as why:
            raise InvalidArgument(f"{why.filename} cannot be written: {why.strerror}") from None
    return 0
