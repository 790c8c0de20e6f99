"""The register of algorithms: the decorator that enters one, and the look-ups by collective and name."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InvalidArgument
from .contract import contract

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Groups = tuple[Any, ...]  # ranks that are near each other: nested tuples of ranks
Cut = int | str | Callable[..., int]
Write = Callable[[Any], None]
F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Algorithm:
    """One algorithm for one collective.

    Attributes:
        name, collective: how it is found.
        write: the function of a view that writes one rank's schedule.
        chunks: the pieces that a block is cut into: a number, "size" (as many as ranks), or a function of the size
            and the groups.
        about: one line about it.
        cite: where it comes from.
        uneven: whether blocks may differ in length when a rank knows only its own (gatherv, scatterv, alltoallv).
        grouped: whether it needs to know which ranks are near each other.
        most: ranks beyond which nobody would choose it, so that it is not even priced; 0: it is for any number.
    """

    name: str
    collective: str
    write: Write
    chunks: Cut = 1
    about: str = ""
    cite: str = ""
    uneven: bool = False
    grouped: bool = False
    most: int = 0

    @property
    def shipped(self) -> bool:
        """Whether pycomm brings it, so that its tests have verified it."""
        return self.write.__module__.startswith("pycomm.algorithms.")

    def cut(self, size: int, groups: Groups | None) -> int:
        """Return how many pieces a block is cut into."""
        if callable(self.chunks):
            return self.chunks(size, groups)
        return size if isinstance(self.chunks, str) else self.chunks


_algorithms: dict[tuple[str, str], Algorithm] = {}
_families: dict[tuple[str, str], Callable[..., Algorithm]] = {}


def algorithm(
    collective: str,
    *,
    name: str | None = None,
    chunks: Cut = 1,
    cite: str = "",
    uneven: bool = False,
    most: int = 0,
) -> Callable[[F], F]:
    """Enter the decorated function of a view as an algorithm for `collective`.

    Args:
        collective: what it does.
        name: how it is asked for; default: the function's name.
        chunks: pieces a block, see `Algorithm`.
        cite: where it comes from.
        uneven: whether no rank needs the length of a block that is in neither of its buffers.
        most: ranks beyond which nobody would choose it, see `Algorithm`.
    """

    def enter(write: F) -> F:
        if not write.__module__.startswith("pycomm.algorithms."):
            _load()  # so that a name that pycomm has taken is refused here, and not where pycomm takes it
        add(Algorithm(name or write.__name__, collective, write, chunks, _about(write), cite, uneven, most=most))
        return write

    return enter


def add(entry: Algorithm) -> None:
    """Enter an algorithm; a name that is taken by another function is refused."""
    contract(entry.collective)
    if not re.fullmatch(r"\w+", entry.name):
        raise InvalidArgument(f"an algorithm's name is made of letters, digits and _, not {entry.name!r}")
    if entry.chunks != "size" and isinstance(entry.chunks, str):
        raise InvalidArgument(f'chunks is a number, "size" or a function (size, groups), not {entry.chunks!r}')
    key = entry.collective, entry.name
    taken = _algorithms.get(key)
    if taken and _origin(taken) != _origin(entry):
        raise InvalidArgument(f"{entry.collective} has an algorithm {entry.name!r} already: choose another name")
    _algorithms[key] = entry


def add_family(entry: Algorithm, build: Callable[..., Algorithm]) -> None:
    """Enter an algorithm that takes others, or numbers: `find(collective, "name(a, 2)")` returns `build("a", "2")`."""
    add(entry)
    add_builder(entry.collective, entry.name, build)


def add_builder(collective: str, name: str, build: Callable[..., Algorithm]) -> None:
    """Enter an algorithm that there is with what stands in brackets alone, and which `names` therefore leaves out."""
    _families[collective, name] = build


def find(collective: str, name: str | Callable[[Any], None]) -> Algorithm:
    """Return the algorithm of that name, or a user's own function of a view as one.

    Raises:
        InvalidArgument: there is none; the message lists those there are.
    """
    contract(collective)
    _load()
    if callable(name):
        return _of_function(collective, name)
    base, _, rest = name.replace(" ", "").partition("(")
    if not has(collective, base):
        raise InvalidArgument(f"{collective} has no algorithm {base!r}; it has: {', '.join(known(collective))}")
    found, build = _algorithms.get((collective, base)), _families.get((collective, base))
    if found and not rest:
        return found
    if build is None or not rest.endswith(")"):
        why = f"{base} takes nothing in brackets"
        if build:
            why = "a bracket is not closed" if rest else f"say in brackets what {base} is for"
        raise InvalidArgument(f"{name!r} names no algorithm: {why}")
    return build(*_parts(rest[:-1]))


def has(collective: str, name: str) -> bool:
    """Return whether a collective has an algorithm of this name, or those whose names begin so, before a bracket.

    A name that pycomm does not know is looked for among what other packages bring.

    Raises:
        InvalidArgument: one brings it, and cannot be loaded.
    """
    _load()
    there = (collective, name) in _algorithms or (collective, name) in _families
    return there or (_bring(name) and (collective, name) in _algorithms)


def brought() -> list[tuple[EntryPoint, str]]:
    """Load what other packages bring, and return the entry points, each with what is wrong with it, if anything is."""
    from .. import plugins  # here: most never ask

    told = []
    for point in plugins.found(plugins.ALGORITHMS):
        try:
            _bring(point.name)
        except InvalidArgument as why:
            told.append((point, str(why)))
        else:
            told.append((point, ""))
    return told


def names(collective: str) -> list[str]:
    """Return the names of the algorithms for a collective, in alphabetical order."""
    return [entry.name for entry in listing() if entry.collective == contract(collective).name]


def known(collective: str) -> list[str]:
    """Return what `find` takes, for people: the names, and those that must be followed by something in brackets."""
    alone = names(collective)
    return alone + [f"{name}(...)" for of, name in sorted(_families) if of == collective and name not in alone]


def listing() -> list[Algorithm]:
    """Return all algorithms, by collective and name."""
    _load()
    return [_algorithms[key] for key in sorted(_algorithms)]


def _of_function(collective: str, write: Write) -> Algorithm:
    entered = [entry for entry in _algorithms.values() if entry.write is write]
    for entry in entered:
        if entry.collective == collective:
            return entry
    if entered:
        raise InvalidArgument(f"{write.__name__} is entered for {entered[0].collective}, not for {collective}")
    return Algorithm(getattr(write, "__name__", "function"), collective, write, 1, _about(write))


def _parts(inner: str) -> list[str]:
    """Return what stands between the commas that are in no bracket: of "a,b(1,2)" the two parts a and b(1,2)."""
    parts, depth = [""], 0
    for char in inner:
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _origin(entry: Algorithm) -> tuple[str, str]:
    return entry.write.__module__, entry.write.__qualname__


def _about(write: Callable[..., None]) -> str:
    return (inspect.getdoc(write) or "").partition("\n")[0]


def _load() -> None:
    importlib.import_module("pycomm.algorithms")


@functools.cache
def _bring(name: str) -> bool:
    """Load the algorithms of this name that another package brings; return whether one does."""
    from .. import plugins  # here: most never ask

    point = plugins.named(plugins.ALGORITHMS, name)
    if point is None:
        return False
    plugins.load(point)  # which enters it
    if not any(named == name for _, named in _algorithms):
        raise InvalidArgument(
            f"{point.value} of {plugins.package(point)} should enter an algorithm called {name}, and enters none"
        )
    return True
