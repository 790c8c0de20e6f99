"""All-reduces in unequal shards: that they are right, move what the formula says, and fit the ranks' rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.errors import InvalidArgument
from pycomm.schedules.registry import find
from pycomm.schedules.traffic import traffic
from pycomm.schedules.verify import verify
from pycomm.schedules.view import emit
from pycomm.selection.network import shares
from pycomm.simulator.simulate import simulate
from pycomm.topology import flat
from pycomm.topology.modify import speed_of_ranks


@pytest.mark.parametrize("told", [(1,), (3, 1), (2, 0), (11, 11, 10, 0), (1, 0, 0), (5, 1, 2, 3, 1)])
def test_every_share_is_reduced_by_its_owner(told):
    size = len(told)
    name = f"two_shot({', '.join(map(str, told))})"
    verdict = verify(name, "allreduce", size=size)
    assert verdict.name == name.replace(" ", "") or verdict.name == name
    for rank, own in enumerate(told):
        schedule = emit(name, "allreduce", size=size, rank=rank)
        sent = np.count_nonzero(schedule.steps["kind"] == 0) * float(schedule.share)
        w = own / sum(told)
        assert sent == pytest.approx((1 - w) + (size - 1) * w)


def test_shares_within_a_hierarchy():
    groups = [[0, 1, 2], [3, 4], [5], [6, 7]]
    verify("hierarchical(bruck, two_shot(3, 3, 1, 2))", "allreduce", size=8, groups=groups)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("two_shot(0, 0)", "not all of them 0"),
        ("two_shot(1, x)", "whole numbers"),
        ("two_shot(1, -1)", "whole numbers"),
        ("two_shot(1, 1", "a bracket is not closed"),
    ],
)
def test_shares_that_mean_nothing(name, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        find("allreduce", name)


def test_shares_for_another_number_of_ranks():
    with pytest.raises(InvalidArgument, match="has 3 shares and is asked for on 4 ranks"):
        emit("two_shot(1, 1, 1)", "allreduce", size=4, rank=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=12))
def test_shares_reach_the_closed_form(rates):
    parts = 4096
    w = np.array(shares(rates, parts)) / parts
    b, p = np.array(rates), len(rates)
    best = max(2 * (p - 1) / b.sum(), 1 / b.min())
    assert w.sum() == pytest.approx(1)
    assert (1 + (p - 2) * w).max() > 0
    assert ((1 + (p - 2) * w) / b).max() <= best * (1 + 1e-9) + p / parts / b.min()


def test_a_slow_rank_among_fast_ones_is_simulated_as_the_formula_says():
    rates = np.array([1.0, 1.0, 1.0, 0.5])
    topology = speed_of_ranks(flat(4, bandwidth=1e9, latency=0.0), rates)
    nbytes = 32 << 20

    def seconds(name):
        return simulate(traffic(name, "allreduce", size=4), topology, nbytes, slices=4, window=4).seconds

    owned = seconds(f"two_shot({', '.join(map(str, shares(rates, 32)))})")
    closed_form = 2 * nbytes / 1e9
    assert closed_form * (1 - 1e-9) <= owned <= closed_form * 17 / 16 * (1 + 1e-6)
    assert seconds("ring") >= 1.4 * owned
