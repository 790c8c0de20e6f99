"""The command `pycomm simulate`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pycomm.__main__ import main
from pycomm.schedules.traffic import traffic
from pycomm.simulator.costs import ERRORS, exactness
from pycomm.simulator.simulate import Bound
from pycomm.topology import generate

MACHINE = "boxes:2x4,nics=1"


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert main(["simulate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_algorithms_are_sorted_by_time_and_set_beside_the_bound(capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "allreduce", "--topology", MACHINE, "--size", "64K"]) == 0
    head, columns, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert head.startswith(f"allreduce of 64 KiB on {MACHINE}, 8 ranks; bound ")
    assert columns.split()[:4] == ["algorithm", "time", "algbw", "busbw"]
    assert {line.split()[0] for line in lines} >= {"ring", "bruck", "doubling", "hierarchical", "double_tree"}


def test_rows_are_numbers_too(capsys: pytest.CaptureFixture[str]):
    found = rows(capsys, "allreduce", "--topology", MACHINE, "--size", "64K,1M")
    for nbytes in 1 << 16, 1 << 20:
        times = [row["seconds"] for row in found if row["nbytes"] == nbytes]
        assert len(times) > 5 and times == sorted(times)
    for row in found:
        assert row["algbw"] == pytest.approx(row["nbytes"] / row["seconds"])
        assert row["busbw"] == pytest.approx(row["algbw"] * 2 * 7 / 8)
        assert 0 < row["possible"] <= 1 + 1e-9 and 0 < row["in_use"] <= 1 + 1e-9


def test_one_way_to_run_is_what_the_simulator_says(capsys: pytest.CaptureFixture[str]):
    words = ["--algorithm", "ring,hierarchical(direct,ring)", "--slices", "4", "--window", "2", "--size", "1M"]
    found = {row["algorithm"]: row for row in rows(capsys, "allgather", "--topology", MACHINE, *words)}
    assert set(found) == {"ring", "hierarchical(direct, ring)"}
    machine = generate(MACHINE)
    bound = Bound(traffic("ring", "allgather", size=8), machine, 1 << 20, 4, 2)
    assert found["ring"]["seconds"] == bound.seconds()


def test_slices_are_chosen(capsys: pytest.CaptureFixture[str]):
    words = ["broadcast", "--topology", "flat:8", "--algorithm", "ring", "--root", "3"]
    (large,) = rows(capsys, *words, "--size", "64M")
    (whole,) = rows(capsys, *words, "--size", "64M", "--slices", "1")
    (small,) = rows(capsys, *words, "--size", "1K")
    assert large["slices"] > 8 and small["slices"] == 1
    assert large["seconds"] < whole["seconds"] / 3


def test_links_need_not_be_shared(capsys: pytest.CaptureFixture[str]):
    words = ["alltoall", "--topology", MACHINE, "--algorithm", "direct", "--slices", "1"]
    (shared,), (ports,) = rows(capsys, *words), rows(capsys, *words, "--no-contention")
    assert shared["contention"] and not ports["contention"]
    assert ports["seconds"] <= shared["seconds"]


def test_processors_cost_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]):
    words = ["allreduce", "--topology", MACHINE, "--algorithm", "ring", "--slices", "1"]
    (free,), (here,) = rows(capsys, *words), rows(capsys, *words, "--costs", "here")
    assert here["seconds"] > free["seconds"]


def test_sizes_are_swept_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "times.svg"
    words = ["allreduce", "--topology", MACHINE, "--algorithm", "ring,bruck", "--size", "1K..64K"]
    found = rows(capsys, *words, "--slices", "1", "--plot", str(picture))
    assert sorted({row["nbytes"] for row in found}) == [1024, 4096, 16384, 65536]
    assert exactness(False) in picture.read_text()
    rows(capsys, *words, "--slices", "1", "--costs", "here", "--plot", str(picture))
    assert exactness(True) in picture.read_text()


def test_measured_errors_are_those_of_the_docs():
    below, above = (f"{100 * error:.0f} %" for error in ERRORS)
    docs = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert f"| shared memory, 2 ranks on 2 processors | {below} | {above} |" in docs
    assert f"{above} above 64 KiB, {below} below" in exactness(True)


def test_the_fastest_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    trace = tmp_path / "trace.json"
    words = ["allreduce", "--topology", MACHINE, "--algorithm", "ring", "--critical-path", "--trace", str(trace)]
    assert main(["simulate", *words, "--slices", "1"]) == 0
    assert "sends 128 KiB to rank" in capsys.readouterr().out
    assert json.loads(trace.read_text())["traceEvents"]


def test_what_is_told_of_the_fastest_has_the_costs_that_were_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    trace = tmp_path / "trace.json"
    words = ["allreduce", "--topology", MACHINE, "--algorithm", "ring", "--slices", "1", "--costs", "here"]
    (row,) = rows(capsys, *words)
    assert main(["simulate", *words, "--critical-path", "--trace", str(trace)]) == 0
    assert "takes 128 KiB from rank" in capsys.readouterr().out  # which is for nothing where processors are
    assert max(event.get("ts", 0) + event.get("dur", 0) for event in json.loads(trace.read_text())["traceEvents"]) == (
        pytest.approx(1e6 * row["seconds"])
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["allreduce", "--topology", "ring:8"], "ring"),
        (["allreduce", "--topology", "flat:8", "--algorithm", "rung"], "has no algorithm 'rung'"),
        (["allreduce", "--topology", "flat:8", "--size", "1X"], "--size"),
        (["allreduce", "--topology", "flat:8", "--slices", "few"], "--slices is 'few'"),
        (["broadcast", "--topology", "flat:8", "--root", "8"], "root 8"),
        (["sing", "--topology", "flat:8"], "sing"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_what_looks_on_can_stop_a_simulation():
    class Enough(Exception):
        pass

    seen: list[float] = []

    def watch(part: float) -> None:
        seen.append(part)
        raise Enough

    bound = Bound(traffic("pairwise", "alltoall", size=512), generate("fat-tree:512,hosts=8"), 1e9, 64, 8)
    with pytest.raises(Enough):
        bound.run(watch=watch)
    assert len(seen) == 1 and 0 <= seen[0] < 1
