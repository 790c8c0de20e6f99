"""Pictures of a measurement: time and bus bandwidth against size, for each collective, a line a library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pycomm import figures
from pycomm.errors import InvalidArgument

from .results import Row
from .sizes import format_size

# Okabe and Ito's colours, which the colour-blind can tell apart; pycomm is always the first.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_COLUMNS = 4
_MARKS = ("o", "s", "^", "D", "v", "P", "X")


def save(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw the rows into a file whose ending (png, svg, pdf) says the format.

    Args:
        rows: what was measured; each library is drawn at the better of its two forms, and barriers are left out.
        path: the file to write.
        title: one line above it all, such as the machine.

    Raises:
        InvalidArgument: matplotlib is not installed, no row has a size, or the file cannot be written.
    """
    rows = [row for row in rows if row.bytes]
    if not rows:
        raise InvalidArgument("there is nothing to plot: a barrier has no size")
    pyplot = figures.pyplot()
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    collectives = list(dict.fromkeys(row.collective for row in rows))
    libraries = list(dict.fromkeys(row.library for row in rows))
    columns = min(len(collectives), _COLUMNS)
    bands = -(-len(collectives) // columns)
    figure, grid = pyplot.subplots(
        2 * bands, columns, figsize=(max(6.4, 4.2 * columns), 6.6 * bands), squeeze=False, layout="constrained"
    )
    for place in range(bands * columns):
        band, column = divmod(place, columns)
        times, bandwidths = axes = grid[2 * band][column], grid[2 * band + 1][column]
        if place >= len(collectives):
            times.remove()
            bandwidths.remove()
            continue
        for number, library in enumerate(libraries):
            best = _best(row for row in rows if (row.library, row.collective) == (library, collectives[place]))
            style = {
                "color": _COLOURS[number % len(_COLOURS)],
                "marker": _MARKS[number % len(_MARKS)],
                "markersize": 4.5,
                "linewidth": 2.4 if number == 0 else 1.4,
                "zorder": 3 if number == 0 else 2,
                "label": library,
            }
            times.plot([row.bytes for row in best], [row.median_us for row in best], **style)
            bandwidths.plot([row.bytes for row in best], [row.busbw_gbs for row in best], **style)
        times.set_title(collectives[place], fontweight="bold")
        times.set_yscale("log")
        for panel in axes:
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_size(int(value))))
            panel.grid(True, which="major", color="#dddddd", linewidth=0.7)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        bandwidths.set_ylim(bottom=0)
        bandwidths.set_xlabel("size (bytes)")
        if column == 0:
            times.set_ylabel("median time (us)")
            bandwidths.set_ylabel("bus bandwidth (GB/s)")
    grid[0][0].legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium", color="#444444")
    figures.save(figure, path)


def _best(rows: Iterable[Row]) -> list[Row]:
    """One row a size, the faster form, by increasing size."""
    best: dict[int, Row] = {}
    for row in rows:
        if row.bytes not in best or row.median_us < best[row.bytes].median_us:
            best[row.bytes] = row
    return [best[size] for size in sorted(best)]
