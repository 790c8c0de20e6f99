"""What perf prints: nccl-tests' lines, the ratios to the other libraries, a markdown summary, and the JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .results import Row, Verdict, What, ratios, verdict
from .sizes import format_size

# ---- nccl-tests' table ----


def number(value: float, width: int) -> str:
    """A number as nccl-tests fits it into `width` characters: two decimals, or one, or none, or an exponent."""
    digits = 0
    while value >= 10**digits:
        digits += 1
    if digits < width - 2:
        return f"{value:{width}.2f}"
    if digits < width - 1:
        return f"{value:{width}.1f}"
    if digits < width + 1:
        return f"{value:{width}.0f}"
    return f"{value:{width}.{1 if width >= 7 else 0}e}"


def header(per_call: bool, overlap: bool = False) -> list[str]:
    """The lines above a table; with `per_call` it has nccl-tests' -I columns, with `overlap` those of --overlap."""
    left = "# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}"
    columns = [("time", "(us)", 7), ("algbw", "(GB/s)", 6), ("busbw", "(GB/s)", 6), ("#wrong", "", 6)]
    groups = "           out-of-place                       in-place"
    if per_call:
        columns += [("i_min", "(us)", 7), ("i_max", "(us)", 7), ("i_p99", "(us)", 7), ("i_cv%", "(%)", 7)]
        groups = f"{'':14}out-of-place (+ per-iteration){'':32}in-place (+ per-iteration)"
    if overlap:
        columns += [("compute", "(us)", 7), ("total", "(us)", 7), ("overlap", "(%)", 7)]
        groups = f"{'':11}out-of-place{'':{21 + 27 * (1 + per_call) + 9 * per_call}}in-place"
    names = "".join(f"  {name:>{width}}" for name, _, width in columns)
    units = "".join(f"  {unit:>{width}}" for _, unit, width in columns)
    return [
        "#",
        left.format("", "", "", "", "") + groups,
        left.format("size", "count", "type", "redop", "root") + names * 2 + "  limit  library",
        left.format("(B)", "(elements)", "", "", "") + units * 2 + "    (%)",
    ]


def table_row(
    out_of_place: Row | None, in_place: Row | None, reduces: bool, rooted: bool, per_call: bool, overlap: bool = False
) -> str:
    """nccl-tests' row of one library at one size, then how near its out-of-place time is to the limit, and its name.

    A form that was not measured is N/A; at least one was.
    """
    row = out_of_place or in_place
    assert row is not None
    op, root = row.op if reduces else "none", row.root if rooted else -1
    left = f"{row.bytes:12d}  {row.count:12d}  {row.dtype:>8}  {op:>6}  {root:6d}"
    fraction = None if out_of_place is None else out_of_place.limit_fraction
    limit = "N/A" if fraction is None else f"{100 * fraction:.0f}"
    forms = _form(out_of_place, per_call, overlap) + _form(in_place, per_call, overlap)
    return left + forms + f"  {limit:>5}  {row.library}"


def _form(row: Row | None, per_call: bool, overlap: bool) -> str:
    if row is None:
        return "      N/A     N/A     N/A     N/A" + "      N/A" * (4 * per_call + 3 * overlap)
    wrong = "   N/A" if row.wrong is None else f"{float(row.wrong):6g}"
    text = f"  {number(row.median_us, 7)}  {number(row.algbw_gbs, 6)}  {number(row.busbw_gbs, 6)}  {wrong}"
    if per_call:
        text += "".join(f"  {number(v, 7)}" for v in (row.min_us, row.max_us, row.p99_us, row.cv_percent))
    if overlap:
        figures = (row.compute_us, row.total_us, row.overlap_percent)
        text += "".join("      N/A" if v is None else f"  {number(v, 7)}" for v in figures)
    return text


def footer(program: str, rows: Sequence[Row], reference: str) -> list[str]:
    """nccl-tests' closing lines: wrong elements of every library, and the bandwidth of the reference."""
    wrong = sum(row.wrong or 0 for row in rows)
    bandwidths = [row.busbw_gbs for row in rows if row.library == reference]
    mean = sum(bandwidths) / len(bandwidths) if bandwidths else 0.0
    return [
        f"# {'Out of bounds values':<20} : {wrong} {'FAILED' if wrong else 'OK'}",
        f"# {'Avg bus bandwidth':<20} : {mean:g}",
        "#",
        f"# Collective test concluded: {program}",
    ]


def possible_line(rows: Sequence[Row], reference: str, binds: str) -> str:
    """How near the reference comes to the limit at the largest size, out of place, and what binds there."""
    known = [row for row in rows if row.library == reference and row.limit_fraction is not None]
    if not known:
        return f"# % of what is possible here: N/A; {binds}"
    largest = max(known, key=lambda row: row.bytes)
    assert largest.limit_fraction is not None
    return f"# % of what is possible here: {100 * largest.limit_fraction:.0f} at {format_size(largest.bytes)}; {binds}"


# ---- against the others ----


def ratio_lines(rows: Sequence[Row], reference: str) -> list[str]:
    """A table of every other library's time over the reference's, a line a size; nothing without other libraries."""
    compared = {name: by for name, by in ratios(rows, reference).items() if by}
    if not compared:
        return []
    lines = [
        "#",
        f"# Time of the others over {reference}'s, each in the better of its forms (above 1: {reference} is faster)",
        f"# {'size':>10}" + "".join(f"  {name:>9}" for name in compared),
    ]
    cells = dict.fromkeys(cell for by in compared.values() for cell in by)
    for cell in cells:
        columns = [f"{by[cell]:.2f}x" if cell in by else "-" for by in compared.values()]
        lines.append(f"# {format_size(cell[1]):>10}" + "".join(f"  {text:>9}" for text in columns))
    return lines


def _cell_name(cell: What) -> str:
    return cell[0] if cell[1] == 0 else f"{cell[0]} {format_size(cell[1])}"


def verdict_lines(rows: Sequence[Row], reference: str) -> list[str]:
    """One line a rival over everything that was measured: geometric mean and worst cell."""
    lines = []
    for name, compared in ratios(rows, reference).items():
        found = verdict(compared)
        if found is not None:
            lines.append(
                f"# {reference} against {name:<8}: geometric mean {found.mean:.2f}x over {found.cells} cells, "
                f"worst {found.worst:.2f}x at {_cell_name(found.worst_at)}"
            )
    return lines


def markdown(rows: Sequence[Row], reference: str) -> str:
    """A table for a README: a line a collective, a column a rival, each with geometric mean and worst cell.

    Empty when there is nothing to compare with.
    """
    compared = {name: by for name, by in ratios(rows, reference).items() if by}
    if not compared:
        return ""
    collectives = list(dict.fromkeys(row.collective for row in rows))
    ranks = max((row.ranks for row in rows), default=0)
    title = f"{reference}, {ranks} ranks"
    lines = [
        f"| {title} | " + " | ".join(f"against {name}" for name in compared) + " |",
        "| --- " * (1 + len(compared)) + "|",
    ]

    def entry(found: Verdict | None) -> str:
        if found is None:
            return "-"
        return f"**{found.mean:.2f}x** (worst {found.worst:.2f}x at {_cell_name(found.worst_at)})"

    for collective in collectives:
        parts = [entry(verdict({w: r for w, r in by.items() if w[0] == collective})) for by in compared.values()]
        lines.append(f"| {collective} | " + " | ".join(parts) + " |")
    lines.append("| all | " + " | ".join(entry(verdict(by)) for by in compared.values()) + " |")
    return "\n".join(lines)


# ---- JSON ----


def write_json(path: Path, rows: Iterable[Row], machine: dict[str, Any]) -> None:
    """Everything that was measured, and on what, as `{"rows": [...], "machine": {...}}`."""
    document = {"rows": [row.as_dict() for row in rows], "machine": machine}
    path.write_text(json.dumps(document, indent=1) + "\n")
