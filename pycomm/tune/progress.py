"""A progress bar for what takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Step = Callable[[str], None]  # says what begins now


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Step]:
    """Show a bar on standard error, if it is a terminal and rich is installed; yields what is called at each step."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda _: None
        return
    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)
        begun = [False]

        def step(what: str) -> None:
            bar.update(task, description=what, advance=1 if begun[0] else 0)
            begun[0] = True

        yield step
