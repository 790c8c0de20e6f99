"""Elastic training: a rank is killed, torchrun starts all of them again, and they go on from the last checkpoint.

    torchrun --nproc-per-node 2 --max-restarts 1 examples/elastic.py /tmp/elastic.pt --kill-after 5

The others do not wait for the dead: pycomm tells them who has died, and they end. The weights become the same, to the
bit, as without the kill.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common import Result, Transformer, average, batch, loss_of, parser, run, share


def train(steps: int, file: str, kill_after: int | None = None) -> Result:
    """Go on from the checkpoint, if there is one, until `steps` batches are done.

    Args:
        steps: how many batches.
        file: the checkpoint, which all ranks can read.
        kill_after: the batches after which the last rank kills itself, the first time; None: it does not.
    """
    net = Transformer()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    done = 0
    if Path(file).exists():
        saved = torch.load(file)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    dist.barrier()  # nobody replaces what somebody has yet to read
    model = DistributedDataParallel(net)
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    losses: dict[int, float] = {}
    for step in range(done, steps):
        if step == kill_after and first_life and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        tokens, targets = (share(whole) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(model(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = average(loss)
        if dist.get_rank() == 0:
            new = f"{file}.new"
            torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "done": step + 1}, new)
            Path(new).replace(file)  # at once: a kill leaves the old one or the new one
    return losses, [net]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("file", help="where the checkpoint lies or will lie")
    options.add_argument("--kill-after", type=int, metavar="N", help="kill the last rank after N batches")
    run(train, options)
