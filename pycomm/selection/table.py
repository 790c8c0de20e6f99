"""Tables of what was learnt on a machine: terms of the cost model, residuals, and choices that a person made.

A table is a TOML file. `pycomm tune` and `Comm.save_tuning` write them, people may edit them:

    version = 1

    [machine]                       # what it was measured on; for people, and to tell tables apart
    cpu = "AMD EPYC"

    [calibration.shm]               # terms of the cost model, see pycomm/simulator/costs.py
    latency = 1.7e-08

    [residuals.allreduce.shm]       # measured over predicted time, near these sizes; in between it is interpolated
    ring = [
        {ranks = 2, nbytes = [8, 1024], factor = [1.07, 0.98], samples = [1, 4]},
    ]

    [[choices]]                     # instead of what the model chooses: the first that fits; ends are included
    collective = "allreduce"
    ranks = [2, 8]                  # left out: any number
    nbytes = [0, "16K"]             # left out: any size
    algorithm = "doubling"
    slices = 1                      # left out, as window may be, too: what the model chooses
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidArgument, PycommError
from ..schedules import registry
from ..schedules.contract import contract

VERSION = 1
Curves = dict[int, tuple[list[float], list[float]]]  # by ranks: log2 of sizes, log of factors
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_ALL = (0, 1 << 62)


class Residual(NamedTuple):
    """How far the model is off, in the mean.

    Attributes:
        collective, algorithm, transport, ranks: of what was measured.
        nbytes: its size: a power of two that stands for all sizes from there to its double.
        factor: measured time over predicted, the geometric mean.
        samples: of how many measurements.
    """

    collective: str
    algorithm: str
    transport: str
    ranks: int
    nbytes: int
    factor: float
    samples: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what tells it from the others of a table."""
        return self[:5]


class Override(NamedTuple):
    """A choice that somebody made for some calls.

    Attributes:
        collective: of the calls.
        ranks, nbytes: first and last that it is for.
        algorithm: the name.
        slices, window: None leaves them to the model.
    """

    collective: str
    ranks: tuple[int, int]
    nbytes: tuple[int, int]
    algorithm: str
    slices: int | None = None
    window: int | None = None

    def fits(self, collective: str, nbytes: int, ranks: int) -> bool:
        """Return whether it is for such a call."""
        (few, many), (short, long) = self.ranks, self.nbytes
        return self.collective == collective and few <= ranks <= many and short <= nbytes <= long


@dataclass(frozen=True)
class Table:
    """What was learnt on a machine; an empty table stands for the calibration that pycomm brings.

    Attributes:
        machine: facts about it: cpu, processors, transports, pycomm (the version), date (ISO, of the measurement).
        calibration: terms of the cost model, see `pycomm.simulator.costs`; empty: those that pycomm brings.
        residuals, choices: see there.
        source: the file that it came from, for sentences; "" if from none.
    """

    machine: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    residuals: tuple[Residual, ...] = ()
    choices: tuple[Override, ...] = ()
    source: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """Return 16 digits that tell it from other tables, wherever they lie."""
        return hashlib.blake2b(dumps(self).encode(), digest_size=8).hexdigest()

    def factor(self, collective: str, algorithm: str, transport: str, ranks: int, nbytes: int) -> float:
        """Return what a predicted time must be multiplied with: 1 where nothing was learnt.

        Between two sizes, and between two numbers of ranks, that were measured its logarithm is interpolated over the
        logarithms of both; beyond them it is that of the nearest. Algorithms of which nothing is known are taken to be
        as far off as those of the same collective in the mean: else what was tried would look worse than what was not.
        """
        known = self._curves.get((collective, transport), {})
        chosen = [known[algorithm]] if algorithm in known else list(known.values())
        return math.exp(sum(_at(curves, ranks, nbytes) for curves in chosen) / max(1, len(chosen)))

    def override(self, collective: str, nbytes: int, ranks: int) -> Override | None:
        """Return the choice that somebody made for such a call, if anybody did."""
        return next((choice for choice in self.choices if choice.fits(collective, nbytes, ranks)), None)

    @functools.cached_property
    def _curves(self) -> dict[tuple[str, str], dict[str, Curves]]:
        """Return what is known by collective and transport, then by algorithm."""
        known: dict[tuple[str, str], dict[str, Curves]] = {}
        for residual in sorted(self.residuals):
            curves = known.setdefault((residual.collective, residual.transport), {}).setdefault(residual.algorithm, {})
            sizes, factors = curves.setdefault(residual.ranks, ([], []))
            sizes.append(math.log2(residual.nbytes))
            factors.append(math.log(residual.factor))
        return known


def _at(curves: Curves, ranks: int, nbytes: int) -> float:
    """Return the logarithm of a factor."""
    known = sorted(curves)
    here = [np.interp(math.log2(max(1, nbytes)), *curves[count]) for count in known]
    return float(np.interp(math.log2(ranks), np.log2(known), here))


def merge(older: Table, newer: Table) -> Table:
    """Return what two tables know together.

    Residuals are relative to a calibration: where the two have the same one, those for the same thing are averaged by
    their samples; otherwise the newer's stand alone. The newer's choices come first.
    """
    choices = (*newer.choices, *(choice for choice in older.choices if choice not in newer.choices))
    if dict(older.calibration) != dict(newer.calibration):
        return replace(newer, choices=choices)
    residuals = {residual.key: residual for residual in older.residuals}
    for residual in newer.residuals:
        known = residuals.get(residual.key)
        residuals[residual.key] = residual if known is None else _mean([known, residual])
    return replace(newer, residuals=tuple(sorted(residuals.values())), choices=choices)


def residuals_of(found: Iterable[Residual]) -> tuple[Residual, ...]:
    """Return one residual for each key, from any number of single ones at any sizes."""
    binned: dict[tuple[Any, ...], list[Residual]] = {}
    for residual in found:
        floor = residual._replace(nbytes=1 << max(0, residual.nbytes.bit_length() - 1))
        binned.setdefault(floor.key, []).append(floor)
    return tuple(sorted(map(_mean, binned.values())))


def _mean(residuals: Sequence[Residual]) -> Residual:
    samples = sum(residual.samples for residual in residuals)
    log = sum(math.log(residual.factor) * residual.samples for residual in residuals) / samples
    return residuals[0]._replace(factor=float(f"{math.exp(log):.4g}"), samples=samples)


# ---- files -----------------------------------------------------------------------------------------------------------


def home() -> Path:
    """Return where the user's own table lies, if there is one: ~/.config/pycomm/tuning.toml."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "pycomm" / "tuning.toml"


def find(wanted: str = "") -> Table:
    """Return the table at a path; without one the user's own, or an empty one if there is none. Raises as `load`."""
    if wanted:
        return load(Path(wanted))
    own = home()
    return load(own) if own.exists() else Table()


def load(path: Path) -> Table:
    """Read a table.

    Raises:
        InvalidArgument: the file cannot be read or is no table; the message names the file and the place in it.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as why:
        raise InvalidArgument(f"the tuning table {path} cannot be read: {why}") from None
    return loads(text, str(path))


def save(table: Table, path: Path) -> None:
    """Write a table, making the directory if need be; whoever reads the file meanwhile sees the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(dumps(table))
    beside.replace(path)


def loads(text: str, source: str = "") -> Table:
    """Read a table from its text; `source` names it in errors. Raises InvalidArgument as `load` does."""
    try:
        return _table(tomllib.loads(text), source)
    except (tomllib.TOMLDecodeError, PycommError, ValueError, RecursionError) as why:
        raise InvalidArgument(f"the tuning table {source or '(no file)'} is not usable: {why}") from None


def dumps(table: Table) -> str:
    """Return the text of a table; the same for tables that say the same."""
    lines = [
        "# A tuning table of pycomm, see pycomm/selection/table.py; `pycomm tune` writes such files.",
        f"version = {VERSION}",
    ]
    for name, section in (("machine", table.machine), ("calibration", table.calibration)):
        lines += _section(name, section) if section else []
    for (collective, transport), group in _grouped(table.residuals, lambda r: (r.collective, r.transport)):
        lines += ["", f"[residuals.{collective}.{_key(transport)}]"]
        for algorithm, same in _grouped(group, lambda r: r.algorithm):
            lines += [f"{_key(algorithm)} = [", *(f"    {_inline(row)}," for row in _rows_of(same)), "]"]
    for choice in table.choices:
        fields = {name: value for name, value in choice._asdict().items() if value not in (None, _ALL)}
        lines += ["", "[[choices]]", *(f"{name} = {_inline(value)}" for name, value in fields.items())]
    return "\n".join(lines) + "\n"


def _grouped(residuals: Iterable[Residual], key: Callable[[Residual], Any]) -> Iterator[tuple[Any, list[Residual]]]:
    for value, group in groupby(sorted(residuals, key=lambda r: (key(r), r)), key):
        yield value, list(group)


def _rows_of(same: Iterable[Residual]) -> Iterator[dict[str, Any]]:
    for ranks, group in _grouped(same, lambda r: r.ranks):
        yield {"ranks": ranks, **{name: [getattr(r, name) for r in group] for name in ("nbytes", "factor", "samples")}}


def _section(name: str, values: Mapping[str, Any]) -> list[str]:
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = ["", f"[{name}]", *(f"{_key(key)} = {_inline(values[key])}" for key in values if key not in inner)]
    for key, value in inner.items():
        lines += _section(f"{name}.{_key(key)}", value)
    return lines


def _inline(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case np.generic():
            return _inline(value.item())
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + "}"
        case Sequence() | np.ndarray():
            return "[" + ", ".join(map(_inline, value)) + "]"
    raise InvalidArgument(f"a tuning table cannot hold {value!r}")


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) else _text(key)


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _table(found: dict[str, Any], source: str) -> Table:
    if found.get("version") != VERSION:
        raise ValueError(f"its version is {found.get('version')!r}, and this pycomm reads version {VERSION}")
    known = ("version", "machine", "calibration", "residuals", "choices")
    unknown = sorted(found.keys() - set(known))
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} in it: it has {', '.join(known)}")
    for name in ("machine", "calibration", "residuals"):
        _dict(found.get(name, {}), name)
    return Table(
        found.get("machine", {}), found.get("calibration", {}), tuple(_residuals(found.get("residuals", {}))),
        tuple(_override(_Row(f"choices, number {i}", row)) for i, row in enumerate(_list(found, "choices"), 1)), source,
    )  # fmt: skip


def _residuals(sections: dict[str, Any]) -> Iterator[Residual]:
    known = set()
    for collective, transports in sections.items():
        contract(collective)
        for transport, algorithms in _dict(transports, f"residuals.{collective}").items():
            for algorithm in _dict(algorithms, f"residuals.{collective}.{transport}"):
                for i, row in enumerate(_list(algorithms, algorithm), 1):
                    at = _Row(f"residuals.{collective}.{transport}.{algorithm}, number {i}", row)
                    for residual in at.residuals((collective, algorithm, transport)):
                        if residual.key in known:
                            raise ValueError(f"{at.where}: there are two for {residual.nbytes} bytes")
                        known.add(residual.key)
                        yield residual


def _dict(section: Any, name: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise ValueError(f"{name} must be a section: [{name}]")
    return section


def _list(found: dict[str, Any], name: str) -> list[Any]:
    rows = found.get(name, [])
    if not isinstance(rows, list):
        raise ValueError(f"{name} must be a list")
    return rows


class _Row:
    """One row of a list, whose values are taken one by one."""

    def __init__(self, where: str, row: Any) -> None:
        self.where = where
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected keys with values, not {row!r}")
        self._row = dict(row)

    def take(self, key: str, kind: type, *, optional: bool = False) -> Any:
        """Return the value of a key, which is a text or a positive number."""
        if key not in self._row:
            if optional:
                return None
            raise ValueError(f"{self.where}: {key} is missing")
        return self._checked(key, self._row.pop(key), kind)

    def residuals(self, of: tuple[str, str, str]) -> Iterator[Residual]:
        """Yield the residuals of a row, which has lists of the same length."""
        ranks = self.take("ranks", int)
        columns = [self._row.pop(key, None) for key in ("nbytes", "factor", "samples")]
        self.end()
        if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            raise ValueError(f"{self.where}: nbytes, factor and samples must be lists of the same length")
        for nbytes, factor, samples in zip(*columns, strict=True):
            numbers = self._checked("nbytes", nbytes, int), self._checked("factor", factor, float)
            yield Residual(*of, ranks, *numbers, self._checked("samples", samples, int))

    def _checked(self, key: str, value: Any, kind: type) -> Any:
        if kind is float and type(value) is int and abs(value) <= _ALL[1]:
            value = float(value)
        most = math.inf if kind is float else _ALL[1]
        if type(value) is not kind or (isinstance(value, int | float) and not 0 < value < most):
            wanted = {str: "a text", int: "a whole number above 0", float: "a number above 0"}[kind]
            raise ValueError(f"{self.where}: {key} must be {wanted}, not {value!r}")
        return value

    def span(self, key: str) -> tuple[int, int]:
        """Return first and last of [first, last], of one number, or of nothing, which stands for all."""
        value = self._row.pop(key, list(_ALL))
        ends = value if isinstance(value, list) else [value, value]
        try:
            first, last = map(parse_size, ends)
        except ValueError:
            raise ValueError(f"{self.where}: {key} must be [first, last], not {value!r}") from None
        if first > last:
            raise ValueError(f"{self.where}: {key} ends before it begins: {value!r}")
        return first, last

    def end(self) -> None:
        """Refuse what nobody took."""
        if self._row:
            raise ValueError(f"{self.where}: there is no {next(iter(self._row))!r}")


def parse_size(size: int | str) -> int:
    """Return a size in bytes: a number, or one with K, M or G for powers of 1024. Raises ValueError."""
    if type(size) is int and size >= 0:
        return size
    text = size.strip().upper().removesuffix("B").removesuffix("I") if isinstance(size, str) else ""
    unit = text[-1:] if text[-1:] in _UNITS else ""
    digits = text.removesuffix(unit)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"expected a size such as 65536, 64K or 1M, not {size!r}")
    return int(digits) * _UNITS[unit]


def _override(row: _Row) -> Override:
    collective = contract(row.take("collective", str)).name
    ranks, nbytes = row.span("ranks"), row.span("nbytes")
    algorithm = row.take("algorithm", str)
    registry.find(collective, algorithm)
    override = Override(
        collective, ranks, nbytes, algorithm, row.take("slices", int, optional=True),
        row.take("window", int, optional=True),
    )  # fmt: skip
    row.end()
    return override
