"""The commands `pycomm verify` and `pycomm show`: prove an algorithm, shipped or one's own, and look at it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, PycommError
from ..schedules import show
from ..schedules.contract import CONTRACTS, contract
from ..schedules.registry import Groups, has, listing
from ..schedules.schedule import Schedule
from ..schedules.verify import Verdict, verify
from ..schedules.view import emit

Named = str | Callable[[Any], None]

COLUMNS = ("collective", "algorithm", "ranks", "rounds", "hops", "steps", "messages", "sent", "traffic", "uneven")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to a command line; each sets `run`, which takes the arguments and returns an exit status."""
    parser = subparsers.add_parser(
        "verify",
        help="prove that an algorithm does what its collective promises, and tell what it costs",
        description="Emits the schedules of all ranks and proves that together they keep the collective's contract. "
        "Bytes are in multiples of n, a rank's full vector: sent, by the rank that sends most; traffic, by all.",
    )
    _common(parser)
    parser.set_defaults(run=run_verify)
    parser = subparsers.add_parser(
        "show",
        help="draw what the ranks do",
        description="Draws a collective: columns are ranks, rows are hops.",
    )
    _common(parser)
    parser.add_argument("--rank", type=int, help="tell in words what this rank does")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw into a file, for a slide")
    parser.set_defaults(run=run_show)


def run_verify(args: argparse.Namespace) -> int:
    """Verify, print a table, and return 1 if anything was wrong."""
    rows: list[Verdict] = []
    wrong = 0
    try:
        for algorithm, collective, groups in _meant(args):
            rooted = contract(collective).rooted and args.root is None
            try:
                for root in range(args.ranks) if rooted else [args.root or 0]:
                    verdict = verify(algorithm, collective, size=args.ranks, root=root, groups=groups)
                rows.append(verdict)
            except PycommError as error:
                wrong += 1
                print(error, file=sys.stderr)
    except InvalidArgument as error:
        print(error, file=sys.stderr)
        return 2
    if rows:
        print(_table([COLUMNS, *(_row(verdict) for verdict in rows)]))
    return 1 if wrong else 0


def run_show(args: argparse.Namespace) -> int:
    """Draw to the terminal, or into a file."""
    try:
        for algorithm, collective, groups in _meant(args):
            schedules = _schedules(algorithm, collective, args.ranks, args.root or 0, groups)
            if args.rank is not None:
                if not 0 <= args.rank < args.ranks:
                    raise InvalidArgument(f"--rank is {args.rank} and must be between 0 and {args.ranks - 1}")
                print(show.rank_text(schedules[args.rank]))
            elif args.svg:
                args.svg.write_text(show.svg(schedules), encoding="utf-8")
            else:
                print(show.text(schedules))
    except PycommError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("algorithm", help='a name, "all", or path.py:function for one of your own')
    parser.add_argument(
        "--collective", choices=[*CONTRACTS, "all"], help="default: allreduce, or what a function is for"
    )
    parser.add_argument("-n", "--ranks", type=int, default=4, help="how many ranks (default: 4)")
    parser.add_argument("--root", type=int, help="the root (default: verify all of them, show 0)")
    parser.add_argument(
        "--groups",
        help='ranks that are near each other: "2x4" for 2 groups of 4, or nested lists "[[0, 1, 2], [3, 4]]"',
    )


def _meant(args: argparse.Namespace) -> Iterable[tuple[Named, str, Groups | None]]:
    """Yield the (algorithm, collective, groups) that the arguments name."""
    if args.ranks < 1:
        raise InvalidArgument(f"--ranks is {args.ranks} and must be at least 1")
    groups = _groups(args.groups, args.ranks) if args.groups else None
    if ":" in args.algorithm.partition("(")[0]:
        write = _load(args.algorithm)
        made_for = [entry.collective for entry in listing() if entry.write is write]
        yield write, args.collective or (made_for or ["allreduce"])[0], groups
        return
    collective = args.collective or "allreduce"
    collectives = list(CONTRACTS) if collective == "all" else [collective]
    name = args.algorithm.partition("(")[0].strip()
    if name != "all":
        having = [one for one in collectives if has(one, name)] or collectives[:1]  # whose error tells what there is
        yield from ((args.algorithm, one, groups) for one in having)
        return
    for entry in listing():
        if entry.collective in collectives and (groups or not entry.grouped):
            yield entry.name, entry.collective, groups


def _load(path_and_function: str) -> Callable[[Any], None]:
    path, _, function = path_and_function.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InvalidArgument(f"there is no Python file {path!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write = getattr(module, function, None)
    if not callable(write):
        raise InvalidArgument(f"{path} has no function {function!r}")
    return write  # type: ignore[no-any-return]


def _groups(told: str, size: int) -> Groups:
    if re.fullmatch(r"\d+(x\d+)+", told):
        members: list[Any] = list(range(size))
        for length in map(int, reversed(told.split("x")[1:])):
            members = [members[i : i + length] for i in range(0, len(members), max(length, 1))]
        return tuple(members)
    try:
        return tuple(json.loads(told))
    except (ValueError, TypeError):
        raise InvalidArgument(f'--groups is {told!r} and must be like 2x4 or "[[0, 1, 2], [3, 4]]"') from None


def _schedules(algorithm: Named, collective: str, size: int, root: int, groups: Groups | None) -> list[Schedule]:
    return [emit(algorithm, collective, size=size, rank=rank, root=root, groups=groups) for rank in range(size)]


def _row(v: Verdict) -> tuple[str, ...]:
    counts = (v.size, v.rounds, v.hops, v.steps, v.messages)
    return (v.collective, v.name, *map(str, counts), f"{v.sent} n", f"{v.traffic} n", "yes" if v.uneven else "no")


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
