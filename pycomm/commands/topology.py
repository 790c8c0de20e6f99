"""The command `pycomm topo`: tells what a described machine is, or the one it runs on, and draws it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidArgument
from ..topology import FAMILIES, Topology, load
from ..topology.draw import draw
from ..topology.summary import summary

if TYPE_CHECKING:
    from ..communicator.comm import Comm


def register(subparsers: Any) -> None:
    """Add the command `topo` to the argument parser of pycomm."""
    shapes = ", ".join(f"{family.name}:{family.shape}" for family in FAMILIES.values())
    parser = subparsers.add_parser(
        "topo",
        help="tell what a described machine is, or this one, and draw it",
        description="Reads a machine from a file, or makes one, or looks at the one it runs on; prints what it is, and "
        "draws it.",
        epilog=f"Generators: {shapes}; with ,key=value settings. docs/topology.md tells of them, and of TOML.",
    )
    parser.add_argument(
        "machine",
        nargs="?",
        metavar="FILE|GENERATOR",
        help="machine.toml, NCCL's box.xml[,hosts=4], or fat-tree:1024,taper=2",
    )
    parser.add_argument(
        "--discover",
        action="store_true",
        help="this host; in a job (`pycomm run`, mpiexec, torchrun) all its hosts, and what is between them, measured",
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it into a file, as SVG")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it into a file, as PNG (needs matplotlib)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.discover == bool(arguments.machine):
        raise InvalidArgument("give either a machine (a file or a generator) or --discover")
    topology = _discovered() if arguments.discover else load(arguments.machine)
    if topology is None:
        return 0
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


def _discovered() -> Topology | None:
    """Print the hosts of this job; return the machine on rank 0, None on the others."""
    from ..discover.host import this_host  # here: only who looks at real hosts needs what follows
    from ..selection.predict import topology_of
    from ..start import init

    comm = init()
    said = _gathered(comm, "\n".join(this_host().lines()))
    if comm.rank:
        return None
    for ranks, near in zip(comm.machine.hosts, comm.machine.near, strict=True):
        print(said[ranks[0]])
        print(f"  ranks {_said(near)}")
    if comm.machine.network is not None:
        print("\n".join(comm.machine.network.lines()))
    return topology_of(comm.machine) if comm.size > 1 else None


def _said(group: Any) -> str:
    """Return nested ranks as "0, 1", or "(0, 1), (2, 3)" where some are nearer to each other."""
    return ", ".join(f"({_said(member)})" if isinstance(member, tuple) else str(member) for member in group)


def _gathered(comm: Comm, text: str) -> list[str]:
    """Return everybody's text on rank 0, nothing elsewhere."""
    own = np.frombuffer(text.encode(), np.uint8)
    lengths = np.zeros(comm.size, np.int64)
    comm.Allgather(np.array([own.size]), lengths)
    whole = np.empty(int(lengths.sum()), np.uint8)
    comm.Gatherv(own, [whole, lengths.tolist()], 0)
    return [] if comm.rank else [part.tobytes().decode() for part in np.split(whole, np.cumsum(lengths)[:-1])]
