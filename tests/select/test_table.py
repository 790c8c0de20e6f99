"""Tuning tables: what is written is read again, two become one, and what is wrong in a file is said with its place."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycomm.errors import InvalidArgument
from pycomm.selection.table import (
    Override,
    Residual,
    Table,
    dumps,
    find,
    load,
    loads,
    merge,
    parse_size,
    residuals_of,
    save,
)

RING = Residual("allreduce", "ring", "shm", 4, 1 << 16, 1.25, 3)
TABLE = Table(
    {"cpu": 'a "CPU" \\ of\nsome kind', "processors": 2, "transports": ["shm", "tcp"]},
    {"lends": True, "near": {"latency": 1e-7, "steps": [1, 2.5]}, "a.b": {"c d": {"e": -3}}},
    (RING, RING._replace(ranks=8, factor=0.5)),
    (Override("broadcast", (2, 8), (0, 1 << 14), "binomial", 2, 1), Override("scan", (0, 1 << 62), (0, 9), "chain")),
)  # fmt: skip


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    save(TABLE, tmp_path / "deep" / "x.toml")
    read = load(tmp_path / "deep" / "x.toml")
    assert dumps(read) == dumps(TABLE)
    assert read.digest == TABLE.digest != Table().digest
    assert (read.machine, read.calibration, read.residuals, read.choices) == (
        TABLE.machine, TABLE.calibration, TABLE.residuals, TABLE.choices,
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.toml"]


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_any_calibration_is_read_as_it_was_written(calibration: dict[str, object]) -> None:
    assert loads(dumps(Table(calibration=calibration))).calibration == calibration


def test_a_person_may_write_sizes_with_units_and_leave_out_what_fits_all() -> None:
    text = 'version = 1\nchoices = [{collective = "allreduce", algorithm = "ring", nbytes = ["64K", "1MiB"]}]'
    override = loads(text).override("allreduce", 1 << 20, 5)
    assert override == Override("allreduce", (0, 1 << 62), (1 << 16, 1 << 20), "ring")
    assert loads(text).override("allreduce", (1 << 20) + 1, 5) is None
    assert loads(text).override("broadcast", 1 << 20, 5) is None
    with pytest.raises(ValueError, match="64K"):
        parse_size("1.5K")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = 1\nmachine.x y = 3\n", "line 2"),
        ("", "version is None"),
        ("version = 2", "reads version 1"),
        ("version = 1\nresidual = 3", "no 'residual' in it"),
        ("version = 1\nmachine = 3", r"must be a section: \[machine\]"),
        ("version = 1\nchoices = 3", "must be a list"),
        ("version = 1\nchoices = [3]", "choices, number 1: expected keys"),
        ('version = 1\nchoices = [{collective = "gossip"}]', "no collective 'gossip'"),
        ('version = 1\nchoices = [{collective = "scan", algorithm = "rang"}]', "scan has no algorithm 'rang'; it has"),
        ('version = 1\nchoices = [{collective = "scan", algorithm = "chain", slices = 0}]', "slices must be a whole"),
        ('version = 1\nchoices = [{collective = "scan", algorithm = "chain", size = 3}]', "there is no 'size'"),
        ('version = 1\nchoices = [{collective = "scan", algorithm = "chain", ranks = [8, 2]}]', "ends before"),
        ('version = 1\nchoices = [{collective = "scan", algorithm = "chain", nbytes = ["8x", 9]}]', "first, last"),
        ("version = 1\nresiduals.scan = 3", r"must be a section: \[residuals.scan\]"),
        ("version = 1\nresiduals.scan.shm.chain = [{}]", "residuals.scan.shm.chain, number 1: ranks is missing"),
        ("version = 1\nresiduals.scan.shm.chain = [{ranks = 2, nbytes = [1]}]", "lists of the same length"),
        (
            "version = 1\nresiduals.scan.shm.chain = [{ranks = 2, nbytes = [1, 1], factor = [1, 1], samples = [1, 1]}]",
            "there are two for 1 bytes",
        ),
        (
            "version = 1\nresiduals.scan.shm.chain = [{ranks = 2, nbytes = [1], factor = [0], samples = [1]}]",
            "factor must be a number above 0, not 0.0",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=f"bad.toml is not usable: .*{why}"):
        load(tmp_path / "bad.toml")


def test_the_table_of_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert find() == Table()
    save(TABLE, tmp_path / "pycomm" / "tuning.toml")
    assert find().digest == TABLE.digest
    with pytest.raises(InvalidArgument, match="cannot be read"):
        find(str(tmp_path / "nowhere.toml"))


def test_merging_averages_by_samples_where_the_calibration_is_the_same() -> None:
    newer = Table({}, TABLE.calibration, (RING._replace(factor=1.25 * 16, samples=1),), TABLE.choices[:1])
    merged = merge(TABLE, newer)
    assert [r for r in merged.residuals if r.ranks == 4] == [RING._replace(factor=2.5, samples=4)]
    assert [r for r in merged.residuals if r.ranks == 8] == [TABLE.residuals[1]]
    assert merged.choices == TABLE.choices
    other = merge(TABLE, Table(calibration={"x": 1}, residuals=(RING,)))
    assert other.residuals == (RING,)
    assert other.choices == TABLE.choices


def test_residuals_are_means_of_sizes_up_to_the_double() -> None:
    found = [RING._replace(nbytes=n, factor=f, samples=1) for n, f in ((1 << 16, 1.0), ((1 << 17) - 1, 4.0))]
    assert residuals_of(found) == (RING._replace(factor=2.0, samples=2),)


def test_factors_are_interpolated_between_sizes_and_ranks_and_end_flat() -> None:
    table = Table(residuals=(
        RING._replace(nbytes=1 << 10, factor=1.0), RING._replace(nbytes=1 << 12, factor=4.0),
        RING._replace(ranks=16, nbytes=1 << 10, factor=16.0),
    ))  # fmt: skip

    def factor(ranks: int, nbytes: int) -> float:
        return table.factor("allreduce", "ring", "shm", ranks, nbytes)

    assert factor(4, 1 << 11) == pytest.approx(2.0)
    assert factor(4, 8) == factor(2, 1 << 10) == pytest.approx(1.0)
    assert factor(4, 1 << 30) == pytest.approx(4.0)
    assert factor(8, 1 << 10) == pytest.approx(4.0)
    assert factor(64, 0) == pytest.approx(16.0)
    assert table.factor("allreduce", "ring", "tcp", 4, 1 << 11) == 1.0
    steps = [factor(4, n) for n in range(1 << 10, 1 << 12, 64)]
    assert all(a <= b < 1.1 * a for a, b in itertools.pairwise(steps))
    assert math.isclose(steps[0], 1.0)
    assert table.factor("allreduce", "bruck", "shm", 4, 1 << 11) == factor(4, 1 << 11)
    assert table.factor("broadcast", "ring", "shm", 4, 1 << 11) == 1.0
