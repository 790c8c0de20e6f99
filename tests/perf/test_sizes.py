"""Sizes are read, written and swept as nccl-tests does."""

from __future__ import annotations

import pytest

from pycomm.errors import InvalidArgument
from pycomm.perf.sizes import format_size, parse_size, sweep


@pytest.mark.parametrize(
    ("text", "size"),
    [("8", 8), ("128M", 128 << 20), ("1G", 1 << 30), ("64k", 65536), ("1.5K", 1536), ("2 MB", 2 << 20), ("4KiB", 4096)],
)
def test_sizes_are_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-8", "8X", "1.0001K", "eight", "8 8"])
def test_nonsense_is_refused_by_name(text):
    with pytest.raises(InvalidArgument, match=repr(text)[1:-1] or "size"):
        parse_size(text)


@pytest.mark.parametrize("size", [1, 8, 1000, 1024, 1536, 1 << 20, 3 << 30, 1 << 40])
def test_spelling_reads_back(size):
    assert parse_size(format_size(size)) == size


def test_sweeps():
    assert sweep(8, 128, factor=2) == [8, 16, 32, 64, 128]
    assert sweep(8, 100, factor=3) == [8, 24, 72]
    assert sweep(8, 30, step=10) == [8, 18, 28]
    assert sweep(8, 8, factor=2) == [8]


@pytest.mark.parametrize("bad", [{"factor": 1}, {"factor": 0}, {"step": 0}, {}])
def test_a_sweep_must_advance(bad):
    with pytest.raises(InvalidArgument):
        sweep(8, 16, **bad)


def test_a_sweep_has_its_bounds_in_order():
    with pytest.raises(InvalidArgument, match="-e at least -b"):
        sweep(16, 8, factor=2)
    with pytest.raises(InvalidArgument, match="-b must be at least 1"):
        sweep(0, 8, factor=2)
