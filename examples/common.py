"""What the examples share: a small Transformer, its data, and the beginning and end of a run.

All sizes can be divided by 2, 3, 4 and 6, so that most numbers of ranks will do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LENGTH, BATCH = 48, 48, 12, 24, 24


class Attention(nn.Module):  # type: ignore[misc]
    """Causal attention; under tensor parallelism a rank has some of the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = causal

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (sequences, positions, WIDTH)."""
        q, k, v = (
            layer(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return what each position takes from itself and those before it; all are (sequences, heads, positions, _)."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Block(nn.Module):  # type: ignore[misc]
    """One layer of a Transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (sequences, positions, WIDTH)."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Transformer(nn.Module):  # type: ignore[misc]
    """A decoder with the same weights on every rank; a stage of a pipeline is one without some of its parts."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed: nn.Embedding | None = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleDict({str(i): Block() for i in range(layers)})
        self.norm: nn.LayerNorm | None = nn.LayerNorm(WIDTH)
        self.head: nn.Linear | None = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, x: Tensor, skip: str = "") -> Tensor:
        """Return the logits of what follows each token, having gone through all blocks but the one to skip."""
        if self.embed is not None:
            x = self.embed(x)
        for name, block in self.blocks.items():
            if name != skip:
                x = block(x)
        if self.norm is not None and self.head is not None:
            x = self.head(self.norm(x))
        return x


# The loss of each step, and the parts of the model that this rank has trained.
Result = tuple[dict[int, float], list[Transformer]]


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of a step, BATCH sequences of LENGTH, and the ones that follow each.

    A sequence counts upwards by a stride of its own, which the model has to find out.
    """
    generator = torch.Generator().manual_seed(step)
    start = torch.randint(VOCABULARY, (BATCH, 1), generator=generator)
    stride = torch.randint(1, 5, (BATCH, 1), generator=generator)
    tokens = (start + stride * torch.arange(LENGTH + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def divided(total: int, by: int) -> int:
    """Return total / by.

    Raises:
        ValueError: it is no whole number.
    """
    if total % by:
        raise ValueError(f"{total} cannot be divided by {by}: try another number of ranks or parts")
    return total // by


def parts(whole: Tensor, count: int, dim: int = 0) -> list[Tensor]:
    """Return equal parts of a tensor that is cut along a dimension."""
    return list(whole.split(divided(whole.shape[dim], count), dim))


def share(whole: Tensor, dim: int = 0, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return this rank's part of a tensor that is cut along a dimension."""
    return parts(whole, dist.get_world_size(group), dim)[dist.get_rank(group)]


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy, the mean over all tokens."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def average(loss: Tensor) -> float:
    """Return the mean of all ranks' losses."""
    total = loss.detach().clone()
    dist.all_reduce(total)
    return float(total / dist.get_world_size())


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of an example's command line."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--backend", default="pycomm", help="of torch.distributed: pycomm (the default), gloo, ...")
    made.add_argument("--steps", type=int, default=20, help="how many batches (default 20)")
    return made


def run(train: Callable[..., Result], command_line: argparse.ArgumentParser) -> None:
    """Make the process group, train with the arguments of the command line, and print the losses."""
    options = vars(command_line.parse_args())
    dist.init_process_group(options.pop("backend"))
    losses, _ = train(**options)
    if dist.get_rank() == 0:
        print(*(f"step {step}: loss {loss:.4f}" for step, loss in losses.items()), sep="\n")
    dist.destroy_process_group()
