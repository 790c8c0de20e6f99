"""Rows, the one record that everything perf reports is made from, and the arithmetic on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .cases import Case
from .coordinator import Sample


@dataclass(frozen=True)
class Row:
    """One library in one cell; times in microseconds, bandwidths in 10^9 bytes a second.

    Attributes:
        bytes, count: the size S and the count that nccl-tests would print.
        limit_fraction: the least time that the machine allows over the median; None in place and where unknown.
        wrong: wrong elements over all ranks and checks, or None if unchecked.
        compute_us, total_us, overlap_percent: computing alone, a call with as much computing, and the share of the
            call that it hides; None unless overlap was measured.
    """

    library: str
    transport: str | None
    algorithm: str | None
    collective: str
    ranks: int
    bytes: int
    count: int
    dtype: str
    op: str
    root: int
    in_place: bool
    iterations: int
    median_us: float
    min_us: float
    max_us: float
    p99_us: float
    cv_percent: float
    algbw_gbs: float
    busbw_gbs: float
    limit_fraction: float | None
    wrong: int | None
    compute_us: float | None = None
    total_us: float | None = None
    overlap_percent: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        return asdict(self)


def make_row(sample: Sample, case: Case, nbytes: int, ranks: int, least_seconds: float | None, **labels: Any) -> Row:
    """The row of a sample that has times; `labels` are the fields that say what was measured."""
    algbw = nbytes / sample.median / 1e3
    return Row(
        collective=case.name,
        ranks=ranks,
        bytes=nbytes,
        iterations=len(sample.times),
        median_us=sample.median,
        min_us=sample.low,
        max_us=sample.high,
        p99_us=sample.p99,
        cv_percent=sample.variation,
        algbw_gbs=algbw,
        busbw_gbs=algbw * case.busbw(ranks),
        limit_fraction=least_seconds * 1e6 / sample.median if least_seconds else None,
        wrong=sample.wrong,
        compute_us=float(np.median(sample.compute)) if sample.compute else None,
        total_us=float(np.median(sample.total)) if sample.total else None,
        overlap_percent=sample.overlap,
        **labels,
    )


# What was measured: (collective, bytes, dtype, op, root).
What = tuple[str, int, str, str, int]


def what(row: Row) -> What:
    """What a row measured, whoever and in whichever form."""
    return (row.collective, row.bytes, row.dtype, row.op, row.root)


def ratios(rows: Iterable[Row], reference: str = "pycomm") -> dict[str, dict[What, float]]:
    """How many times longer each other library takes than the reference, by library and by what was measured.

    Each library counts with the better of its out-of-place and in-place medians, since libraries differ in which of
    the two they were written for.
    """
    best: dict[str, dict[What, float]] = {}
    for row in rows:
        mine = best.setdefault(row.library, {})
        mine[what(row)] = min(row.median_us, mine.get(what(row), math.inf))
    ours = best.pop(reference, {})
    return {name: {w: t / ours[w] for w, t in theirs.items() if w in ours} for name, theirs in best.items()}


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers; nan of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


@dataclass(frozen=True)
class Verdict:
    """One rival against pycomm over several cells: the geometric mean of the ratios, and the lowest with its cell."""

    cells: int
    mean: float
    worst: float
    worst_at: What


def verdict(compared: dict[What, float]) -> Verdict | None:
    """The verdict on one rival's ratios; None if there are none."""
    if not compared:
        return None
    worst_at = min(compared, key=lambda w: compared[w])
    return Verdict(len(compared), geometric_mean(compared.values()), compared[worst_at], worst_at)
