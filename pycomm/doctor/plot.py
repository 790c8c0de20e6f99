"""Draws latencies and rates of all pairs as two heat maps, from row to column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..figures import pyplot, save
from .facts import Facts

_INCHES = 5.5  # a side of a map
_LIGHT = 1.6  # red, green and blue together, beyond which white is not seen
_NUMBERED = 12  # ranks, up to which numbers are written into the fields


def draw(facts: Facts, path: Path) -> None:
    """Draw into a file, whose ending says the format.

    Raises:
        InvalidArgument: matplotlib is not installed, or the file cannot be written.
    """
    plt = pyplot()
    latency, rate = matrices(facts)
    figure, (left, right) = plt.subplots(1, 2, figsize=(2.4 * _INCHES, _INCHES), layout="constrained")
    _map(figure, left, 1e6 * latency, facts, "latency, us", "viridis")
    _map(figure, right, 8e-9 * rate, facts, "rate from row to column, Gbit/s", "viridis_r")
    save(figure, path)


def matrices(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds and bytes per second, (ranks, ranks) from row to column; nan where nothing was measured."""
    size = len(facts.owns)
    latency, rate = np.full((2, size, size), np.nan)
    for pair in facts.pairs:
        if not pair.failed:
            latency[pair.a, pair.b] = latency[pair.b, pair.a] = pair.latency
            rate[pair.a, pair.b], rate[pair.b, pair.a] = pair.there, pair.back
    return latency, rate


def _map(figure: Any, axes: Any, values: np.ndarray, facts: Facts, title: str, colours: str) -> None:
    from matplotlib.colors import LogNorm

    size = len(values)
    known = values[np.isfinite(values)]
    axes.set_facecolor("0.9")  # of pairs that were not measured, or that failed
    norm = LogNorm(known.min(), known.max()) if known.size and known.max() > known.min() else None
    image = axes.imshow(values, cmap=colours, norm=norm)
    if known.size:
        figure.colorbar(image, ax=axes, shrink=0.8)
    failed = [at for pair in facts.pairs if pair.failed for at in ((pair.a, pair.b), (pair.b, pair.a))]
    for row, column in failed:
        axes.text(column, row, "×", ha="center", va="center", color="red", size="x-large", weight="bold")
    if size <= _NUMBERED:
        for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
            value = values[row, column]
            colour = "black" if sum(image.to_rgba(value)[:3]) > _LIGHT else "white"
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", size="small", color=colour)
        axes.set_xticks(range(size))
        axes.set_yticks(range(size), [f"{rank} {own.host}" for rank, own in enumerate(facts.owns)])
    for ranks in facts.hosts[1:]:  # a line between hosts
        axes.axhline(ranks[0] - 0.5, color="black", linewidth=0.8)
        axes.axvline(ranks[0] - 0.5, color="black", linewidth=0.8)
    axes.set_title(title)
