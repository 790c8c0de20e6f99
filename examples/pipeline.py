"""Pipeline parallelism: each rank has some layers, and micro-batches go through the ranks one after the other.

    torchrun --nproc-per-node 2 examples/pipeline.py
    pycomm run -n 4 examples/pipeline.py --schedule ZBVZeroBubble

GPipe (Huang et al., NeurIPS 2019) and 1F1B have one stage a rank; Interleaved1F1B (Narayanan et al., SC 2021) and the
zero-bubble schedules (Qi et al., ICLR 2024, arXiv 2401.10241) have two, so that a rank waits less for its neighbours.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, get_schedule_class

from common import BATCH, Result, Transformer, batch, divided, loss_of, parser, run

SCHEDULES = ("GPipe", "1F1B", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble")


def cut(stage: int, stages: int, layers: int) -> Transformer:
    """Return the part of a model with so many layers that is a stage."""
    net = Transformer(layers)
    for layer in range(layers):
        if layer * stages // layers != stage:
            del net.blocks[str(layer)]
    if stage > 0:
        net.embed = None
    if stage < stages - 1:
        net.norm = net.head = None
    return net


def train(steps: int, schedule: str = "1F1B") -> Result:
    """Train in 2 micro-batches a rank; the losses are known to the rank of the last stage, which tells the others."""
    rank, size = dist.get_rank(), dist.get_world_size()
    kind = get_schedule_class(schedule)
    single = issubclass(kind, PipelineScheduleSingle)
    # a second stage lies once more round the ring, or, in a V, on the way back
    numbers = [rank] if single else [rank, 2 * size - 1 - rank if "ZBV" in schedule else rank + size]
    stages = size if single else 2 * size
    nets = {number: cut(number, stages, layers=8) for number in numbers}
    parts = [PipelineStage(net, number, stages, torch.device("cpu")) for number, net in nets.items()]
    pieces = 2 * size
    divided(BATCH, pieces)
    pipe = kind(parts[0] if single else parts, pieces, loss_fn=loss_of)
    optimizer = torch.optim.SGD([weight for net in nets.values() for weight in net.parameters()], lr=0.5)
    last = 0 if "ZBV" in schedule else size - 1
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = batch(step)
        optimizer.zero_grad()
        of_pieces: list[torch.Tensor] = []
        pipe.step(*[tokens] * (rank == 0), **({"target": targets, "losses": of_pieces} if rank == last else {}))
        optimizer.step()
        loss = torch.stack(of_pieces).mean() if rank == last else torch.zeros(())
        dist.broadcast(loss, last)
        losses[step] = loss.item()
    return losses, list(nets.values())


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--schedule", choices=SCHEDULES, default="1F1B", help="who does what when (default 1F1B)")
    run(train, options)
