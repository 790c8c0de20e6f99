"""Whole invocations: what is printed and returned, for a job of threads and for libraries that are really installed."""

from __future__ import annotations

import json
import re

import pytest
from fake import on_ranks

from pycomm.errors import InvalidArgument
from pycomm.perf import report, session
from pycomm.perf.cases import CASES
from pycomm.perf.coordinator import Effort, cooperate
from pycomm.perf.rivals import RIVALS
from pycomm.perf.worker import Server


def _request(*collectives, ranks=2, sizes=(8, 4096), libraries=("fake",), **changes):
    fields = {
        "cases": [CASES[name] for name in collectives],
        "sizes": list(sizes),
        "ranks": ranks,
        "dtypes": ["float"],
        "ops": ["sum"],
        "roots": [0],
        "effort": Effort(iterations=6),
        "libraries": list(libraries),
        "join": {},
        "per_call": False,
        "patience": 60.0,
        "header": "# parameters",
    }
    return session.Request(**(fields | changes))


def _run(request, spoil=False):
    """The invocation on a job of threads: its results and the lines that rank 0 printed."""

    def rank(library):
        servers = {"fake": Server(library)}
        if library.rank:
            return cooperate(servers)
        lines = []
        return session.run(request, lines.append, servers), lines

    return on_ranks(request.ranks, rank, spoil)[0]


def _table(lines):
    return [line.split() for line in lines if not line.startswith("#")]


def test_every_collective_in_a_running_job():
    results, lines = _run(_request(*CASES, ranks=3))
    table = _table(lines)
    assert results.wrong == 0 and results.failed == []
    assert len(table) == 13 * 2 + 1
    assert all(line[8] == "0" and line[-1] == "fake" for line in table)
    assert lines.count("# Out of bounds values : 0 OK") == 14
    assert "# Collective test starting: all_reduce_perf" in lines
    assert sum(line.startswith("#  Rank ") for line in lines) == 3
    assert results.machine["libraries"] == {"fake": "fake 1"}


@pytest.mark.parametrize(("transport", "what"), [(None, "memory"), ("shm", "memory"), ("tcp", "sockets")])
def test_what_is_possible_is_said_and_what_binds(transport, what):
    results, lines = _run(_request("allreduce", "barrier", join={"transport": transport}))
    (limit,) = (line for line in lines if line.startswith("# Limit: "))
    sentence = limit.removeprefix("# Limit: ")
    assert sentence == results.machine["limit"] and f"{what} bind" in sentence
    moving, barrier = (line for line in lines if line.startswith("# % of what is possible here: "))
    assert re.fullmatch(rf"# % of what is possible here: \d+ at 4K; {re.escape(sentence)}", moving)
    assert "N/A; latency binds" in barrier


def test_wrong_results_say_failed():
    results, lines = _run(_request("allreduce"), spoil=True)
    assert results.wrong > 0
    assert any(line.startswith("# Out of bounds values : ") and line.endswith("FAILED") for line in lines)


def test_sizes_that_round_to_the_same_are_measured_once():
    results, lines = _run(_request("allgather", ranks=3, sizes=(8, 16, 24)))
    assert [line[0] for line in _table(lines)] == ["12", "24"]
    assert {row.bytes for row in results.rows} == {12, 24}


def test_types_ops_and_roots_are_all_measured():
    _, lines = _run(_request("reduce", sizes=(64,), dtypes=["float", "int8"], ops=["sum", "max"], roots=[0, 1]))
    assert [tuple(line[2:5]) for line in _table(lines)] == [
        (dtype, op, root) for dtype in ("float", "int8") for op in ("sum", "max") for root in ("0", "1")
    ]


def test_buffers_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(InvalidArgument, match="lower -e"):
        session.run(_request("allreduce", sizes=(1 << 50,)), print, on_ranks(1, lambda lib: {"fake": Server(lib)})[0])


def test_installed_libraries_side_by_side(tmp_path):
    installed = [name for name, rival in RIVALS.items() if rival.find()]
    if not installed:
        pytest.skip("; ".join(rival.missing for rival in RIVALS.values()))
    lines = []
    results = session.run(_request("allreduce", "barrier", libraries=list(RIVALS), sizes=(8, 65536)), lines.append)
    assert results.failed == [] and results.wrong == 0
    assert {row.library for row in results.rows} == set(installed)
    assert len(results.rows) == len(installed) * (2 * 2 + 1)
    assert all(row.limit_fraction for row in results.rows if row.bytes and not row.in_place)
    for name in set(RIVALS) - set(installed):
        assert any(line.startswith(f"# {name} is not installed") for line in lines)
    report.write_json(tmp_path / "x.json", results.rows, results.machine)
    document = json.loads((tmp_path / "x.json").read_text())
    assert set(document["machine"]) >= {"cpu", "cores", "memory", "kernel", "python", "libraries", "load_average"}
    assert set(document["machine"]["libraries"]) == set(installed)
