"""What is printed is what nccl-tests prints, character for character; ratios, means and JSON are right."""

from __future__ import annotations

import json
import math

import pytest

from pycomm.perf import report
from pycomm.perf.cases import CASES
from pycomm.perf.coordinator import Sample
from pycomm.perf.results import geometric_mean, make_row, ratios, verdict


# What C's printf gives for nccl-tests' getFloatStr (src/util.cu).
@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (0.0, 7, "   0.00"),
        (3.14159, 7, "   3.14"),
        (1234.56, 7, "1234.56"),
        (12345.67, 7, "12345.7"),
        (123456.7, 7, " 123457"),
        (12345678.0, 7, "1.2e+07"),
        (0.004, 6, "  0.00"),
        (987.65, 6, "987.65"),
        (9876.5, 6, "9876.5"),
        (98765.4, 6, " 98765"),
        (123456.0, 6, "123456"),
        (1234567.0, 6, " 1e+06"),
    ],
)
def test_numbers_fit_as_in_nccl_tests(value, width, text):
    assert report.number(value, width) == text


def test_a_row_is_nccl_tests_row(row):
    out = row(nbytes=1048576, median=123.456, algbw_gbs=8.4935, busbw_gbs=12.740)
    into = row(nbytes=1048576, median=99.5, algbw_gbs=10.538, busbw_gbs=15.807, in_place=True)
    line = report.table_row(out, into, reduces=True, rooted=False, per_call=False)
    expected = (
        "     1048576        262144     float     sum      -1"
        "   123.46    8.49   12.74       0"
        "    99.50   10.54   15.81       0"
    )
    assert line == expected + "    N/A  pycomm"


def test_a_row_with_one_form_unchecked_and_a_limit(row):
    out = row(nbytes=64, collective="broadcast", op="sum", root=3, wrong=None, limit_fraction=0.617, median=2.0)
    line = report.table_row(out, None, reduces=False, rooted=True, per_call=False)
    assert line == (
        "          64            16     float    none       3"
        "     2.00    0.03    0.03     N/A"
        "      N/A     N/A     N/A     N/A     62  pycomm"
    )


def test_wrong_elements_are_printed_like_percent_g(row):
    line = report.table_row(row(wrong=1234567), None, reduces=True, rooted=False, per_call=False)
    assert "  1.23457e+06" in line or " 1.23457e+06" in line
    assert f"{float(12):6g}" in report.table_row(row(wrong=12), None, reduces=True, rooted=False, per_call=False)


def test_the_header_is_nccl_tests_header():
    lines = report.header(per_call=False)
    assert lines[0] == "#"
    assert lines[1] == "# " + " " * 10 + "  " + " " * 12 + "  " + " " * 8 + "  " + " " * 6 + "  " + " " * 6 + (
        "           out-of-place                       in-place"
    )
    assert lines[2] == (
        "#       size         count      type   redop    root     time   algbw   busbw  #wrong"
        "     time   algbw   busbw  #wrong  limit  library"
    )
    assert lines[3] == (
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)        "
        "     (us)  (GB/s)  (GB/s)            (%)"
    )


@pytest.mark.parametrize("per_call", [False, True])
@pytest.mark.parametrize("overlap", [False, True])
def test_columns_line_up_with_their_header(row, per_call, overlap):
    names = report.header(per_call, overlap)[2]
    measured = {"compute_us": 1.0, "total_us": 1.5, "overlap_percent": 50.0}
    line = report.table_row(row(**measured), row(in_place=True), True, False, per_call, overlap)
    assert line.index("pycomm") == names.index("library")
    ends = [i + 1 for i in range(len(names) - 1) if names[i] != " " and names[i + 1] == " "]
    assert all(line[end - 1] != " " and line[end] == " " for end in ends[1:])
    assert ("  50.00" in line) == overlap
    alone = report.table_row(row(**measured), None, True, False, per_call, overlap)
    assert alone.index("pycomm") == names.index("library")


def test_the_footer_says_failed_for_any_wrong_element(row):
    good = report.footer(
        "all_reduce_perf", [row(busbw_gbs=3.0), row(busbw_gbs=4.0), row("gloo", busbw_gbs=9.0)], "pycomm"
    )
    assert good[0] == "# Out of bounds values : 0 OK"
    assert good[1] == "# Avg bus bandwidth    : 3.5"
    assert good[3] == "# Collective test concluded: all_reduce_perf"
    assert report.footer("x", [row(), row("gloo", wrong=3)], "pycomm")[0] == "# Out of bounds values : 3 FAILED"


def test_ratios_take_the_better_form_of_each(row):
    rows = [
        row(median=4.0),
        row(median=2.0, in_place=True),
        row("gloo", median=6.0),
        row("gloo", median=9.0, in_place=True),
        row("gloo", nbytes=64, median=1.0),  # pycomm has no such cell
    ]
    assert ratios(rows) == {"gloo": {("allreduce", 8, "float", "sum", 0): 3.0}}


def test_geometric_mean_and_worst_cell(row):
    rows = [row(), row(nbytes=64), row("mpich", median=8.0), row("mpich", nbytes=64, median=0.5)]
    found = verdict(ratios(rows)["mpich"])
    assert found is not None
    assert (found.cells, found.mean, found.worst) == (2, pytest.approx(2.0), 0.5)
    assert found.worst_at[:2] == ("allreduce", 64)
    assert math.isnan(geometric_mean([])) and verdict({}) is None
    assert report.verdict_lines(rows, "pycomm") == [
        "# pycomm against mpich   : geometric mean 2.00x over 2 cells, worst 0.50x at allreduce 64"
    ]
    assert "| allreduce | **2.00x** (worst 0.50x at allreduce 64) |" in report.markdown(rows, "pycomm")


def test_alone_there_is_nothing_to_compare(row):
    assert report.ratio_lines([row()], "pycomm") == [] == report.verdict_lines([row()], "pycomm")
    assert report.markdown([row()], "pycomm") == ""


def test_a_sample_becomes_a_row():
    sample = Sample(times=[float(t) for t in range(1, 102)], wrong=0)
    made = make_row(
        sample, CASES["allreduce"], 51000, 4, 25.5e-6, library="pycomm", transport=None, algorithm=None, count=12750,
        dtype="float", op="sum", root=0, in_place=False,
    )  # fmt: skip
    assert (made.median_us, made.min_us, made.p99_us, made.max_us) == (51.0, 1.0, 100.0, 101.0)
    assert made.algbw_gbs == pytest.approx(1.0) and made.busbw_gbs == pytest.approx(1.5)
    assert made.limit_fraction == pytest.approx(0.5) and made.iterations == 101


def test_json_has_what_readers_rely_on(row, tmp_path):
    report.write_json(tmp_path / "x.json", [row()], {"cpu": "a", "cores": 2})
    document = json.loads((tmp_path / "x.json").read_text())
    promised = (
        "library transport algorithm collective ranks bytes dtype median_us min_us p99_us algbw_gbs busbw_gbs "
        "limit_fraction wrong in_place"
    )
    assert set(promised.split()) <= set(document["rows"][0])
    assert document["machine"] == {"cpu": "a", "cores": 2}
