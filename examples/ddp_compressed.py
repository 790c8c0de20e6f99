"""Data parallelism between hosts or sites whose link is slow: DDP, with gradients compressed where they cross it.

    torchrun --nproc-per-node 2 examples/ddp_compressed.py --kind int8 --groups 2
    pycomm run -n 4 examples/ddp_compressed.py --kind int4 --groups 2

Within a group gradients are float32. What the compression of a bucket has lost is added to its next gradients (error
feedback), so that the losses stay beside those of training without it: --kind none.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import pycomm.torch
from common import Result, Transformer, average, batch, divided, loss_of, parser, run, share


def train(steps: int, kind: str = "int8", groups: int = 0) -> Result:
    """Train with gradients in "bf16", "int8" or "int4" between groups of ranks, or with "none" of these.

    Args:
        steps: how many batches.
        kind: of compression.
        groups: how many groups of ranks that follow one another; 0: each host is one.
    """
    net = Transformer()
    model = DistributedDataParallel(net, bucket_cap_mb=0.1)
    if kind != "none":
        each = divided(dist.get_world_size(), groups) if groups else 0
        chosen = [list(range(g * each, (g + 1) * each)) for g in range(groups)]
        state = pycomm.torch.CompressionState(kind, groups=chosen or None)
        model.register_comm_hook(state, pycomm.torch.compression_hook)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
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
    options = parser(__doc__)
    options.add_argument("--kind", choices=("bf16", "int8", "int4", "none"), default="int8", help="of compression")
    options.add_argument("--groups", type=int, default=0, help="how many groups of ranks (default: one for each host)")
    run(train, options)
