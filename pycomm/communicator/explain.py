"""Why a call is run as it is: candidates with their predicted and measured times, beside what is possible at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..core import dtype_size
from ..schedules.contract import contract
from ..selection.candidates import Choice
from ..selection.machine import Machine
from ..selection.select import Selector
from ..topology.units import say_seconds
from .confirm import Trials


@dataclass(frozen=True)
class Row:
    """One candidate.

    Attributes:
        choice: the way to run the call.
        seconds: predicted, with the residual.
        factor: the residual in it: 1.2 where such calls took a fifth longer than the model says; 1: none is known.
        measured: the median of this run's calls of this algorithm and size, in seconds; None: there were none.
        possible: the bound over `seconds`, 0 to 1; None: no bound is known.
        chosen: whether calls are run so.
    """

    choice: Choice
    seconds: float
    factor: float
    measured: float | None
    possible: float | None
    chosen: bool


@dataclass(frozen=True)
class Explanation:
    """How a call is run and why; its text is a table.

    Attributes:
        collective, nbytes, size: of the call; nbytes are those of the larger of the two buffers of a rank.
        where: on what machine.
        rows: all candidates, the one that should be the fastest first.
        chosen: how it is run.
        why: one sentence.
        bound: the sentence about what no schedule can beat; "" if none is known.
    """

    collective: str
    nbytes: int
    size: int
    where: str
    rows: tuple[Row, ...]
    chosen: Choice
    why: str
    bound: str = ""

    def __str__(self) -> str:
        """Return the table, of the best candidate of each algorithm and the chosen one."""
        lines = [f"{self.collective} of {size_text(self.nbytes)} on {self.size} ranks, {self.where}"]
        lines += _columns([("candidate", "predicted", "residual", "measured", "of the bound")] + [
            (
                str(row.choice) + (" *" if row.chosen else ""), say_seconds(row.seconds), f"x {row.factor:.2f}",
                "-" if row.measured is None else say_seconds(row.measured),
                "-" if row.possible is None else f"{row.possible:.0%}",
            )
            for row in self.shown()
        ])  # fmt: skip
        return "\n".join([*lines, self.why, *([self.bound] if self.bound else [])])

    def shown(self) -> list[Row]:
        """Return the best candidate of each algorithm, and the one that is chosen."""
        best: dict[str, Row] = {}
        for row in self.rows:
            best.setdefault(row.choice.algorithm, row)
        return [row for row in self.rows if row.chosen or best[row.choice.algorithm] is row]


def explain(
    collective: str,
    nbytes: int,
    machine: Machine,
    selector: Selector,
    *,
    records: Iterable[Mapping[str, Any]] = (),
    settled: Trials | None = None,
) -> Explanation:
    """Return how a call is run and why.

    Args:
        collective, nbytes: the call.
        machine: where.
        selector: of this machine.
        records: of the flight recorder, see pycomm.h.
        settled: what a communicator that confirms has settled on.
    """
    found = settled and settled.settled(collective, nbytes)
    chosen = found or selector.choose(collective, nbytes)
    ranked = selector.ranked(collective, nbytes, chosen)
    measured = _measured(collective, nbytes, machine.size, records)
    limit = selector.bound(collective, nbytes)
    rows = tuple(
        Row(
            one.choice, one.seconds, one.factor, measured.get(one.choice.algorithm),
            limit.seconds / one.seconds if limit and one.seconds else None, one.choice == chosen,
        )
        for one in ranked
    )  # fmt: skip
    if found:
        why = f"chosen: {chosen}, which was the fastest of those that the first calls tried"
    elif selector.asked_for(collective, nbytes):
        why = f"chosen: {chosen}, as PYCOMM_ALGO or the tuning table asks for it"
    else:
        why = f"chosen: {chosen}, {_lead(rows, chosen)}"
    table = machine.table.source and f", by {machine.table.source}"
    return Explanation(
        collective, nbytes, machine.size, f"{machine}{table}", rows, chosen, why, limit.sentence if limit else ""
    )


def _lead(rows: tuple[Row, ...], chosen: Choice) -> str:
    """Return how much better the chosen one is than the best other algorithm."""
    own = next(row.seconds for row in rows if row.chosen)
    others = [row for row in rows if row.choice.algorithm != chosen.algorithm]
    if not others:
        return "the only algorithm that fits"
    next_best = others[0]
    if next_best.seconds < own:
        return f"which is within {own / next_best.seconds - 1:.0%} of the least: near sizes share their choice"
    more = next_best.seconds / own - 1
    return f"the least predicted time; the next algorithm, {next_best.choice}, should take {more:.0%} more"


def _measured(collective: str, nbytes: int, size: int, records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median seconds of each algorithm's calls, but for its first, which had to connect and bind."""
    times: dict[str, list[float]] = {}
    for record in records:
        if record["collective"] != collective or record["state"] != "done" or record["count"] is None:
            continue
        blocks = 1 if contract(collective).blocks == "one" else size
        if record["count"] * blocks * dtype_size(record["dtype"]) == nbytes:
            times.setdefault(record["algorithm"], []).append(record["duration_us"] * 1e-6)
    return {name: median(found[1:] or found) for name, found in times.items()}


def size_text(nbytes: int) -> str:
    """Return a size: "64 KiB"."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.4g} {name}"
    return f"{nbytes} bytes"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *rest = widths
    return [
        "  ".join(["", row[0].ljust(first), *(cell.rjust(w) for cell, w in zip(row[1:], rest, strict=True))])
        for row in rows
    ]
