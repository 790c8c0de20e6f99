"""Data parallelism with uneven inputs: ranks that have run out of batches answer the others' collectives.

    torchrun --nproc-per-node 3 examples/ddp_uneven.py
    pycomm run -n 3 examples/ddp_uneven.py

Rank r has r batches fewer. Without Join the others would wait for its gradients until their deadline.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, batch, loss_of, parser, run, share


def train(steps: int) -> Result:
    """Train on `steps` batches less the rank; the losses are this rank's own."""
    net = Transformer()
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    with Join([model]):
        for step in range(steps - dist.get_rank()):
            tokens, targets = (share(whole) for whole in batch(step))
            optimizer.zero_grad()
            loss = loss_of(model(tokens), targets)
            loss.backward()
            optimizer.step()
            losses[step] = loss.item()
    return losses, [net]


if __name__ == "__main__":
    run(train, parser(__doc__))
