"""What pictures drawn with matplotlib have in common: matplotlib itself, if it is installed, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import InvalidArgument

_UNDATED: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def pyplot() -> Any:
    """Return matplotlib.pyplot, set to draw into files.

    Raises:
        InvalidArgument: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InvalidArgument("--plot needs matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure into a file whose ending (svg, png, pdf) says the format, and close it.

    The same figure gives the same bytes each time.

    Raises:
        InvalidArgument: the file cannot be written.
    """
    plt = pyplot()
    try:
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pycomm"}):
            figure.savefig(path, dpi=140, metadata=_UNDATED.get(path.suffix))
    except (OSError, ValueError) as why:
        raise InvalidArgument(f"{path} cannot be written: {why}") from None
    finally:
        plt.close(figure)
