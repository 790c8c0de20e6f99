"""What is told of a simulation: the critical path adds up to the time, and a trace is what Perfetto reads."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from drawn_machines import cases, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.errors import InvalidArgument
from pycomm.schedules.traffic import Traffic, traffic
from pycomm.simulator.costs import SHM, TCP, Calibration
from pycomm.simulator.simulate import simulate
from pycomm.simulator.timeline import chrome_trace, critical_path, path_text
from pycomm.topology import Topology, flat, generate

HERE = Calibration(SHM, TCP, True, (2,) * 64)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(cases(), sizes, st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans())
def test_the_critical_path_has_no_gaps(
    case: tuple[Traffic, Topology], nbytes: float, slices: int, window: int, contention: bool, calibrated: bool
):
    costs = HERE if calibrated else None
    result = simulate(*case, nbytes, slices=slices, window=window, contention=contention, costs=costs, record=True)
    steps = critical_path(result)
    records = result.records
    assert records is not None
    links_alone = result.seconds > records["end"].max(initial=0) * (1 + 1e-9)  # the busiest link needs longer than all
    if steps:
        assert sum(step.seconds for step in steps) == pytest.approx(result.seconds, rel=1e-9)
        assert steps[0].start == 0
    # A processor that works on what has begun to arrive waits for the rest, which no record tells.
    if not links_alone and len(records):
        last = int(np.flatnonzero(records["end"] == records["end"].max())[-1])
        while (before := int(records["cause"][last])) >= 0:
            gap = records["start"][last] - records["end"][before]
            assert calibrated or gap <= 1e-9 * result.seconds, records[[before, last]]
            last = before
        assert records["start"][last] == 0, records[last]


def test_the_path_of_a_ring_is_told_in_three_lines():
    machine = generate("fat-tree:16,down=16")
    result = simulate(traffic("ring", "allgather", size=16), machine, 16 << 20, record=True)
    text = path_text(critical_path(result)).splitlines()
    assert len(text) == 2
    assert "sends 1 MiB to rank" in text[0] and "over nic" in text[0]
    assert "14 more like it" in text[1]


def test_a_path_names_who_waited_for_whom():
    machine = flat(3, bandwidth=1e9, latency=1e-6, reduce_rate=2e9)
    result = simulate(traffic("ring", "reduce", size=3), machine, 1e6, record=True)
    words = [step.words for step in critical_path(result)]
    size = "976.6 KiB"
    assert words == [
        f"rank 2 sends {size} to rank 1 over port",
        f"rank 1 takes {size} from rank 2",
        f"rank 1 sends {size} to rank 0 over port",
        f"rank 0 takes {size} from rank 1",
    ]


def test_a_trace_has_every_rank_and_an_arrow_for_every_message(tmp_path):
    machine = generate("boxes:2x2,nics=1,reduce=10GB")
    result = simulate(traffic("ring", "allreduce", size=4), machine, 1e6, record=True)
    (tmp_path / "trace.json").write_text(json.dumps(chrome_trace(result)))
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = trace["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "thread_name"} == {f"rank {r}" for r in range(4)}
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"host 0", "host 1"}
    for phase in "be", "sf":
        begins, ends = ([e for e in events if e["ph"] == p] for p in phase)
        assert [e["id"] for e in begins] == [e["id"] for e in ends]
        assert len(begins) == result.messages
        assert all(b["ts"] <= e["ts"] for b, e in zip(begins, ends, strict=True))
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == 4 * 3  # reductions
    for rank in range(4):  # slices of one thread do not overlap
        times = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if e["tid"] == rank)
        assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(times))


def test_without_records_there_is_nothing_to_tell():
    result = simulate(traffic("ring", "allgather", size=3), flat(3, bandwidth=1e9, latency=1e-6), 1e6)
    for tell in critical_path, chrome_trace:
        with pytest.raises(InvalidArgument, match="record=True"):
            tell(result)
