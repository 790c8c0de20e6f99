"""The numbers that people write of machines: bandwidths, latencies, counts and factors, read from text."""

from __future__ import annotations

import math
import re
from typing import NewType

from ..errors import InvalidArgument

Rate = NewType("Rate", float)  # bytes per second
Seconds = NewType("Seconds", float)

_PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_RATES = {f"{prefix}{unit}": factor * size for prefix, factor in _PREFIXES.items() for unit, size in
          (("B", 1.0), ("bit", 0.125))}  # fmt: skip
_SIZES = {f"{prefix}B": float(factor) for prefix, factor in _PREFIXES.items()}
_FLOPS = {f"{prefix}FLOPS": float(factor) for prefix, factor in (_PREFIXES | {"P": 10**15}).items()}
_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def rate(text: str) -> Rate:
    """Read a bandwidth, such as 400Gbit or 12.5GB (a second, which may be written: 12.5GB/s); K is 1000; or inf."""
    if text.strip() == "inf":
        return Rate(math.inf)
    return Rate(_number_with_unit(text.strip().removesuffix("/s"), _RATES, "a bandwidth", "400Gbit, 12.5GB or inf"))


def seconds(text: str) -> Seconds:
    """Read a time, such as 1.5us."""
    return Seconds(_number_with_unit(text.strip(), _TIMES, "a time", "1.5us, 300ns or 10ms", least=0.0))


def size(text: str) -> float:
    """Read bytes, such as 80GB; K is 1000."""
    return _number_with_unit(text.strip(), _SIZES, "a size", "80GB")


def flops(text: str) -> float:
    """Read operations of floating point numbers a second, such as 989TFLOPS."""
    return _number_with_unit(text.strip(), _FLOPS, "a speed", "989TFLOPS")


def count(text: str) -> int:
    """Read a whole number, 1 or more."""
    if not re.fullmatch(r"0*[1-9]\d*", text.strip()):
        raise InvalidArgument(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def factor(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidArgument(f"{text!r} is not a number above 0")
    return value


def say_rate(value: float) -> str:
    """Write a bandwidth: 50 GB/s."""
    if math.isinf(value):
        return "inf"
    for unit in ("TB", "GB", "MB", "KB"):
        if value >= 0.9995 * _RATES[unit]:
            return f"{value / _RATES[unit]:.4g} {unit}/s"
    return f"{value:.4g} B/s"


def say_seconds(value: float) -> str:
    """Write a time: 2.7 us."""
    for unit in ("s", "ms", "us"):
        if value >= 0.9995 * _TIMES[unit]:
            return f"{value / _TIMES[unit]:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def _number_with_unit(text: str, units: dict[str, float], what: str, such_as: str, least: float = 1e-300) -> float:
    found = re.fullmatch(r"([\d.]+(?:e[+-]?\d+)?)\s*([A-Za-z]+)", text)
    try:
        value = float(found[1]) * units[found[2]] if found else math.nan
    except (KeyError, ValueError):
        value = math.nan
    if not least <= value < math.inf:
        raise InvalidArgument(f"{text!r} is not {what}, such as {such_as}; units: {', '.join(units)}")
    return value
