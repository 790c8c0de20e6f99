"""A picture of a step: computing, exposed communication and bubble, as it is and after each change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import figures
from ..topology.units import say_seconds
from .step import Step
from .whatif import Change

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COMPUTE, _BUBBLE = "#56B4E9", "#BBBBBB"
_DEGREES = {
    "tensor": ("activations", "#D55E00"),
    "expert": ("tokens to experts", "#CC79A7"),
    "pipeline": ("stage to stage", "#009E73"),
    "data": ("gradients and weights", "#E69F00"),
    "replica": ("gradients and weights of experts", "#F0E442"),
}
_MOST = 1.5  # times the step as it is, where longer bars are cut off


def save(step: Step, changes: Sequence[Change], path: Path, title: str) -> None:
    """Draw a stacked bar of the step and one for each change, into a file whose ending (svg, png, pdf) says the format.

    Args:
        step: as it is.
        changes: the best first.
        path: the file to write.
        title: one line above it.

    Raises:
        InvalidArgument: matplotlib is not installed, or the file cannot be written.
    """
    pyplot = figures.pyplot()
    from matplotlib.ticker import FuncFormatter

    steps = [step, *(change.step for change in changes)]
    labels = ["as it is", *(f"{change.words} ({change.gain:+.1%})" for change in changes)]
    parts = [("computing", _COMPUTE, [one.compute for one in steps])]
    for degree, (name, colour) in _DEGREES.items():
        exposed = [sum(row.exposed for row in one.rows if row.transfer.degree == degree) for one in steps]
        parts.append((f"exposed: {name}", colour, exposed))
    parts.append(("pipeline's bubble", _BUBBLE, [one.bubble for one in steps]))
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.36 * len(steps)), layout="constrained")
    left = [0.0] * len(steps)
    places = [0.0, *(number + 1.5 for number in range(len(changes)))]
    for name, colour, widths in parts:
        if any(widths):
            axes.barh(places, widths, left=left, color=colour, label=name, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    edge = min(max(left), _MOST * step.seconds)
    for place, seconds in zip(places, left, strict=True):
        axes.text(min(seconds, edge), place, f" {say_seconds(seconds)}", va="center", fontsize="small")
    axes.set_xlim(0, edge)
    axes.axvline(step.seconds, color="#444444", linestyle=":", linewidth=1, zorder=0)
    axes.set_yticks(places, labels, fontsize="small")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say_seconds(value) if value else "0"))
    axes.tick_params(axis="x", labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("one step of training, simulated; docs/plan.md: what is left out", fontsize="small")
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, fontsize="small", loc="outside lower center", ncols=3
    )
    figures.save(figure, path)
