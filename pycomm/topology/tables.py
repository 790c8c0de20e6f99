"""Tables of TOML files, whose keys are taken one by one, so that an error names the key that is wrong or unknown."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidArgument
from . import units

Made = TypeVar("Made")


def read(path: Path, make: Callable[[Table], Made]) -> Made:
    """Return what is made of a file.

    Args:
        path: the file.
        make: takes the keys of its top table.

    Raises:
        InvalidArgument: the file cannot be read, or something in it is wrong; the message begins with the path.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as why:  # of bytes that are no text, of what is no TOML, or too deep
        raise InvalidArgument(f"{path}: {why}") from None
    try:
        return make(Table("the file", content))
    except InvalidArgument as why:
        raise InvalidArgument(f"{path}: {why}") from None


class Table:
    """A table of a file.

    Args:
        where: what it is called, "[model]".
        content: its keys.
    """

    def __init__(self, where: str, content: dict[str, Any]) -> None:
        self._where, self._content = where, dict(content)
        self._known: list[str] = []

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """Return the value of a key, which must be there if there is no default."""
        self._known.append(key)
        value = self._content.pop(key, default)
        if value is None:
            raise InvalidArgument(f"{self._where} needs {key}")
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            raise InvalidArgument(f"{self._where}: {key} = {value!r} is of the wrong type")
        return value

    def read(self, key: str, reader: Callable[[str], Any], default: Any = None) -> Any:
        """Return the value of a key that is a number with a unit, or a number."""
        self._known.append(key)
        if key not in self._content and default is not None:
            return default
        value = self.take(key, (str, int, float))
        try:
            return reader(str(value))
        except ValueError as why:  # also of a whole number with thousands of digits
            raise InvalidArgument(f"{self._where}: {key}: {why}") from None

    def tables(self, key: str) -> list[Table]:
        """Return the tables [[key]]."""
        entries = self.take(key, (list, dict), [])
        if isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidArgument(f"{self._where}: write [[{key}]], once for each")
        return [Table(f"[[{key}]] number {number}", entry) for number, entry in enumerate(entries, 1)]

    def table(self, key: str) -> Table:
        """Return the table [key], an empty one if it is not there."""
        content = self.take(key, dict, {})
        return Table(f"[{key}]", content)

    def has(self, key: str) -> bool:
        """Tell whether a key is there."""
        return key in self._content

    def done(self) -> None:
        """Refuse keys that nobody has taken."""
        for key in self._content:
            known = ", ".join(dict.fromkeys(self._known))
            raise InvalidArgument(f"{self._where}: there is no {key!r} here: it may have {known}")


def names(table: Table, default: str) -> list[str]:
    """Return what the things of a table are called: its name, with numbers from 0 if `count` is given."""
    name = table.take("name", str, default)
    if not name or any(sign in name for sign in "/*?[]"):
        raise InvalidArgument(f"name = {name!r} must have letters, and none of / * ? [ ]")
    if not table.has("count"):
        return [name]
    return [f"{name}{number}" for number in range(table.read("count", units.count))]
