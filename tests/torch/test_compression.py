"""The hook that compresses gradients between groups: exact in one, near the average between two, with feedback."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

import pycomm
from pycomm.torch import CompressionState, compression_hook

TWO = [[0, 1], [2, 3]]


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 4)]
    return nn.Sequential(*layers).to(dtype)


def inputs(step: int, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(100 * step + dist.get_rank())
    return torch.randn(8, 40).to(dtype)


def gradients(model: nn.Module, steps: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return the gradients of each step, as one vector; the weights stay as they are."""
    found = []
    for step in range(steps):
        model.zero_grad()
        model(inputs(step, dtype)).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double())
    return found


def beside_uncompressed(kind: str, groups: list[list[int]], dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the largest error of a step, and of the mean of all steps, as parts of the largest gradient."""
    steps, small = 12, 0.005  # MB: several buckets
    exact = gradients(DDP(net(dtype), bucket_cap_mb=small), steps, dtype)
    model = DDP(net(dtype), bucket_cap_mb=small)
    state = CompressionState(kind, groups=groups)
    model.register_comm_hook(state, compression_hook)
    got = gradients(model, steps, dtype)
    lost = [a - b for a, b in zip(got, exact, strict=True)]
    largest = max(float(g.abs().max()) for g in exact)
    everywhere = [torch.empty_like(got[-1]) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, got[-1])
    assert all(torch.equal(each, got[-1]) for each in everywhere)
    # DDP has put other parameters into its buckets after the first step; what was lost in that one is not fed back.
    return (
        max(float(e.abs().max()) for e in lost) / largest,
        float(torch.stack(lost[1:]).mean(0).abs().max()) / largest,
        largest,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_one_group_is_not_compressed(pool, dtype):
    for error, *_ in pool(4)(beside_uncompressed, "int4", [[0, 1, 2, 3]], dtype):
        assert error <= (2.0**-7 if dtype is torch.bfloat16 else 1e-6)


@pytest.mark.parametrize(("kind", "part"), [("bf16", 2.0**-8), ("int8", 1 / 254), ("int4", 1 / 14)])
def test_two_groups_are_near_and_feedback_brings_them_nearer(pool, kind, part):
    for error, of_the_mean, _ in pool(4)(beside_uncompressed, kind, TWO, torch.float32):
        assert 0 < error <= 4 * part  # of the sums of two groups, each up to four times the largest average
        assert of_the_mean <= error / 2


def with_a_wrong_rank() -> None:
    model = DDP(net())
    kind = "int8" if dist.get_rank() else "int4"
    model.register_comm_hook(CompressionState(kind, groups=[[0], [1]]), compression_hook)
    with pytest.raises(RuntimeError, match="does not fit|disagree on a compressed call|could not end"):
        gradients(model, 1, torch.float32)


def test_ranks_that_disagree_get_an_error_from_the_backward_pass():
    with Ranks(2) as ranks:
        ranks(with_a_wrong_rank)


def wrong_states() -> None:
    group = dist.new_group(backend="gloo")
    with pytest.raises(pycomm.InvalidArgument, match="of backend 'gloo'"):
        CompressionState("int8", group)
    with pytest.raises(ValueError, match="bf16, int8, int4"):
        CompressionState("int2")


def test_wrong_states(pool):
    pool(2)(wrong_states)
