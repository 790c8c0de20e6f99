"""Fully sharded data parallelism (FSDP2): each rank keeps a part of every weight and gathers a block when it needs it.

    torchrun --nproc-per-node 2 examples/fsdp.py
    pycomm run -n 4 examples/fsdp.py --replicas 2

With replicas it is hybrid (HSDP): weights are sharded within a row of ranks, and gradients are averaged between rows.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from common import Result, Transformer, average, batch, divided, loss_of, parser, run, share


def train(steps: int, replicas: int = 1) -> Result:
    """Train; the ranks hold so many copies of the model among them."""
    shards = divided(dist.get_world_size(), replicas)
    mesh = dist.init_device_mesh("cpu", (replicas, shards), mesh_dim_names=("replicate", "shard"))
    if replicas == 1:
        mesh = mesh["shard"]
    net = Transformer()
    for block in net.blocks.values():
        fully_shard(block, mesh=mesh)  # what is gathered together
    fully_shard(net, mesh=mesh)  # and the rest
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = (share(whole) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(net(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = average(loss)
    return losses, [net]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--replicas", type=int, default=1, help="copies of the model among the ranks (default 1)")
    run(train, options)
