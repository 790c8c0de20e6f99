"""Datatypes with mpi4py's names: an element's numpy dtype, and for derived ones where their elements lie in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

Offsets = npt.NDArray[np.int64]


class Datatype:
    """What a buffer `[data, type]` or `[data, count, type]` is made of.

    A derived one is a pattern of elements of one dtype. What is sent is gathered from the pattern into contiguous
    memory, and what is received is put back into it, by numpy: one copy on each side.

    Attributes:
        base: numpy's dtype of an element.
        offsets: where the elements of one item lie, in elements from its beginning; None: it is one element.
        name: for people.
    """

    def __init__(
        self, base: npt.DTypeLike, name: str = "", offsets: Offsets | None = None, lb: int = 0, extent: int = 1
    ) -> None:
        self.base: np.dtype[Any] = np.dtype(base)
        self.name = name or self.base.name
        self.offsets = offsets
        self._lb, self._extent = lb, extent

    def __repr__(self) -> str:
        return f"pycomm.MPI.Datatype({self.name})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datatype):
            return NotImplemented
        mine = (self.base, self._lb, self._extent, self.elements.tolist())
        return mine == (other.base, other._lb, other._extent, other.elements.tolist())

    def __hash__(self) -> int:
        return hash((self.base, self._extent, self.elements.tobytes()))

    @property
    def elements(self) -> Offsets:
        """Where the elements of one item lie, in elements from its beginning."""
        return np.zeros(1, np.int64) if self.offsets is None else self.offsets

    def index(self, count: int) -> Offsets:
        """Return where the elements of `count` items lie, in elements from the buffer's beginning."""
        starts = np.arange(count, dtype=np.int64) * self._extent
        return (starts[:, None] + self.elements).reshape(-1)

    # ---- facts --------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of data in an item, without gaps."""
        return len(self.elements) * self.base.itemsize

    @property
    def extent(self) -> int:
        """Bytes from an item to the next one."""
        return self._extent * self.base.itemsize

    @property
    def lb(self) -> int:
        """Where an item begins, in bytes from its address."""
        return self._lb * self.base.itemsize

    @property
    def ub(self) -> int:
        """Where an item ends, in bytes from its address."""
        return self.lb + self.extent

    @property
    def is_named(self) -> bool:
        """Whether this is a predefined type."""
        return self.offsets is None

    is_predefined = is_named

    @property
    def itemsize(self) -> int:
        """As `size`."""
        return self.size

    @property
    def typestr(self) -> str:
        """numpy's code of an element's dtype, e.g. "<f8"."""
        return self.base.str

    @property
    def typechar(self) -> str:
        """numpy's character of an element's dtype, e.g. "d"."""
        return self.base.char

    def tocode(self) -> str:
        """Return numpy's code of a predefined type, e.g. "<f8"."""
        return self.base.str

    @classmethod
    def fromcode(cls, code: str) -> Datatype:
        """Return the type of a numpy dtype, given by its code."""
        return of_dtype(code)

    def Get_size(self) -> int:
        """Return the bytes of data in an item."""
        return self.size

    def Get_extent(self) -> tuple[int, int]:
        """Return where an item begins, and the bytes from one to the next."""
        return self.lb, self.extent

    def Get_true_extent(self) -> tuple[int, int]:
        """Return where an item's first element begins, and the bytes from there to the end of its last one."""
        if not len(self.elements):
            return 0, 0
        first, last = int(self.elements.min()), int(self.elements.max())
        return first * self.base.itemsize, (last - first + 1) * self.base.itemsize

    def Get_name(self) -> str:
        """Return the name."""
        return self.name

    def Set_name(self, name: str) -> None:
        """Give it a name."""
        self.name = name

    def Commit(self) -> Datatype:
        """Return the type; nothing need be done."""
        return self

    def Free(self) -> None:
        """Do nothing: Python does it."""

    def Dup(self) -> Datatype:
        """Return an equal type."""
        return Datatype(self.base, self.name, self.offsets, self._lb, self._extent)

    # ---- packing ------------------------------------------------------------------------------------------------

    def Pack(self, inbuf: Any, outbuf: Any, position: int, comm: Any) -> int:
        """Copy items to a row of bytes, one after the other without gaps, and return where they end.

        Args:
            inbuf: items of this type, as a send takes them.
            outbuf: memory for bytes; Pack_size says how many an item needs.
            position: the byte at which the first item begins.
            comm: over which the bytes will be sent, as PACKED.
        """
        from .buffer import as_array  # here: buffers are made of datatypes

        items = as_array([inbuf, self] if not isinstance(inbuf, (list, tuple)) else inbuf, "inbuf")
        row = as_array(outbuf, "outbuf", writes=True).reshape(-1).view(np.uint8)
        end = _end(position, items.nbytes, len(row), "outbuf")
        row[position:end] = items.reshape(-1).view(np.uint8)
        return end

    def Unpack(self, inbuf: Any, position: int, outbuf: Any, comm: Any) -> int:
        """Copy items back from a row of bytes that Pack has written, and return where they end.

        Args:
            inbuf: the bytes.
            position: the byte at which the first item begins.
            outbuf: memory for items of this type, as a receive takes them, which all come.
            comm: over which the bytes have come.
        """
        from .buffer import as_array
        from .layout import give_back

        row = as_array(inbuf, "inbuf").reshape(-1).view(np.uint8)
        into = [outbuf, self] if not isinstance(outbuf, (list, tuple)) else outbuf
        items = as_array(into, "outbuf", writes=True)
        end = _end(position, items.nbytes, len(row), "inbuf")
        items.reshape(-1).view(np.uint8)[:] = row[position:end]
        give_back(items)
        return end

    def Pack_size(self, count: int, comm: Any) -> int:
        """Return how many bytes `count` items need in a row of bytes."""
        return count * self.size

    # ---- made of others -----------------------------------------------------------------------------------------

    def Create_contiguous(self, count: int) -> Datatype:
        """Return the type of `count` items, one after the other."""
        return self._indexed([count], np.zeros(1, np.int64), "contiguous")

    def Create_vector(self, count: int, blocklength: int, stride: int) -> Datatype:
        """Return the type of `count` blocks of `blocklength` items, `stride` items apart."""
        return self._indexed([blocklength] * count, np.arange(count) * stride * self._extent, "vector")

    def Create_hvector(self, count: int, blocklength: int, stride: int) -> Datatype:
        """Return the type of `count` blocks of `blocklength` items, `stride` bytes apart."""
        return self._indexed([blocklength] * count, np.arange(count) * self._whole(stride), "vector")

    def Create_indexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Datatype:
        """Return the type of blocks of items, which begin `displacements` items from the beginning."""
        return self._indexed(blocklengths, np.asarray(displacements, np.int64) * self._extent, "indexed")

    def Create_hindexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Datatype:
        """Return the type of blocks of items, which begin `displacements` bytes from the beginning."""
        return self._indexed(blocklengths, np.array([self._whole(at) for at in displacements], np.int64), "indexed")

    def Create_indexed_block(self, blocklength: int, displacements: Sequence[int]) -> Datatype:
        """Return the type of blocks of `blocklength` items, which begin `displacements` items from the beginning."""
        return self.Create_indexed([blocklength] * len(displacements), displacements)

    def Create_hindexed_block(self, blocklength: int, displacements: Sequence[int]) -> Datatype:
        """Return the type of blocks of `blocklength` items, which begin `displacements` bytes from the beginning."""
        return self.Create_hindexed([blocklength] * len(displacements), displacements)

    def Create_subarray(
        self, sizes: Sequence[int], subsizes: Sequence[int], starts: Sequence[int], order: int = 0
    ) -> Datatype:
        """Return the type of a part of an array.

        Args:
            sizes: the array's shape.
            subsizes: the part's shape.
            starts: where the part begins, in each dimension.
            order: ORDER_C or ORDER_FORTRAN.
        """
        if not len(sizes) == len(subsizes) == len(starts):
            raise InvalidArgument("sizes, subsizes and starts must have one number for each dimension")
        if any(part < 0 or at < 0 or at + part > all_ for all_, part, at in zip(sizes, subsizes, starts, strict=True)):
            raise InvalidArgument(f"a part of shape {list(subsizes)} from {list(starts)} is not in {list(sizes)}")
        whole = np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes, order="F" if order == ORDER_FORTRAN else "C")
        part = whole[tuple(slice(at, at + size) for at, size in zip(starts, subsizes, strict=True))]
        items = np.sort(part, axis=None)  # as they lie in memory
        return self._of(items * self._extent, 0, math.prod(sizes) * self._extent, "subarray")

    def Create_resized(self, lb: int, extent: int) -> Datatype:
        """Return this type with another beginning and another distance from an item to the next, in bytes."""
        return Datatype(self.base, f"resized {self.name}", self.elements, self._whole(lb), self._whole(extent))

    @classmethod
    def Create_struct(
        cls, blocklengths: Sequence[int], displacements: Sequence[int], datatypes: Sequence[Datatype]
    ) -> Datatype:
        """Return the type of blocks of different types, which begin `displacements` bytes from the beginning.

        Unless all types have one dtype it is a pattern of bytes, to which no reduction applies.
        """
        if not len(blocklengths) == len(displacements) == len(datatypes):
            raise InvalidArgument("blocklengths, displacements and datatypes must be equally many")
        base = datatypes[0].base if len({each.base for each in datatypes}) == 1 else np.dtype(np.uint8)
        parts = [each._in_units_of(base) for each in datatypes]
        offsets = [
            part.index(length) + at // base.itemsize
            for part, length, at in zip(parts, blocklengths, displacements, strict=True)
        ]
        end = max((int(each.max()) + 1 for each in offsets if len(each)), default=0)
        aligned = max(each.base.alignment for each in datatypes) // base.itemsize or 1  # as a compiler would pad it
        return cls(base, "struct", np.concatenate(offsets), 0, -(-end // aligned) * aligned)

    def _in_units_of(self, base: np.dtype[Any]) -> Datatype:
        """Return the type as a pattern of bytes, or itself if its elements are what is asked for."""
        if base == self.base:
            return self
        size = self.base.itemsize
        offsets = (self.elements[:, None] * size + np.arange(size)).reshape(-1)
        return Datatype(base, self.name, offsets, self.lb, self.extent)

    def _whole(self, nbytes: int) -> int:
        """Return a number of bytes in elements."""
        if nbytes % self.base.itemsize:
            raise InvalidArgument(f"{nbytes} bytes are no whole number of {self.base}: use BYTE, or another base")
        return nbytes // self.base.itemsize

    def _indexed(self, lengths: Sequence[int], starts: Offsets, name: str) -> Datatype:
        if len(lengths) != len(starts) or any(length < 0 for length in lengths):
            raise InvalidArgument("blocks need a length of 0 or more and a displacement each")
        runs = [start + self._extent * np.arange(length) for start, length in zip(starts, lengths, strict=True)]
        items = np.concatenate([*runs, np.empty(0)]).astype(np.int64)
        low = int(items.min()) if len(items) else 0
        high = int(items.max()) + self._extent if len(items) else 0
        return self._of(items, low, high - low, name)

    def _of(self, items: Offsets, lb: int, extent: int, name: str) -> Datatype:
        """Return the type of items of this one that begin at `items`, in elements."""
        offsets = (items[:, None] + self.elements).reshape(-1)
        return Datatype(self.base, f"{name} of {self.name}", offsets, lb, extent)


def _end(position: int, nbytes: int, room: int, what: str) -> int:
    if not 0 <= position <= position + nbytes <= room:
        raise InvalidArgument(f"{what} has {room} bytes, and the items take {nbytes} from byte {position} on")
    return position + nbytes


ORDER_C, ORDER_FORTRAN = 0, 1


def _pair(value: str) -> np.dtype[Any]:
    """Return a C struct of a value and an int, as MPI's pair types are."""
    return np.dtype([("value", value), ("index", "i4")], align=True)


# What mpi4py calls them; on the 64-bit Linux that pycomm is for, a long has eight bytes.
NAMED = {
    name: Datatype(base, name)
    for base, names in {
        "b1": "C_BOOL CXX_BOOL BOOL LOGICAL1",
        "i1": "SIGNED_CHAR INT8_T INTEGER1 SINT8_T",
        "u1": "BYTE PACKED CHAR CHARACTER UNSIGNED_CHAR UINT8_T",
        "i2": "SHORT SIGNED_SHORT INT16_T INTEGER2 SINT16_T",
        "u2": "UNSIGNED_SHORT UINT16_T",
        "i4": "INT SIGNED_INT INT32_T INTEGER INTEGER4 F_INT SINT32_T",
        "u4": "UNSIGNED UNSIGNED_INT UINT32_T",
        "i8": "LONG LONG_LONG SIGNED_LONG SIGNED_LONG_LONG INT64_T INTEGER8 SINT64_T AINT OFFSET COUNT",
        "u8": "UNSIGNED_LONG UNSIGNED_LONG_LONG UINT64_T",
        "f2": "FLOAT16_T REAL2",
        "f4": "FLOAT FLOAT32_T REAL REAL4 F_FLOAT",
        "f8": "DOUBLE FLOAT64_T DOUBLE_PRECISION REAL8 F_DOUBLE",
        "c8": "C_COMPLEX C_FLOAT_COMPLEX CXX_FLOAT_COMPLEX COMPLEX F_COMPLEX COMPLEX8",
        "c16": "C_DOUBLE_COMPLEX CXX_DOUBLE_COMPLEX DOUBLE_COMPLEX F_DOUBLE_COMPLEX COMPLEX16",
    }.items()
    for name in names.split()
} | {
    "FLOAT_INT": Datatype(_pair("f4"), "FLOAT_INT"),
    "DOUBLE_INT": Datatype(_pair("f8"), "DOUBLE_INT"),
    "LONG_INT": Datatype(_pair("i8"), "LONG_INT"),
    "SHORT_INT": Datatype(_pair("i2"), "SHORT_INT"),
    "INT_INT": Datatype(_pair("i4"), "INT_INT"),
    "TWOINT": Datatype(_pair("i4"), "TWOINT"),
}
BYTE = NAMED["BYTE"]
_BY_DTYPE = {datatype.base: datatype for datatype in reversed(NAMED.values())}


def of_dtype(dtype: npt.DTypeLike) -> Datatype:
    """Return the type of a numpy dtype: a predefined one, where there is one."""
    known = np.dtype(dtype)
    return _BY_DTYPE.get(known) or Datatype(known)
