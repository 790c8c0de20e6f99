"""Tensor parallelism: each rank has some heads of the attention, some neurons and some of the vocabulary.

    torchrun --nproc-per-node 2 examples/tensor_parallel.py
    pycomm run -n 4 examples/tensor_parallel.py

Between the split layers each rank has a part of every sequence (sequence parallelism: Korthikanti et al., MLSys 2023,
arXiv 2205.05198): an all-gather leads in, a reduce-scatter leads out. The logits stay split too, and the loss is
computed from their parts.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from common import HEADS, Result, Transformer, batch, divided, loss_of, parser, run


def split(net: Transformer, mesh: DeviceMesh) -> None:
    """Split the model, or the parts of it that a stage of a pipeline has."""
    divided(HEADS, mesh.size())
    whole = PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate())
    plan = {
        "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "norm": SequenceParallel(),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
    }
    for name in net.blocks:
        at = f"blocks.{name}"
        plan |= {f"{at}.norm1": SequenceParallel(), f"{at}.norm2": SequenceParallel()}
        plan |= {f"{at}.attention": whole, f"{at}.feed": whole}
        plan |= {f"{at}.attention.{layer}": ColwiseParallel() for layer in ("query", "key", "value")}
        plan |= {f"{at}.attention.out": RowwiseParallel(output_layouts=Shard(1)), f"{at}.feed.0": ColwiseParallel()}
        plan |= {f"{at}.feed.2": RowwiseParallel(output_layouts=Shard(1))}
    there = {name for name, _ in net.named_modules()}
    parallelize_module(net, mesh, {name: style for name, style in plan.items() if name in there})


def train(steps: int) -> Result:
    """Train; all ranks read the same batch."""
    net = Transformer()
    split(net, dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = batch(step)
        optimizer.zero_grad()
        with loss_parallel():
            loss = loss_of(net(tokens), targets)
            loss.backward()
        optimizer.step()
        losses[step] = loss.item()
    return losses, [net]


if __name__ == "__main__":
    run(train, parser(__doc__))
