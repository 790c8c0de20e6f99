"""Tables of a TOML file, read key by key, so that what is wrong is said with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InvalidArgument
from . import units


class Table:
    """A table of the file, whose keys are taken one by one."""

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
        except InvalidArgument as why:
            raise InvalidArgument(f"{self._where}: {key}: {why}") from None

    def tables(self, key: str) -> list[Table]:
        """Return the tables [[key]]."""
        entries = self.take(key, (list, dict), [])
        if isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidArgument(f"{self._where}: write [[{key}]], once for each")
        return [Table(f"[[{key}]] number {number}", entry) for number, entry in enumerate(entries, 1)]

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
