"""The examples beside training in one process: in float64, the losses, weights and gradients must be the same."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import common  # noqa: E402
import ddp  # noqa: E402

STEPS = 4


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Compute in float64, so that only a real difference shows."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def train(function: Callable[..., common.Result], *args: Any, **options: Any) -> common.Result:
    with exactly():
        return function(*args, **options)


def alone(steps: int = STEPS, parts: int = 1, **options: Any) -> common.Result:
    """Train in this process, where nothing is distributed."""
    with exactly():
        net = common.Transformer(**options)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        losses = []
        for step in range(steps):
            optimizer.zero_grad()
            tokens, targets = common.batch(step)
            loss = common.loss_of(net(tokens), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, common.state(net)


def check(results: list[common.Result], wanted: common.Result) -> None:
    """Compare what each rank has with what one process has: all of it must be on some rank."""
    losses, state = wanted
    for got, _ in results:
        got = list(got.values())
        assert got == pytest.approx(losses, rel=1e-9)
    seen = set()
    for _, parts in results:
        for name, part in parts.items():
            torch.testing.assert_close(part, state[name], rtol=1e-7, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
            seen.add(name)
    assert seen == set(state)


def every(pool: Any, size: int, function: Callable[..., common.Result], **options: Any) -> list[common.Result]:
    return pool(size)(call, function, options)


def call(function: Callable[..., common.Result], options: dict[str, Any]) -> common.Result:
    with exactly():
        return function(**options)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_ddp(pool, size, accumulate):
    check(every(pool, size, ddp.train, steps=STEPS, accumulate=accumulate), alone())
