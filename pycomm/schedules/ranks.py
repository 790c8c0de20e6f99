"""One run of an algorithm for all the ranks that take the same way through it: a rank number with many values.

An algorithm is run with a `Ranks` in the place of its rank. It computes as a number does, at once for all ranks that go
the same way, the `Path`. Where they would part (a condition that holds for some only, a number that must be one) the
run is given up, and the algorithm is run again for each way, with those ranks that take it. So a run that ends has done
what each of its ranks alone would do. What a `Ranks` cannot do ends in an error; then the ranks are run one by one,
with plain numbers, and it either works or is an error of the algorithm. (Only of what type its rank is, an algorithm
must not ask.)
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.int64]
T = TypeVar("T")

_MOST = 1 << 62  # what is larger does not fit into the 64 bits of a vector, and is left to Python


class _Split(BaseException):
    """Leaves a run whose ranks go different ways; not an Exception, so that algorithms do not catch it."""


class Path:
    """The ranks that one run of an algorithm is for.

    Attributes:
        ranks: which, ascending.
        size: of how many.
    """

    def __init__(self, ranks: Vector, size: int) -> None:
        self.ranks = ranks
        self.size = size
        self.parts: list[Vector] = []

    @property
    def rank(self) -> Any:
        """The rank number: a plain one if the path has one rank only."""
        if len(self.ranks) == 1:
            return int(self.ranks[0])
        return Ranks(self, lambda: self.ranks, self.size, shift=0)

    def number(self, values: Vector) -> Any:
        """Return values, one a rank, as a number: a plain one if they are all the same."""
        if (values == values[0]).all():
            return int(values[0])
        return Ranks(self, lambda: values, int(np.abs(values).max()))

    def agree(self, values: npt.NDArray[Any]) -> int:
        """Return the value that all ranks have; where they differ, split the path."""
        if not (values == values[0]).all():
            order = np.argsort(values, kind="stable")
            starts = np.flatnonzero(np.diff(values[order])) + 1
            self.split([self.ranks[part] for part in np.split(order, starts)])
        return int(values[0])

    def split(self, parts: list[Vector]) -> None:
        """Give this run up for several others."""
        self.parts = parts
        raise _Split

    def split_all(self) -> None:
        """Give this run up for one of each rank."""
        self.split(np.split(self.ranks, len(self.ranks)))


class Ranks:
    """A number, or an array of numbers, of which each rank of a path has its own; computed when somebody looks.

    Attributes:
        path: of whose ranks.
        bound: no value is larger, in either direction.
        shape: of each rank's array; () for a number.
        shift: if it is known to be, modulo the number of ranks, the rank itself and this; else None.
    """

    __slots__ = ("_make", "_values", "bound", "path", "shape", "shift")
    __array_ufunc__ = None  # numpy's arrays leave operations with it to it

    def __init__(
        self,
        path: Path,
        make: Callable[[], Vector],
        bound: int,
        shape: tuple[int, ...] = (),
        shift: int | None = None,
    ) -> None:
        self.path = path
        self.bound = bound
        self.shape = shape
        self.shift = shift
        self._make = make
        self._values: Vector | None = None

    @property
    def values(self) -> Vector:
        """The values, of shape (ranks of the path, *shape)."""
        if self._values is None:
            self._values = self._make()
        return self._values

    def __bool__(self) -> bool:
        self._must_be_a_number()
        return bool(self.path.agree(self.values != 0))

    def __index__(self) -> int:
        self._must_be_a_number()
        return self.path.agree(self.values)

    __int__ = __index__

    def __str__(self) -> str:
        return str(int(self))

    def __format__(self, spec: str) -> str:
        return format(int(self), spec)

    def __hash__(self) -> int:  # who keeps something by a number, in a dict or a cache, gets plain numbers
        self.path.split_all()
        raise AssertionError

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a number has no length")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Ranks:
        if not self.shape:
            raise TypeError("a number has no items")
        keys = key if isinstance(key, tuple) else (key,)
        shape = np.broadcast_to(np.int8(0), self.shape)[keys].shape
        return Ranks(self.path, lambda: self.values[(slice(None), *keys)], self.bound, shape)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in (np.stack, np.concatenate):
            return NotImplemented
        parts = args[0]
        axis = kwargs["axis"] if "axis" in kwargs else [*args, 0][1]
        shapes = [x.shape if isinstance(x, Ranks) else np.shape(x) for x in parts]
        shape = function([np.broadcast_to(np.int8(0), s) for s in shapes], axis=axis).shape
        n = len(self.path.ranks)

        def make() -> Any:
            values = [x.values if isinstance(x, Ranks) else np.asarray(x) for x in parts]
            spread = [np.broadcast_to(x, (n, *s)) for x, s in zip(values, shapes, strict=True)]
            return function(spread, axis=axis + (axis >= 0))

        return Ranks(self.path, make, max(_bound(x) for x in parts), shape)

    def __add__(self, other: Any) -> Any:
        if type(other) is int and self.shift is not None:
            return Ranks(
                self.path, lambda: self.values + other, self.bound + abs(other), self.shape, self.shift + other
            )
        return _operate(operator.add, operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other if type(other) is int else _operate(operator.sub, operator.add, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _operate(operator.sub, operator.add, other, self)

    def __mod__(self, other: Any) -> Any:
        result = _operate(operator.mod, lambda a, b: b, self, _divisor(other))
        if type(other) is int and other == self.path.size:
            result.shift = self.shift
        return result

    def __rmod__(self, other: Any) -> Any:
        return _operate(operator.mod, lambda a, b: b, other, _divisor(self))

    def __floordiv__(self, other: Any) -> Any:
        return _operate(operator.floordiv, lambda a, b: a, self, _divisor(other))

    def __rfloordiv__(self, other: Any) -> Any:
        return _operate(operator.floordiv, lambda a, b: a, other, _divisor(self))

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __mul__(self, other: Any) -> Any:
        return _operate(operator.mul, operator.mul, self, other)

    def __lshift__(self, other: Any) -> Any:
        places = _places(other)
        return _operate(operator.lshift, lambda a, b: a << places, self, other)

    def __rlshift__(self, other: Any) -> Any:
        places = _places(self)
        return _operate(operator.lshift, lambda a, b: a << places, other, self)

    def __rshift__(self, other: Any) -> Any:
        _places(other)
        return _operate(operator.rshift, lambda a, b: a, self, other)

    def __rrshift__(self, other: Any) -> Any:
        _places(self)
        return _operate(operator.rshift, lambda a, b: a, other, self)

    def __and__(self, other: Any) -> Any:
        return _operate(operator.and_, _bits, self, other)

    def __or__(self, other: Any) -> Any:
        return _operate(operator.or_, _bits, self, other)

    def __xor__(self, other: Any) -> Any:
        return _operate(operator.xor, _bits, self, other)

    __rmul__, __rand__, __ror__, __rxor__ = __mul__, __and__, __or__, __xor__

    def __neg__(self) -> Any:
        return 0 - self

    def __invert__(self) -> Any:
        return -1 - self

    def __lt__(self, other: Any) -> Any:
        return _compare(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return _compare(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return _compare(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return _compare(operator.ge, self, other)

    def __eq__(self, other: object) -> Any:
        return _compare(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return _compare(operator.ne, self, other)

    def bit_length(self) -> Ranks:
        """Return the number of bits of a number, as int.bit_length does."""
        self._must_be_a_number()
        if self.bound >= 1 << 53:
            raise TypeError("too large")
        return Ranks(self.path, lambda: np.frexp(np.abs(self.values).astype(np.float64))[1].astype(np.int64), 64)

    def _must_be_a_number(self) -> None:
        if self.shape:
            raise TypeError("an array is no number")


def each_path(size: int, run: Callable[[Path], T]) -> list[T]:
    """Call `run` with paths until each rank was on one that ended; return what was returned for those.

    An error is that of the lowest rank that has one, as if the ranks were run one after the other.
    """
    todo = [(0, np.arange(size, dtype=np.int64))]
    done = []
    while todo:
        path = Path(heappop(todo)[1], size)
        try:
            done.append(run(path))
            continue
        except _Split:
            pass
        except Exception:
            if len(path.ranks) == 1:
                raise
            path.parts = np.split(path.ranks, len(path.ranks))
        for part in path.parts:
            heappush(todo, (int(part[0]), part))
    return done


def _operate(op: Callable[[Any, Any], Any], bound: Callable[[int, int], int], left: Any, right: Any) -> Any:
    """Return an operation of which at least one side is a Ranks; what its result is bounded by follows from theirs."""
    if not (_is_number(left) and _is_number(right)):
        return NotImplemented
    path = left.path if isinstance(left, Ranks) else right.path
    most = bound(_bound(left), _bound(right))
    if most >= _MOST:
        raise TypeError("too large for a vector")
    if any(isinstance(x, Ranks) and x.path is not path for x in (left, right)):
        raise TypeError("the number of another run")
    shape = np.broadcast_shapes(*(getattr(x, "shape", ()) for x in (left, right)))
    return Ranks(path, lambda: op(_lifted(left, len(shape)), _lifted(right, len(shape))), most, shape)


def _compare(op: Callable[[Any, Any], Any], left: Ranks, right: Any) -> Any:
    if getattr(right, "shape", ()) or left.shape:
        raise TypeError("arrays are not compared")  # numpy's booleans compute in other ways than Python's
    return _operate(lambda a, b: op(a, b).astype(np.int64), lambda a, b: 1, left, right)


def _is_number(x: Any) -> bool:
    return isinstance(x, Ranks | int | np.integer) or (isinstance(x, np.ndarray) and x.dtype.kind in "iu")


def _bound(x: Any) -> int:
    if isinstance(x, Ranks):
        return x.bound
    return int(np.abs(x).max(initial=0)) if isinstance(x, np.ndarray) else abs(int(x))


def _lifted(x: Any, ndim: int) -> Any:
    """Return values as numpy combines them with those of arrays of that many dimensions a rank."""
    if not isinstance(x, Ranks):
        return np.asarray(x, np.int64)
    return x.values.reshape(len(x.values), *(1,) * (ndim - len(x.shape)), *x.shape)


def _divisor(x: Any) -> Any:
    if _is_number(x) and np.any((x.values if isinstance(x, Ranks) else np.asarray(x)) == 0):
        raise ZeroDivisionError
    return x


def _places(x: Any) -> int:
    """Return by how many bits something is shifted at most, if numpy and Python agree on what that means."""
    values = x.values if isinstance(x, Ranks) else np.asarray(x)
    if _is_number(x) and (np.any(values < 0) or np.any(values > 62)):
        raise TypeError("no such shift of 64 bits")
    return int(values.max())


def _bits(a: int, b: int) -> int:
    return (1 << max(a, b).bit_length()) - 1
