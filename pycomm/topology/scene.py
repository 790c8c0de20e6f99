"""A drawing as lines, circles, boxes and words, written as SVG or, through matplotlib, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from ..errors import InvalidArgument
from ..schedules.show import FONT

PIXELS = 100  # an inch, of a PNG's unit


class Line(NamedTuple):
    """A straight line, or an arc that bends by `bend` pixels to its left."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    width: float
    dashed: bool = False
    faint: float = 1.0
    bend: float = 0.0


class Box(NamedTuple):
    """A rectangle with its centre, or a circle if it is round."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    round: bool = False


class Words(NamedTuple):
    """Words around, or to a side of, a point on their base line; `halo` keeps lines behind them off."""

    x: float
    y: float
    words: str
    size: float
    colour: str
    anchor: str = "middle"
    bold: bool = False
    halo: bool = False


class Scene:
    """What is drawn, in pixels from the upper left corner; what is added later lies above."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.width = self.height = 0.0
        self.parts: list[Line | Box | Words] = []

    def add(self, *parts: Line | Box | Words) -> None:
        """Add parts on top."""
        self.parts += parts

    def svg(self) -> str:
        """Return an SVG document."""
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}"'
        body = [_svg(part) for part in self.parts]
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}">'
        paper = '<rect width="100%" height="100%" fill="#fff"/>'
        return "\n".join([head, f"<title>{escape(self.title)}</title>", paper, *body, "</svg>\n"])

    def png(self, path: Path) -> None:
        """Write a PNG file; raise InvalidArgument if matplotlib is not installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InvalidArgument("PNG needs matplotlib: pip install matplotlib, or ask for SVG") from None
        figure = Figure(figsize=(self.width / PIXELS, self.height / PIXELS), dpi=2 * PIXELS)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.axis("off")
        for order, part in enumerate(self.parts):
            axes.add_artist(_artist(part, order))
        figure.savefig(path, format="png", facecolor="white")


def _svg(part: Line | Box | Words) -> str:
    if isinstance(part, Line):
        dash = ' stroke-dasharray="6 4"' if part.dashed else ""
        faint = f' stroke-opacity="{part.faint:g}"' if part.faint < 1 else ""
        style = f'stroke="{part.colour}" stroke-width="{part.width:.3g}"{dash}{faint} fill="none"'
        if part.bend:
            x, y = _middle(part)
            return f'<path d="M{part.x1:.1f} {part.y1:.1f} Q{x:.1f} {y:.1f} {part.x2:.1f} {part.y2:.1f}" {style}/>'
        return f'<line x1="{part.x1:.1f}" y1="{part.y1:.1f}" x2="{part.x2:.1f}" y2="{part.y2:.1f}" {style}/>'
    if isinstance(part, Box):
        style = f'fill="{part.fill}" stroke="{part.stroke}"'
        if part.round:
            return f'<circle cx="{part.x:.1f}" cy="{part.y:.1f}" r="{part.width / 2:.3g}" {style}/>'
        x, y = part.x - part.width / 2, part.y - part.height / 2
        return f'<rect x="{x:.1f}" y="{y:.1f}" width="{part.width:.1f}" height="{part.height:.1f}" rx="5" {style}/>'
    halo = ' stroke="#fff" stroke-width="4" paint-order="stroke" stroke-linejoin="round"' if part.halo else ""
    weight = ' font-weight="600"' if part.bold else ""
    return (
        f'<text x="{part.x:.1f}" y="{part.y:.1f}" font-size="{part.size:g}" fill="{part.colour}" '
        f'text-anchor="{part.anchor}"{weight}{halo}>{escape(part.words)}</text>'
    )


def _artist(part: Line | Box | Words, order: int) -> Any:
    from matplotlib import patches, patheffects
    from matplotlib import path as paths
    from matplotlib.text import Text

    if isinstance(part, Line):
        points = [(part.x1, part.y1), _middle(part), (part.x2, part.y2)]
        shape = paths.Path(points, [paths.Path.MOVETO, paths.Path.CURVE3, paths.Path.CURVE3])
        return patches.PathPatch(
            shape, fill=False, edgecolor=part.colour, linewidth=part.width * 72 / PIXELS, alpha=part.faint,
            linestyle=(0, (4, 2.5)) if part.dashed else "-", zorder=order, capstyle="butt",
        )  # fmt: skip
    if isinstance(part, Box):
        colours: dict[str, Any] = {
            "facecolor": part.fill, "edgecolor": part.stroke, "linewidth": 0.72, "zorder": order,
        }  # fmt: skip
        if part.round:
            return patches.Circle((part.x, part.y), part.width / 2, **colours)
        corner = (part.x - part.width / 2 + 5, part.y - part.height / 2 + 5)
        return patches.FancyBboxPatch(
            corner, part.width - 10, part.height - 10, boxstyle="round,pad=5,rounding_size=5", **colours
        )
    anchor = {"start": "left", "middle": "center", "end": "right"}[part.anchor]
    text = Text(
        part.x, part.y, part.words.replace("$", r"\$"), fontsize=part.size * 72 / PIXELS, color=part.colour, ha=anchor,
        va="baseline", zorder=order, fontweight="bold" if part.bold else "normal",
    )  # fmt: skip
    if part.halo:
        text.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
    return text


def _middle(line: Line) -> tuple[float, float]:
    """Return the control point of an arc: above the middle of its ends by twice its bend."""
    dx, dy = line.x2 - line.x1, line.y2 - line.y1
    length = max(1e-9, (dx * dx + dy * dy) ** 0.5)
    aside = 2 * line.bend / length
    return (line.x1 + line.x2) / 2 + dy * aside, (line.y1 + line.y2) / 2 - dx * aside
