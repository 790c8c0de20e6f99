"""Ranks that choose differently get an error on all of them, before a byte of one lands in the other's buffer."""

from __future__ import annotations

import numpy as np
import pytest

import pycomm
from pycomm import Mismatch
from pycomm.job.launch import spawn
from pycomm.selection.candidates import Choice

N = 1 << 16


def chooses(choices: list[Choice]) -> list[bool]:
    comm = pycomm.init()
    data, total = np.full(N, comm.rank + 1.0), np.full(N, -1.0)
    comm.adopt("allreduce", data, total, choices[comm.rank % len(choices)])
    try:
        comm.Allreduce(data, total, timeout=20)
    except Mismatch:
        return [True, bool(np.isin(total, [-1.0, 1.0, 2.0, 3.0]).all())]
    return [False, bool((total == comm.size * (comm.size + 1) / 2).all())]


@pytest.mark.parametrize(
    "other",
    [Choice("pairwise", 4, 2), Choice("ring", 5, 2), Choice("ring", 4, 4)],
    ids=["algorithm", "slices", "window"],
)
def test_a_different_choice_is_a_mismatch_on_both_sides(other: Choice) -> None:
    for outcome in spawn(2, chooses, [Choice("ring", 4, 2), other], timeout=30):
        assert outcome.error is None and outcome.value == [True, True]


def test_the_same_choice_is_none() -> None:
    for outcome in spawn(2, chooses, [Choice("ring", 4, 2)], timeout=30):
        assert outcome.error is None and outcome.value == [False, True]
