"""ZeRO-1: data parallelism in which each rank keeps the optimizer's state for a part of the weights alone.

    torchrun --nproc-per-node 2 examples/zero1.py
    pycomm run -n 3 examples/zero1.py

Each rank updates its part and broadcasts it (Rajbhandari et al., SC 2020, arXiv 1910.02054).
"""

from __future__ import annotations

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, average, batch, loss_of, parser, run, share


def train(steps: int) -> Result:
    """Train with Adam, whose state is twice as large as the model."""
    net = Transformer()
    model = DistributedDataParallel(net)
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.AdamW, lr=0.003)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = (share(whole) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(model(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = average(loss)
    return losses, [net]


if __name__ == "__main__":
    run(train, parser(__doc__))
