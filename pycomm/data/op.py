"""Op: what combines two operands. Those of the core run in its kernels; a user's own, MINLOC and MAXLOC in Python."""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..core import check, dtype_code, ffi, lib
from ..errors import InvalidArgument
from .datatype import of_dtype

Array = npt.NDArray[Any]
Combine = Callable[[Array, Array], None]  # (left, inout): inout becomes left op inout, element by element

# MPI_User_function: in, inout, how many elements, and the datatype, which is NULL here.
_C_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.c_void_p)
_MOST = (1 << 31) - 1  # elements that a C function is given at once
_codes = itertools.count(lib.PCM_NOPS)


class Op(int):
    """A reduction. It is a number, which the core knows if it is less than PCM_NOPS.

    Called with two objects it combines them, as the lower-case methods do.
    """

    name: str
    _objects: Callable[[Any, Any], Any] | None
    _arrays: Combine | None
    _commutes: bool

    def __new__(
        cls,
        code: int,
        name: str,
        objects: Callable[[Any, Any], Any] | None = None,
        arrays: Combine | None = None,
        commutes: bool = True,
    ) -> Op:
        """Make the op with a code.

        Args:
            code: of the core, or beyond those.
            name: for people.
            objects: combines two Python objects; None: they cannot be combined.
            arrays: combines two arrays; None: the core does.
            commutes: whether the order of the operands does not matter.
        """
        self = super().__new__(cls, code)
        self.name, self._objects, self._arrays, self._commutes = name, objects, arrays, commutes
        return self

    def __repr__(self) -> str:
        return f"pycomm.{self.name}"

    def __reduce__(self) -> Any:
        if self.own:
            raise TypeError("a user's op cannot be pickled")
        return int, (int(self),)

    __str__ = __repr__

    def __call__(self, x: Any, y: Any) -> Any:
        """Return x op y."""
        if self._objects is None:
            raise InvalidArgument(f"{self.name} is for arrays: two objects cannot be combined by it")
        return self._objects(x, y)

    @classmethod
    def Create(cls, function: Callable[..., Any] | int, commute: bool = False) -> Op:
        """Return an op that a function defines; it must be associative.

        Reductions with it gather all operands in the order of ranks, on every rank that gets a result, and combine them
        there from the left to the right: (x0 op x1) op x2 ... So every rank gets the same, in the order that MPI asks
        for where an op does not commute, at the price of `size` times the memory.

        Args:
            function: called as function(in, inout, datatype) with two writable memories of bytes and the Datatype of
                their elements; `inout` becomes `in` op `inout`. The lower-case methods call function(x, y, None), and
                take what it returns. Or the address of a C function (MPI_User_function, given NULL as the datatype).
            commute: whether the order of the operands does not matter; the result does not depend on it here.
        """
        if isinstance(function, int):
            return cls(next(_codes), f"Op(0x{function:x})", None, _of_address(function), commute)
        if not callable(function):
            raise InvalidArgument(f"an op is made of a function, or the address of one, not of {function!r}")
        name = f"Op({getattr(function, '__name__', type(function).__name__)})"
        called = function
        return cls(next(_codes), name, lambda x, y: called(x, y, None), _of_function(called), commute)

    @classmethod
    def Create_premul_sum(cls, factor: complex) -> Op:
        """Return the sum of operands that each rank has multiplied by a factor, as NCCL's ncclRedOpCreatePreMulSum.

        The product is rounded to the operands' dtype before it is added; the sum itself is the core's. This rank's
        operand is copied, and left as it is.

        Args:
            factor: this rank's; ranks may have different ones. Of whole numbers a whole number.
        """
        return PremulSum(factor)

    @property
    def own(self) -> bool:
        """Whether Python combines, and not the core."""
        return self._arrays is not None

    @property
    def is_predefined(self) -> bool:
        """Whether it was not made by Create."""
        return self.name in NAMED

    @property
    def is_commutative(self) -> bool:
        """Whether the order of the operands does not matter."""
        return self._commutes

    def Is_commutative(self) -> bool:
        """Return whether the order of the operands does not matter."""
        return self._commutes

    def Free(self) -> None:
        """Do nothing: Python does it."""

    def combine(self, left: Array, inout: Array) -> None:
        """Make `inout` the result of left op inout; two arrays of one dtype and length."""
        if self._arrays is not None:
            self._arrays(left, inout)
            return
        if int(self) == lib.PCM_AVG:
            raise InvalidArgument("AVG divides by the number of ranks: it does not combine two operands")
        addresses = (ffi.cast("void *", each.ctypes.data) for each in (inout, left, inout))
        check(lib.pcm_reduce_local(dtype_code(inout.dtype), self, *addresses, inout.size))

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """Make `inoutbuf` the result of inbuf op inoutbuf, on this rank alone."""
        from .buffer import as_array  # here: buffers know nothing of ops
        from .layout import give_back

        left, inout = as_array(inbuf, "inbuf"), as_array(inoutbuf, "inoutbuf", writes=True)
        if left.dtype != inout.dtype or left.size != inout.size:
            raise InvalidArgument(
                f"inbuf has {left.size} elements of {left.dtype} and inoutbuf {inout.size} of {inout.dtype}"
            )
        self.combine(left.reshape(-1), inout.reshape(-1))
        give_back(inout)


class PremulSum(Op):
    """A sum of what each rank has multiplied by its factor. Made by Op.Create_premul_sum."""

    factor: complex

    def __new__(cls, factor: complex) -> PremulSum:
        """Make one with a factor."""
        self = cast(PremulSum, super().__new__(cls, next(_codes), f"PREMUL_SUM({factor})", None, _refuse))
        self.factor = factor
        return self

    def multiplied(self, array: Array) -> Array:
        """Return this rank's operand, times its factor."""
        factor = np.asarray(self.factor)
        whole = array.dtype.kind in "biu"
        if factor.ndim or (whole and factor.dtype.kind not in "biu"):
            raise InvalidArgument(f"the factor of a PREMUL_SUM of {array.dtype} must be one number of that kind")
        product: Array = np.multiply(array, factor.astype(array.dtype))
        return product


def _refuse(left: Array, inout: Array) -> None:
    raise InvalidArgument("PREMUL_SUM multiplies what a rank brings: it does not combine two operands")


def _of_function(function: Callable[..., Any]) -> Combine:
    def combine(left: Array, inout: Array) -> None:
        function(left.view(np.uint8).data, inout.view(np.uint8).data, of_dtype(inout.dtype))

    return combine


def _of_address(address: int) -> Combine:
    function = _C_FUNCTION(address)

    def combine(left: Array, inout: Array) -> None:
        for at in range(0, inout.size, _MOST):
            count = ctypes.c_int(min(_MOST, inout.size - at))
            offset = at * inout.itemsize
            function(left.ctypes.data + offset, inout.ctypes.data + offset, ctypes.byref(count), None)

    return combine


def _locate(better: Callable[[Any, Any], Any]) -> tuple[Callable[[Any, Any], Any], Combine]:
    """Return MINLOC or MAXLOC of two (value, index) and of two arrays of pairs; of equal values, the lower index."""

    def objects(x: Any, y: Any) -> Any:
        if x[0] == y[0]:
            return x[0], min(x[1], y[1])
        return tuple(x) if better(x[0], y[0]) else tuple(y)

    def arrays(left: Array, inout: Array) -> None:
        if inout.dtype.names is None or len(inout.dtype.names) != 2:
            raise InvalidArgument("MINLOC and MAXLOC take pairs: FLOAT_INT, DOUBLE_INT, ..., or a dtype of two fields")
        value, place = inout.dtype.names
        takes = better(left[value], inout[value])
        takes |= (left[value] == inout[value]) & (left[place] < inout[place])
        inout[takes] = left[takes]

    return objects, arrays


NAMED = {
    op.name: op
    for op in (
        Op(lib.PCM_SUM, "SUM", operator.add),
        Op(lib.PCM_PROD, "PROD", operator.mul),
        Op(lib.PCM_MIN, "MIN", lambda x, y: y if y < x else x),
        Op(lib.PCM_MAX, "MAX", lambda x, y: y if y > x else x),
        Op(lib.PCM_AVG, "AVG"),
        Op(lib.PCM_LAND, "LAND", lambda x, y: bool(x) & bool(y)),
        Op(lib.PCM_LOR, "LOR", lambda x, y: bool(x) | bool(y)),
        Op(lib.PCM_LXOR, "LXOR", lambda x, y: bool(x) ^ bool(y)),
        Op(lib.PCM_BAND, "BAND", operator.and_),
        Op(lib.PCM_BOR, "BOR", operator.or_),
        Op(lib.PCM_BXOR, "BXOR", operator.xor),
        Op(next(_codes), "MINLOC", *_locate(operator.lt)),
        Op(next(_codes), "MAXLOC", *_locate(operator.gt)),
    )
}


def is_own(op: int) -> bool:
    """Return whether Python, and not the core, combines by an op."""
    return isinstance(op, Op) and op.own
