"""Checkpoints that any number of ranks can read: save on four, go on with two, and the training is the same.

    torchrun --nproc-per-node 4 examples/checkpoint.py /tmp/checkpoint --steps 10
    torchrun --nproc-per-node 2 examples/checkpoint.py /tmp/checkpoint --steps 20

Each rank writes the parts that it has; each reads those that it needs now, of the weights and of Adam's state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.fsdp import fully_shard

from common import Result, Transformer, average, batch, loss_of, parser, run, share


class Training(Stateful):  # type: ignore[misc]
    """All that training needs to go on: weights, the optimizer's state, and how many steps are done."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer, self.steps = model, optimizer, 0

    def state_dict(self) -> dict[str, Any]:
        """Return it under names that do not depend on the number of ranks."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take it over."""
        set_state_dict(self.model, self.optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        self.steps = saved["steps"]


def train(steps: int, folder: str) -> Result:
    """Go on from the checkpoint in the folder, if there is one, until `steps` batches are done; then save."""
    net = Transformer()
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for block in net.blocks.values():
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    training = Training(net, optimizer)
    if Path(folder, ".metadata").exists():  # which is written last
        dcp.load({"training": training}, checkpoint_id=folder)
    losses: dict[int, float] = {}
    for step in range(training.steps, steps):
        tokens, targets = (share(whole) for whole in batch(step))
        optimizer.zero_grad()
        loss = loss_of(net(tokens), targets)
        loss.backward()
        optimizer.step()
        losses[step] = average(loss)
    training.steps = steps
    dcp.save({"training": training}, checkpoint_id=folder)
    return losses, [net]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("folder", help="where the checkpoint lies or will lie")
    run(train, options)
