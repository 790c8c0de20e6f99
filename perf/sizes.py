"""Message sizes as nccl-tests spells them: `8`, `128M`, `1G`, powers of 1024, swept by a factor or by a step."""

from __future__ import annotations

import re

from pycomm.errors import InvalidArgument

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size such as `8`, `64k`, `128M` or `1.5G` (powers of 1024).

    Raises:
        InvalidArgument: the text is not such a size, or is not a whole number of bytes.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"{text!r} is not a size: write bytes with K, M, G or T behind, for example 8, 64K, 1G")
    size = float(found[1]) * _UNITS[found[2].upper()]
    if not size.is_integer():
        raise InvalidArgument(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """The shortest exact spelling of a size that `parse_size` reads back: 1048576 is `1M`."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def sweep(smallest: int, largest: int, *, factor: int | None = None, step: int | None = None) -> list[int]:
    """The sizes to measure, from `smallest` to `largest` bytes, multiplied by `factor` or increased by `step`.

    Raises:
        InvalidArgument: the bounds are in the wrong order, or the factor or step does not advance.
    """
    if not 0 < smallest <= largest:
        raise InvalidArgument(f"sizes run from {smallest} to {largest} bytes: -b must be at least 1 and -e at least -b")
    if factor is not None and factor < 2:
        raise InvalidArgument(f"the factor (-f) is {factor}: it must be at least 2")
    if step is not None and step < 1:
        raise InvalidArgument(f"the step (-i) is {step} bytes: it must be at least 1")
    if factor is None and step is None:
        raise InvalidArgument("a sweep needs a factor (-f) or a step (-i)")
    sizes = []
    size = smallest
    while size <= largest:
        sizes.append(size)
        size = size * factor if factor is not None else size + (step or 1)
    return sizes
