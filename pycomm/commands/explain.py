"""The command `pycomm explain`: which algorithm a call would use, on this machine or a described one, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import knobs
from ..communicator.explain import explain
from ..errors import InvalidArgument
from ..schedules.contract import CONTRACTS, contract
from ..selection import table
from ..selection.machine import Machine, one_host
from ..selection.select import Model, Selector

_MOST_RANKS = 1024


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `explain`."""
    parser = subparsers.add_parser(
        "explain",
        help="tell which algorithm a call would use, and why",
        description="Prints the candidates with their predicted times: for ranks of this machine, by what "
        "`pycomm tune` has learnt, or for a described one.",
    )
    parser.add_argument("collective", help=", ".join(CONTRACTS))
    parser.add_argument(
        "--size", default="1M", metavar="BYTES", help="of the larger of a rank's two buffers, such as 64K"
    )
    parser.add_argument("-n", type=int, metavar="RANKS", help="default: 2 on this machine, all of a described one")
    parser.add_argument("--transport", choices=("shm", "tcp"), default="shm", help="between the ranks of this machine")
    parser.add_argument("--table", type=Path, metavar="FILE", help="the tuning table; default: yours, or pycomm's own")
    parser.add_argument("--topology", metavar="FILE|GENERATOR", help="a described machine, such as fat-tree:64")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    collective = contract(args.collective).name
    try:
        nbytes = table.parse_size(args.size)
    except ValueError as why:
        raise InvalidArgument(f"--size: {why}") from None
    machine, model = _described(args) if args.topology else (_this(args), None)
    print(explain(collective, nbytes, machine, Selector(machine, model)))
    return 0


def _this(args: argparse.Namespace) -> Machine:
    size = 2 if args.n is None else args.n
    if not 1 <= size <= _MOST_RANKS:
        raise InvalidArgument(f"-n {size}: choose from 1 to {_MOST_RANKS} ranks")
    wanted = str(args.table) if args.table else knobs.ALGO.value().table
    return one_host(size, shared=args.transport == "shm", table=table.find(wanted))


def _described(args: argparse.Namespace) -> tuple[Machine, Model]:
    from ..selection.predict import Described, machine_of
    from ..topology import load

    topology = load(args.topology)
    if args.n not in (None, topology.size):
        raise InvalidArgument(f"-n {args.n}: {topology.name} has {topology.size} ranks, and all of them take part")
    if topology.size > _MOST_RANKS:
        raise InvalidArgument(
            f"{topology.name} has {topology.size} ranks: `pycomm simulate` is for more than {_MOST_RANKS}"
        )
    return machine_of(topology), Described(topology)
