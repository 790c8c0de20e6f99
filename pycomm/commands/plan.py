"""The command `pycomm plan`: what communication costs in a step of training, on a machine that need not exist yet."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..plan.price import Pricer
from ..plan.read import read_plan
from ..plan.report import as_dict, text
from ..plan.step import step
from ..plan.whatif import changes


def register(subparsers: Any) -> None:
    """Add the command `plan` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "plan",
        help="tell what communication costs in a step of training",
        description="Derives the collectives of one step of training, prices them on a described machine, and tells "
        "what is exposed, what binds, and what one change would buy. docs/plan.md tells of the files.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.toml", help="what is trained, and how")
    parser.add_argument("cluster", type=Path, metavar="CLUSTER.toml", help="the machine, its cards, the order of ranks")
    parser.add_argument("--no-changes", action="store_true", help="do not try what one change would buy")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the step and the changes; svg, png or pdf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    plan = read_plan(arguments.model, arguments.cluster)
    pricer = Pricer(plan.cluster.topology)
    found = step(*plan, pricer)
    tried = [] if arguments.no_changes else changes(found, pricer)
    for line in text(found, tried):
        print(line)
    if arguments.json:
        try:
            arguments.json.write_text(json.dumps(as_dict(found, tried), indent=1) + "\n", encoding="utf-8")
        except OSError as why:
            raise InvalidArgument(f"{why.filename} cannot be written: {why.strerror}") from None
    if arguments.plot:
        from ..plan.plot import save  # here: it needs matplotlib

        save(found, tried, arguments.plot, f"{arguments.model.stem} on {arguments.cluster.stem}")
    return 0
