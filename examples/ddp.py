"""Data parallelism: every rank has the model and a part of each batch, and gradients are averaged while they come.

    torchrun --nproc-per-node 2 examples/ddp.py
    pycomm run -n 2 examples/ddp.py --accumulate 3 --layer-drop

DDP packs gradients into buckets and starts to reduce one as soon as it is full, while backward goes on.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, average, batch, loss_of, parser, parts, run, share


def train(steps: int, accumulate: int = 1, layer_drop: bool = False) -> Result:
    """Train.

    Args:
        steps: how many batches.
        accumulate: how many pieces a rank cuts its part into; gradients travel with the last one only.
        layer_drop: whether each rank leaves a layer out, in each step another one (Fan et al., ICLR 2020), so that DDP
            has to find out what was not used.
    """
    net = Transformer()
    model = DistributedDataParallel(
        net, bucket_cap_mb=0.1, gradient_as_bucket_view=True, find_unused_parameters=layer_drop
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        optimizer.zero_grad()
        skip = str((dist.get_rank() + step) % len(net.blocks)) if layer_drop else ""
        tokens, targets = (parts(share(whole), accumulate) for whole in batch(step))
        total = torch.zeros(())
        for piece in range(accumulate):
            with nullcontext() if piece == accumulate - 1 else model.no_sync():
                loss = loss_of(model(tokens[piece], skip), targets[piece]) / accumulate
                loss.backward()
                total += loss.detach()
        optimizer.step()
        losses[step] = average(total)
    return losses, [net]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--accumulate", type=int, default=1, help="pieces of a rank's part of the batch")
    options.add_argument("--layer-drop", action="store_true", help="each rank leaves a layer out")
    run(train, options)
