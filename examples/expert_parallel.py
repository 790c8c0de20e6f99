"""Expert parallelism: the experts lie on different ranks, and each token travels to those that its router has chosen.

    torchrun --nproc-per-node 2 examples/expert_parallel.py
    pycomm run -n 4 examples/expert_parallel.py

Ranks have different tokens and choices, so each sends another number of rows to each (Shazeer et al., ICLR 2017;
Lepikhin et al., ICLR 2021). Nothing is padded or dropped.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common import WIDTH, Result, Transformer, average, batch, loss_of, parser, run, share

EXPERTS, CHOICES = 12, 2


class Exchange(torch.autograd.Function):  # type: ignore[misc]
    """An all-to-all of rows, whose gradients travel back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, arriving: list[int], leaving: list[int]) -> Tensor:
        """Send the first leaving[0] rows to rank 0, and so on; return the rows that have arrived, by rank."""
        ctx.arriving, ctx.leaving = arriving, leaving
        arrived = rows.new_empty(sum(arriving), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows.contiguous(), arriving, leaving)
        return arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Exchange the other way round."""
        return Exchange.apply(grad, ctx.leaving, ctx.arriving), None, None


class Mixture(nn.Module):  # type: ignore[misc]
    """A router, which all ranks have, and this rank's share of the experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        everybodys = {
            str(i): nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)) for i in range(EXPERTS)
        }
        self.experts = nn.ModuleDict({i: everybodys[i] for i in map(str, share(torch.arange(EXPERTS)).tolist())})

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (sequences, positions, WIDTH)."""
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(CHOICES)
        order = chosen.flatten().argsort(stable=True)  # copies of tokens, those for expert 0 first
        origin = order // CHOICES
        leaving = chosen.flatten().bincount(minlength=EXPERTS)
        arriving = torch.empty_like(leaving)  # from rank 0 for each expert here, from rank 1, ...
        dist.all_to_all_single(arriving, leaving)
        a_rank = [counts.view(dist.get_world_size(), -1).sum(1).tolist() for counts in (arriving, leaving)]
        rows = Exchange.apply(tokens[origin], *a_rank)
        here = list(self.experts.values())
        pieces = [here[i % len(here)](piece) for i, piece in enumerate(rows.split(arriving.tolist()))]
        back = Exchange.apply(torch.cat(pieces), *reversed(a_rank))
        weighted = back * weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, origin, weighted).view_as(x)


def train(steps: int) -> Result:
    """Train a Transformer with a mixture of experts in each layer."""
    net = Transformer()
    for block in net.blocks.values():
        block.feed = Mixture()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = (share(whole) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(net(tokens), targets)
        loss.backward()
        for name, weight in net.named_parameters():
            weight.grad /= dist.get_world_size()
            if ".experts." not in name:  # an expert's gradient has come from all ranks' tokens already
                dist.all_reduce(weight.grad)
        optimizer.step()
        losses[step] = average(loss)
    return losses, [net]


if __name__ == "__main__":
    run(train, parser(__doc__))
