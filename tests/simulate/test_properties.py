"""What must hold on any machine, for any algorithm and size.

Ports serve messages in the order of arrival and shared links share fairly. Neither is monotone: as Graham showed for
lists of jobs (SIAM J. Appl. Math. 17, 1969), something that becomes slower can change an order so that the whole
becomes faster; a slower link then "helps", as it would on the real machine. So monotony is exact where orders cannot
change, and holds within the factor below where they can.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_machines import cases, collectives, first_ranks, renumbered, sizes, topologies
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.bound import bound
from pycomm.errors import InvalidArgument, ScheduleError
from pycomm.schedules.schedule import REDUCE_FROM, SEND
from pycomm.schedules.traffic import Traffic, traffic
from pycomm.simulator.costs import SHM, TCP, Calibration
from pycomm.simulator.simulate import simulate
from pycomm.topology import Topology, flat, generate

ROUNDING = 1e-9
ANOMALY = 0.75  # of the time before, at least; 0.87 is the worst that 2,500 random cases showed
Case = tuple[Traffic, Topology]
quickly = settings(derandomize=True, max_examples=30, deadline=None)
ways = st.fixed_dictionaries({"slices": st.integers(1, 5), "window": st.integers(1, 3), "contention": st.booleans()})
# One rank sends to one, one receives from one, and in one order: no order can change.
RINGS = [(c, "ring") for c in ("allgather", "reduce_scatter", "allreduce", "broadcast")] + [("scan", "chain")]


def degraded(topology: Topology, link: int, factor: float) -> Topology:
    bandwidth = topology.links.bandwidth.copy()
    bandwidth[link] *= factor
    return replace(topology, links=topology.links._replace(bandwidth=bandwidth), period=topology.size)


@quickly
@given(cases(), sizes, ways, st.sampled_from([None, Calibration(SHM, TCP, True, (2,) * 64)]))
def test_nothing_beats_the_bound(case: Case, nbytes: float, way: dict[str, int], costs: Calibration | None):
    """Where ports alone are simulated, bytes on links in between count, but not on top of latency."""
    given_, topology = case
    limit = bound(given_.collective, topology, nbytes, given_.root)
    least = limit.seconds if way["contention"] else max(limit.latency_seconds, limit.bandwidth_seconds)
    assert simulate(given_, topology, nbytes, costs=costs, **way).seconds >= least * (1 - ROUNDING)


@quickly
@given(cases(), sizes, ways, st.data())
def test_ranks_may_be_renumbered(case: Case, nbytes: float, way: dict[str, int], data: st.DataObject):
    new = np.array(data.draw(st.permutations(range(case[1].size))))
    before, after = simulate(*case, nbytes, **way), simulate(*renumbered(*case, new), nbytes, **way)
    assert after.seconds == pytest.approx(before.seconds, rel=ROUNDING)
    assert after.finish[new] == pytest.approx(before.finish[np.arange(len(new)) % len(before.finish)], rel=ROUNDING)


@quickly
@given(topologies, st.sampled_from(RINGS), sizes, st.floats(0.1, 1), st.data())
def test_rings_are_never_faster_with_more_bytes_or_a_slower_link(
    topology: Topology, ring: tuple[str, str], nbytes: float, factor: float, data: st.DataObject
):
    given_ = traffic(ring[1], ring[0], size=topology.size)
    seconds = simulate(given_, topology, nbytes, contention=False).seconds
    link = data.draw(st.integers(0, max(len(topology.links.bandwidth) - 1, 0)))
    for machine, amount in ((topology, nbytes / factor + 1), (degraded(topology, link, factor), nbytes)):
        assert simulate(given_, machine, amount, contention=False).seconds >= seconds * (1 - ROUNDING)


@quickly
@given(cases(), sizes, ways, st.floats(0.1, 1), st.data())
def test_more_bytes_or_a_slower_link_help_little_if_at_all(
    case: Case, nbytes: float, way: dict[str, int], factor: float, data: st.DataObject
):
    given_, topology = case
    seconds = simulate(given_, topology, nbytes, **way).seconds
    link = data.draw(st.integers(0, max(len(topology.links.bandwidth) - 1, 0)))
    for machine, amount in ((topology, nbytes / factor + 1), (degraded(topology, link, factor), nbytes)):
        assert simulate(given_, machine, amount, **way).seconds >= seconds * ANOMALY


@quickly
@given(cases(), sizes)
def test_sharing_links_takes_longer(case: Case, nbytes: float):
    """All but surely: what arrives later can also change an order for the better, by the same anomalies."""
    alone, shared = (simulate(*case, nbytes, contention=contention).seconds for contention in (False, True))
    assert shared >= alone * ANOMALY
    if case[1].size == 2:
        assert shared >= alone * (1 - ROUNDING)


@quickly
@given(st.data(), st.integers(2, 9), sizes, st.integers(1, 5), st.integers(1, 3))
def test_ranks_that_do_the_same_are_simulated_once(
    data: st.DataObject, half: int, nbytes: float, slices: int, window: int
):
    size = 2 * half
    names = [("allgather", "ring"), ("allreduce", "bruck"), ("alltoall", "pairwise"), ("alltoall", "direct")]
    collective, name = data.draw(st.sampled_from(names))
    kinds = [f"flat:{size},reduce=20GB", f"boxes:2x{half},nics=1", f"torus:{size}"]
    machine = generate(data.draw(st.sampled_from(kinds)))
    whole = traffic(name, collective, size=size)
    few = simulate(first_ranks(whole, 1), machine, nbytes, slices=slices, window=window, contention=False)
    every = simulate(
        whole.expand(size), replace(machine, period=size), nbytes, slices=slices, window=window, contention=False
    )
    assert few.seconds == pytest.approx(every.seconds, rel=ROUNDING)
    assert few.messages == every.messages
    assert few.link_bytes == pytest.approx(every.link_bytes)


@quickly
@given(st.data(), st.integers(1, 9), sizes)
def test_bytes_are_counted_once_a_link(data: st.DataObject, size: int, nbytes: float):
    machine = flat(size, bandwidth=1e9, latency=0)
    result = simulate(data.draw(collectives(size)), machine, nbytes, contention=False)
    ups, downs = result.link_bytes[:size], result.link_bytes[size:]
    assert ups.sum() == pytest.approx(downs.sum())
    assert result.seconds >= result.link_bytes.max(initial=0) / 1e9 * (1 - ROUNDING)


def broken(**changes: list[int]) -> Traffic:
    """A pair of ranks that exchange a message, with some arrays replaced."""
    whole = traffic("doubling", "allreduce", size=2).expand(2)
    return replace(whole, **{name: np.array(value, getattr(whole, name).dtype) for name, value in changes.items()})


def test_schedules_that_do_not_fit_are_refused_with_a_sentence():
    machine = flat(2, bandwidth=1e9, latency=1e-6)
    send, add = SEND, REDUCE_FROM
    with pytest.raises(ScheduleError, match="rank 1 sends a message that rank 0 does not receive"):
        simulate(broken(kind=[send, send, send, add]), machine, 8)
    with pytest.raises(ScheduleError, match="rank 0 waits for one more"):
        simulate(broken(kind=[send, add, add, add]), machine, 8)
    stuck = broken(kind=[add, send, add, send], rounds=[0, 2, 4], ops=[0, 1, 2, 3, 4])
    with pytest.raises(ScheduleError, match="waits for ever"):
        simulate(stuck, machine, 8)


@pytest.mark.parametrize(
    ("way", "words"),
    [({"slices": 0}, "slices is 0"), ({"window": 0}, "window 0"), ({"nbytes": -1}, "nbytes is -1")],
)
def test_arguments_that_make_no_sense_are_named(way: dict[str, int], words: str):
    with pytest.raises(InvalidArgument, match=words):
        simulate(traffic("ring", "allgather", size=2), flat(2, bandwidth=1e9, latency=0), **{"nbytes": 1, **way})


def test_traffic_of_other_ranks_is_refused():
    with pytest.raises(InvalidArgument, match=r"of 3 ranks and flat:2 has 2"):
        simulate(traffic("ring", "allgather", size=3), flat(2, bandwidth=1e9, latency=0), 1)


def test_a_message_that_is_sent_in_parts_is_no_faster_than_its_links():
    """A processor that is done with a message long before the port is does not make it arrive."""
    machine = flat(2, bandwidth=1e9, latency=1e-6)
    costs = Calibration(SHM, TCP, False, (1, 1))
    result = simulate(traffic("ring", "broadcast", size=2), machine, 1e7, contention=False, costs=costs)
    assert result.seconds >= 1e-6 + 1e7 / 1e9
