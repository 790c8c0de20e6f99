"""Data parallelism with compressed gradients: DDP leaves to a hook how a bucket is averaged.

    torchrun --nproc-per-node 2 examples/ddp_hooks.py --hook bf16
    pycomm run -n 2 examples/ddp_hooks.py --hook powersgd

bfloat16 halves the bytes. PowerSGD (Vogels et al., NeurIPS 2019, arXiv 1905.13727) sends two thin factors of each
gradient matrix and adds what they have missed to the next step's.
"""

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, average, batch, loss_of, parser, run, share


def in_bfloat16(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average in bfloat16: torch's bf16_compress_hook, which DDP allows on GPUs alone."""
    small = bucket.buffer().to(torch.bfloat16) / dist.get_world_size()
    future = dist.all_reduce(small, async_op=True).get_future()
    return future.then(lambda done: bucket.buffer().copy_(done.value()[0]))


def train(steps: int, hook: str = "bf16") -> Result:
    """Train with the hook "bf16" or "powersgd"."""
    net = Transformer()
    if hook == "bf16":
        model = DistributedDataParallel(net, bucket_cap_mb=0.1)
        model.register_comm_hook(None, in_bfloat16)
    else:
        # One bucket: the hook sends factors from the callbacks of futures, and those of several buckets would come in
        # another order on each rank.
        model = DistributedDataParallel(net, bucket_cap_mb=1000)
        how = PowerSGDState(None, matrix_approximation_rank=4, start_powerSGD_iter=2)
        model.register_comm_hook(how, powerSGD_hook)
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
    options.add_argument("--hook", choices=("bf16", "powersgd"), default="bf16", help="what compresses the gradients")
    run(train, options)
