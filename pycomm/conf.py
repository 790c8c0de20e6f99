"""Settings in files, /etc/pycomm.conf for all users of a host and ~/.pycomm.conf for one: NAME=value, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pycomm.errors import LaunchError

SYSTEM = Path("/etc/pycomm.conf")


class Line(NamedTuple):
    """A setting in a file.

    Attributes:
        number: of the line, from 1 on.
        text: what is behind the first =, without blanks around it.
    """

    number: int
    text: str


def places() -> list[Path]:
    """Return the files in which settings may stand, the one that wins first."""
    try:
        return [Path.home() / ".pycomm.conf", SYSTEM]
    except RuntimeError:  # this user has no home
        return [SYSTEM]


def read(path: Path) -> dict[str, Line]:
    """Return what stands in a file, by name; nothing if there is no such file. A line that begins with # is a comment.

    Raises:
        LaunchError: it cannot be read, or a line is malformed; it names the line.
    """
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as why:
        raise LaunchError(f"{path} cannot be read: {why}") from None
    found: dict[str, Line] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, text = (part.strip() for part in line.partition("="))
        if not equals or not name or name.split() != [name]:
            raise LaunchError(f"{path}:{number}: {line!r} is not NAME=value, nor a comment that begins with #")
        if name in found:
            raise LaunchError(
                f"{path}:{number}: {name} stands in line {found[name].number} already: remove one of them"
            )
        found[name] = Line(number, text)
    return found
