"""A little of what `make soak` does for long: random programs, and ranks that are killed, of fixed seeds."""

from __future__ import annotations

import pytest
from conformance import SHM, TCP
from kill_trials import LIMIT, run_trials
from program import Shape
from stress import run_apart


@pytest.mark.parametrize("seed", range(6))
def test_a_random_program(seed: int) -> None:
    assert run_apart(Shape.drawn(seed), seed, steps=15)


@pytest.mark.parametrize("transport", (SHM, TCP))
def test_survivors_name_who_was_killed(transport: str) -> None:
    """How soon, kill_trials.py says; here others may compute on all processors."""
    wrong, _ = run_trials(transport, first=1, trials=8, soon=LIMIT)
    assert not wrong
