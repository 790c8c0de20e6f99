"""Three parallelisms at once: data, pipeline and tensor parallelism, each along a dimension of one mesh of ranks.

    torchrun --nproc-per-node 8 examples/three_d.py
    pycomm run -n 8 examples/three_d.py

A stage of the pipeline is split over the ranks of a row (TP), each part is sharded once more over those that have the
same part for other data (FSDP), and the stages pass micro-batches on (PP).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel

from common import Result, average, batch, divided, loss_of, parser, run, share
from pipeline import cut
from tensor_parallel import split


def train(steps: int, data: int = 2, stages: int = 2) -> Result:
    """Train on data * stages * N ranks, where N ranks share the tensors of a stage."""
    tensors = divided(dist.get_world_size(), data * stages)
    mesh = dist.init_device_mesh("cpu", (data, stages, tensors), mesh_dim_names=("data", "stage", "tensor"))
    number = mesh.get_local_rank("stage")
    first, last = number == 0, number == stages - 1
    net = cut(number, stages, layers=4)
    split(net, mesh["tensor"])
    for block in net.blocks.values():
        fully_shard(block, mesh=mesh["data"])
    fully_shard(net, mesh=mesh["data"])
    stage = PipelineStage(net, number, stages, torch.device("cpu"), group=mesh.get_group("stage"))
    pipe = Schedule1F1B(stage, n_microbatches=2 * stages, loss_fn=loss_of)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses: dict[int, float] = {}
    for step in range(steps):
        tokens, targets = (share(whole, group=mesh.get_group("data")) for whole in batch(step))
        optimizer.zero_grad()
        of_pieces: list[DTensor] = []
        with loss_parallel():
            pipe.step(*[tokens] * first, **({"target": targets, "losses": of_pieces} if last else {}))
        optimizer.step()
        # every rank of a last stage has its loss, the others have none
        own = torch.stack(of_pieces).mean().full_tensor() if last else torch.zeros(())
        losses[step] = stages * average(own)
    return losses, [net]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--data", type=int, default=2, help="parts of each batch (default 2)")
    options.add_argument("--stages", type=int, default=2, help="stages of the pipeline (default 2)")
    run(train, options)
