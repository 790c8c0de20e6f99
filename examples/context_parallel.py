"""Context parallelism: each rank has a part of every sequence, and keys and values go round the ring.

    torchrun --nproc-per-node 2 examples/context_parallel.py
    pycomm run -n 4 examples/context_parallel.py

This is ring attention (Liu et al., ICLR 2024, arXiv 2310.01889): while a rank looks at the keys in hand, they are
already on their way to the next. The softmax is mended as more keys come (Milakov and Gimelshein, arXiv 1805.02867).
Backward goes round once more, with the gradients of keys and values in tow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, average, batch, loss_of, parser, run, share


class Passing:
    """Tensors on their way to the next rank, while those of the previous one come."""

    def __init__(self, *tensors: Tensor) -> None:
        rank, size = dist.get_rank(), dist.get_world_size()
        self._arriving = [torch.empty_like(tensor) for tensor in tensors]
        self._works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, tensor, (rank + 1) % size) for tensor in tensors]
            + [dist.P2POp(dist.irecv, tensor, (rank - 1) % size) for tensor in self._arriving]
        )

    def arrived(self) -> list[Tensor]:
        """Return the previous rank's."""
        for work in self._works:
            work.wait()
        return self._arriving


def scores_of(q: Tensor, k: Tensor, turn: int, causal: bool) -> Tensor | None:
    """Return how much each query looks at each key that has come after so many turns; None: not at all."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if not causal:
        return scores
    if turn > dist.get_rank():  # the keys are from behind the queries
        return None
    return scores if turn else scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)


class RingAttention(torch.autograd.Function):  # type: ignore[misc]
    """Attention of this rank's queries to all ranks' keys."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """Take and return (sequences, heads, positions, _), of this rank's positions."""
        own_k, own_v = k, v = k.contiguous(), v.contiguous()
        out, norm = torch.zeros_like(q), q.new_full((*q.shape[:-1], 1), -torch.inf)  # norm: log of the sum of exp
        size = dist.get_world_size()
        for turn in range(size):
            passing = Passing(k, v) if turn < size - 1 else None
            scores = scores_of(q, k, turn, causal)
            if scores is not None:
                longer = norm.logaddexp(scores.logsumexp(-1, keepdim=True))
                out = out * (norm - longer).exp() + (scores - longer).exp() @ v
                norm = longer
            if passing:
                k, v = passing.arrived()
        ctx.save_for_backward(q, own_k, own_v, out, norm)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of queries, keys and values."""
        q, k, v, out, norm = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dot = (grad * out).sum(-1, keepdim=True)
        for turn in range(dist.get_world_size()):
            passing = Passing(k, v)
            scores = scores_of(q, k, turn, ctx.causal)
            if scores is not None:
                weights = (scores - norm).exp()
                dv += weights.mT @ grad
                dscores = weights * (grad @ v.mT - dot) / q.shape[-1] ** 0.5
                dq += dscores @ k
                dk += dscores.mT @ q
            dk, dv = Passing(dk, dv).arrived()
            k, v = passing.arrived()
        return dq, dk, dv, None


def ring_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    """Return what this rank's positions take from all; all are (sequences, heads, positions, _)."""
    return RingAttention.apply(q, k, v, causal)


def train(steps: int) -> Result:
    """Train; all ranks read the same batch and take their parts of its sequences."""
    net = Transformer()
    for block in net.blocks.values():
        block.attention.attend = ring_attention
    model = DistributedDataParallel(net)  # averages gradients over the parts of the sequences
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = (share(whole, dim=1) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(model(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = average(loss)
    return losses, [net]


if __name__ == "__main__":
    run(train, parser(__doc__))
