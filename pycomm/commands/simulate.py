"""The command `pycomm simulate`: what a collective would take on a described machine, by each of its algorithms."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .. import figures
from ..bound import bound
from ..errors import InvalidArgument, PycommError
from ..packing import offered
from ..schedules import registry
from ..schedules.contract import CONTRACTS, contract
from ..schedules.schedule import SEND
from ..schedules.traffic import Traffic, traffic
from ..selection import table
from ..simulator import costs, timeline
from ..simulator.simulate import Bound, Result
from ..topology import Topology, load
from ..topology.units import say_rate, say_seconds

SLICES = (1, 2, 4, 8, 16, 32, 64)
WINDOWS = (2, 8)
_SHARED = 2_000_000  # messages up to which links are shared; beyond, only ports are
_MOST = 50_000_000  # messages that are simulated
_TRIES = {True: 50_000, False: 1_000_000}  # messages of a way of slicing that is tried; True: which share links
_LEAST_SLICE = 4096  # bytes

COLUMNS = ("algorithm", "time", "algbw", "busbw", "slices", "window", "messages", "busiest link", "its bytes", "in use",
           "possible")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One algorithm at one size: the best way to run it that was tried.

    Attributes:
        result: what it takes.
        link: the link that is in use for the longest time; None if nothing is sent.
        possible: the bound's seconds over the result's.
    """

    result: Result
    link: int | None
    possible: float

    @property
    def link_bytes(self) -> float:
        """What crosses the busiest link."""
        return 0.0 if self.link is None else float(self.result.link_bytes[self.link])

    @property
    def in_use(self) -> float:
        """The part of the time for which the busiest link is needed."""
        if self.link is None or not self.result.seconds:
            return 0.0
        return self.link_bytes / float(self.result.topology.links.bandwidth[self.link]) / self.result.seconds

    def cells(self) -> tuple[str, ...]:
        """Return what a table says, in the order of COLUMNS."""
        result = self.result
        ports = "" if result.contention else " (ports only)"
        return (
            result.traffic.name + ports, say_seconds(result.seconds), say_rate(result.algbw),
            say_rate(result.busbw), str(result.slices), str(result.window), str(result.messages),
            _link(result.topology, self.link), timeline.say_bytes(self.link_bytes), f"{self.in_use:.0%}",
            f"{self.possible:.1%}",
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the same with numbers, in bytes and seconds."""
        result = self.result
        return {
            "collective": result.traffic.collective, "algorithm": result.traffic.name, "nbytes": result.nbytes,
            "seconds": result.seconds, "algbw": result.algbw, "busbw": result.busbw,
            "slices": result.slices, "window": result.window, "contention": result.contention,
            "messages": result.messages, "link": _link(result.topology, self.link), "link_bytes": self.link_bytes,
            "in_use": self.in_use, "possible": self.possible,
        }  # fmt: skip


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `simulate`."""
    parser = subparsers.add_parser(
        "simulate",
        help="price algorithms on a described machine",
        description="Runs all ranks' schedules in virtual time on a described machine, and prints what they take. "
        "docs/simulator.md tells what is in the model and what is not.",
    )
    parser.add_argument("collective", help=", ".join(CONTRACTS))
    parser.add_argument(
        "--algorithm",
        default="all",
        metavar="NAME[,NAME]",
        help="default: all, and those packed for a machine that is no tree",
    )
    parser.add_argument("--topology", required=True, metavar="FILE|GENERATOR", help="as for `pycomm topo`")
    parser.add_argument(
        "--size", default="1M", metavar="BYTES[,BYTES]", help="of a rank's full vector; 1K..1G: each four times larger"
    )
    parser.add_argument("--slices", default="auto", help="pieces of the buffer that follow each other (default: auto)")
    parser.add_argument("--window", type=int, help="how many of them are under way at once (default: 8; auto: 2 or 8)")
    parser.add_argument("--root", type=int, default=0, help="of a rooted collective (default: 0)")
    parser.add_argument("--no-contention", action="store_true", help="messages share ports, but no links in between")
    parser.add_argument("--costs", choices=("none", "here"), default="none", help="here: and this machine's processors")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time over size; svg, png or pdf")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write the fastest for ui.perfetto.dev")
    parser.add_argument("--critical-path", action="store_true", help="tell what the fastest had to wait for")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    collective = contract(args.collective).name
    topology = load(args.topology)
    sizes = _sizes(args.size)
    if args.slices != "auto" and not args.slices.isdigit():
        raise InvalidArgument(f"--slices is {args.slices!r}: a number, or auto")
    rows: list[Row] = []
    try:
        with _progress() as watch:
            for nbytes in sizes:
                found = list(_rows(args, collective, topology, nbytes, watch))
                rows += sorted(found, key=lambda row: (row.result.seconds, row.result.traffic.name))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
    elif rows:
        _print(collective, topology, rows, args.root)
    if not rows:
        return 1
    if args.plot:
        _plot(rows, args.plot, f"{collective} on {topology.name}", priced=args.costs == "here")
    if args.trace or args.critical_path:
        _tell(args, min((row for row in rows if row.result.nbytes == sizes[-1]), key=lambda row: row.result.seconds))
    return 0


def _sizes(text: str) -> list[int]:
    try:
        low, dots, high = text.partition("..")
        if not dots:
            return [table.parse_size(part) for part in text.split(",")]
        least, most = max(table.parse_size(low), 1), table.parse_size(high)
    except ValueError as why:
        raise InvalidArgument(f"--size: {why}") from None
    sizes = []
    while least <= most:
        sizes.append(least)
        least *= 4
    return sizes


def _rows(
    args: argparse.Namespace, collective: str, topology: Topology, nbytes: int, watch: _Progress
) -> Iterator[Row]:
    limit = bound(collective, topology, nbytes, args.root)
    for name in _names(args.algorithm, collective, topology):
        watch.about = f"{name} {timeline.say_bytes(nbytes)}"
        try:
            what = traffic(name, collective, size=topology.size, root=args.root, groups=_groups(topology))
            result = _best(args, what, topology, nbytes, watch)
        except PycommError as error:
            if args.algorithm != "all":
                raise
            watch.note(f"left out: {name}: {error}")
            continue
        used = result.link_bytes / topology.links.bandwidth
        link = int(used.argmax()) if len(used) and used.max() > 0 else None
        possible = limit.seconds / result.seconds if result.seconds else 1.0
        yield Row(result, link, possible)


def _names(asked: str, collective: str, topology: Topology) -> list[str]:
    if asked != "all":
        return [name for name in _split(asked) if registry.find(collective, name)]
    entries = [entry for entry in registry.listing() if entry.collective == collective]
    names = [entry.name for entry in entries if _groups(topology) or not entry.grouped]
    packed = offered(topology) if registry.has(collective, "packed") else ""
    return [*names, packed] if packed else names


def _split(asked: str) -> list[str]:
    """Return the names, of which "hierarchical(direct, ring)" is one."""
    names, depth = [""], 0
    for letter in asked.replace(" ", ""):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            names.append("")
        else:
            names[-1] += letter
    return names


def _groups(topology: Topology) -> Any:
    return topology.groups if any(isinstance(group, tuple) for group in topology.groups) else None


def _best(args: argparse.Namespace, what: Traffic, topology: Topology, nbytes: int, watch: _Progress) -> Result:
    """Return the fastest of the ways to run it that are asked for: ties go to fewer slices."""
    count = int(np.count_nonzero(what.kind == SEND)) * (topology.size // what.period)
    if count > _MOST and what.period > 1:
        raise InvalidArgument(f"{count} messages are too many to simulate")
    contention = not args.no_contention and count <= _SHARED
    terms = _terms(args, topology)
    best: tuple[float, Bound] | None = None
    for slices, window in _ways(args, count, nbytes, contention):
        bound_ = Bound(what, topology, nbytes, slices, window, contention=contention)
        seconds = bound_.seconds(terms, watch=watch)
        if best is None or seconds < best[0] * (1 - 1e-9):
            best = seconds, bound_
    assert best is not None
    seconds, chosen = best
    return Result(
        chosen.traffic, topology, nbytes, chosen.slices, chosen.window, contention, seconds, np.zeros(0)
    )  # fmt: skip


def _ways(args: argparse.Namespace, count: int, nbytes: int, contention: bool) -> Iterator[tuple[int, int]]:
    if args.slices != "auto":
        yield int(args.slices), 8 if args.window is None else args.window
        return
    for slices, window in product(SLICES, (args.window,) if args.window else WINDOWS):
        small = nbytes < slices * _LEAST_SLICE or count * slices > _TRIES[contention]
        if slices == 1 and window == (args.window or WINDOWS[0]):
            yield 1, 1
        elif window <= slices and not small:
            yield slices, window


def _terms(args: argparse.Namespace, topology: Topology) -> costs.Calibration | None:
    """Return what messages cost processors, if that is asked for: this machine's, one for each rank."""
    if args.costs == "none":
        return None
    return costs.calibrated(table.find().calibration, np.bincount(topology.host).tolist(), shared=True)


def _link(topology: Topology, link: int | None) -> str:
    if link is None:
        return "-"
    ends = topology.links.source[link], topology.links.target[link]
    return f"{topology.kinds[topology.links.kind[link]]} {' to '.join(topology.label(int(end)) for end in ends)}"


def _print(collective: str, topology: Topology, rows: Sequence[Row], root: int) -> None:
    for nbytes in dict.fromkeys(row.result.nbytes for row in rows):
        limit = bound(collective, topology, nbytes, root)
        print(
            f"{collective} of {timeline.say_bytes(nbytes)} on {topology.name}, {topology.size} ranks; {limit.sentence}"
        )
        lines = [COLUMNS, *(row.cells() for row in rows if row.result.nbytes == nbytes)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        for line in lines:
            cells = [
                c.ljust(w) if i in (0, 7) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
        print()


def _tell(args: argparse.Namespace, fastest: Row) -> None:
    """Simulate the fastest once more, and tell what happened."""
    chosen = fastest.result
    bound_ = Bound(
        chosen.traffic, chosen.topology, chosen.nbytes, chosen.slices, chosen.window, contention=chosen.contention
    )
    result = bound_.run(_terms(args, chosen.topology), record=True)
    if args.critical_path:
        print(f"the critical path of {chosen.traffic.name}, {timeline.say_bytes(chosen.nbytes)}:", file=sys.stderr)
        print(timeline.path_text(timeline.critical_path(result)))
    if args.trace:
        try:
            args.trace.write_text(json.dumps(timeline.chrome_trace(result)), encoding="utf-8")
        except OSError as why:
            raise InvalidArgument(f"{why.filename} cannot be written: {why.strerror}") from None


def _plot(rows: Sequence[Row], path: Path, title: str, *, priced: bool) -> None:
    pyplot = figures.pyplot()
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name in dict.fromkeys(row.result.traffic.name for row in rows):
        own = sorted((row for row in rows if row.result.traffic.name == name), key=lambda row: row.result.nbytes)
        axes.plot([r.result.nbytes for r in own], [r.result.seconds for r in own], marker="o", markersize=4, label=name)
    least = {row.result.nbytes: row.possible * row.result.seconds for row in rows}
    axes.plot(list(least), list(least.values()), color="black", linestyle=":", label="bound")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(least)[:: 1 + len(least) // 10], minor=False)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: timeline.say_bytes(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: say_seconds(value)))
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize="medium")
    model = "processors of this machine, links as described" if priced else "links as described, processors free"
    axes.set_xlabel(f"size\nsimulated: {model}\n{costs.exactness(priced)}", fontsize="small")
    axes.legend(frameon=False, fontsize="small")
    figures.save(figure, path)


class _Progress:
    """A bar on the terminal, from one second on; a `Watch`."""

    def __init__(self) -> None:
        self.about = ""
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, part: float) -> None:
        """Show how much of this simulation is done."""
        if time.monotonic() - self._began > 1 and sys.stderr.isatty():
            done = round(30 * min(part, 1))
            print(
                f"\r{'#' * done}{'.' * (30 - done)} {part:4.0%} {self.about}\033[K", end="", file=sys.stderr, flush=True
            )
            self._shown = True

    def note(self, text: str) -> None:
        """Print a line."""
        self.clear()
        print(text, file=sys.stderr)

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._shown = False


@contextmanager
def _progress() -> Iterator[_Progress]:
    bar = _Progress()
    try:
        yield bar
    finally:
        bar.clear()
