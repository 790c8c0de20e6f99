"""Shows pycomm beside gloo in torch.distributed, by turns in the same processes: `torch_pair.py calls --ranks 4`."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
import torch._dynamo  # which DDP imports: here once and not in each rank
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.testing._internal.distributed import fake_pg  # noqa: F401  # makes the backend "fake" known

import pycomm
from pycomm.perf.sizes import format_size

ROUNDS = 5
SIZES = [4, 64, 1 << 10, 16 << 10, 256 << 10, 4 << 20, 64 << 20]
Calls = dict[str, Callable[[], Any]]


def by_turns(calls: Calls, seconds: float) -> dict[str, torch.Tensor]:
    """Time each of some calls, one by one, in rounds in which all have their turn.

    Args:
        calls: by name.
        seconds: for all calls of one name.

    Returns the times in us, each the mean over the ranks, in the order in which they were made.
    """
    times: dict[str, list[float]] = {}
    count = {}
    for name, call in calls.items():
        times[name] = []
        spent = torch.tensor([min(_timed(call) for _ in range(3))])
        dist.all_reduce(spent, dist.ReduceOp.MAX)
        count[name] = min(1000, max(1, round(seconds / ROUNDS / spent.item())))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name] += [_timed(call) for _ in range(count[name])]
    means = {name: torch.tensor(each, dtype=torch.float64) * 1e6 for name, each in times.items()}
    for mean in means.values():
        dist.all_reduce(mean, dist.ReduceOp.AVG)
    return means


def _timed(call: Callable[[], Any]) -> float:
    dist.barrier()
    begun = perf_counter()
    call()
    return perf_counter() - begun


def say(*words: object) -> None:
    """Print, on rank 0."""
    if dist.get_rank() == 0:
        print(*words, flush=True)


def collective(name: str, nbytes: int, group: Any) -> tuple[Callable[[], Any], torch.Tensor]:
    """Return a call of a collective whose larger side has about so many bytes, and the tensor with its result."""
    rank, size = dist.get_rank(), dist.get_world_size()
    block = max(1, nbytes // 4 // size)
    whole, part = torch.full((block * size,), rank + 1.0), torch.full((block,), rank + 1.0)
    out = torch.zeros_like(whole)  # a sum of sums of zeros stays what it is
    match name:
        case "all_reduce":
            return partial(dist.all_reduce, out, group=group), out
        case "broadcast":
            return partial(dist.broadcast, whole, 0, group), whole
        case "all_gather_into_tensor":
            return partial(dist.all_gather_into_tensor, out, part, group), out
        case "reduce_scatter_tensor":
            return partial(dist.reduce_scatter_tensor, part, whole, group=group), part
        case _:
            return partial(dist.all_to_all_single, out, whole, group=group), out


COLLECTIVES = ("all_reduce", "broadcast", "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single")


def show_calls(gloo: Any, seconds: float) -> None:
    """Print a table of collectives and sizes, and the geometric mean of the ratios."""
    ratios = {}
    say(f"{'collective':<24} {'bytes':>6} {'pycomm us':>12} {'gloo us':>12} {'ratio':>7}")
    for name in COLLECTIVES:
        for nbytes in SIZES:
            (own, mine), (other, its) = (collective(name, nbytes, group) for group in (None, gloo))
            medians = {k: t.median().item() for k, t in by_turns({"pycomm": own, "gloo": other}, seconds).items()}
            for call, result in ((own, mine), (other, its)):
                result.fill_(dist.get_rank() + 1.0)
                call()
            assert torch.equal(mine, its), f"{name} of {nbytes} bytes: pycomm and gloo have different results"
            ratios[name, nbytes] = ratio = medians["gloo"] / medians["pycomm"]
            size = format_size(max(nbytes, 4 * dist.get_world_size()))
            say(f"{name:<24} {size:>6} {medians['pycomm']:12.1f} {medians['gloo']:12.1f} {ratio:7.1f}")
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    name, nbytes = min(ratios, key=lambda cell: ratios[cell])
    say(f"geometric mean {mean:.1f}, least {ratios[name, nbytes]:.1f}: {name} of {format_size(nbytes)}")


def show_allreduce(gloo: Any, seconds: float) -> None:
    """Print what all_reduce costs beside gloo's, and beside the call of the communicator that is under it."""
    comm = dist.group.WORLD.engine.comm
    say(f"{'all_reduce':>10} {'pycomm us':>12} {'bare us':>12} {'gloo us':>12} {'ratio':>7}")
    for nbytes in (4, 64 << 10, 64 << 20):
        tensors = [torch.zeros(nbytes // 4) for _ in range(3)]
        array = tensors[1].numpy()
        times = by_turns(
            {
                "pycomm": partial(dist.all_reduce, tensors[0]),
                "bare": partial(comm.Allreduce, pycomm.IN_PLACE, array),
                "gloo": partial(dist.all_reduce, tensors[2], group=gloo),
            },
            seconds,
        )
        own, bare, other = (times[k].median().item() for k in ("pycomm", "bare", "gloo"))
        say(f"{format_size(nbytes):>10} {own:12.2f} {bare:12.2f} {other:12.2f} {other / own:7.1f}")


def show_messages(gloo: Any, seconds: float) -> None:
    """Print what 32 messages of 64 KiB each way cost, started as one batch between each rank and a neighbour."""
    peer = dist.get_rank() ^ 1

    def batch(group: Any) -> Callable[[], None]:
        tensors = [(torch.ones(16 << 10), torch.empty(16 << 10)) for _ in range(32)]
        ops = [
            dist.P2POp(*each, peer, group)
            for send, recv in tensors
            for each in ((dist.isend, send), (dist.irecv, recv))
        ]

        def call() -> None:
            for work in dist.batch_isend_irecv(ops):
                work.wait()

        return call

    times = by_turns({"pycomm": batch(None), "gloo": batch(gloo)}, seconds)
    own, other = (times[k].median().item() for k in ("pycomm", "gloo"))
    say(f"batch_isend_irecv, 32 x 64K each way: pycomm {own:.0f} us, gloo {other:.0f} us, ratio {other / own:.1f}")


class Gpt(nn.Module):  # type: ignore[misc]
    """A small transformer that predicts the next of 2,048 words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(2048, 256)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(256, 8, 1024, 0.0, batch_first=True) for _ in range(6))
        self.head = nn.Linear(256, 2048)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return the scores of all words at each place."""
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        x = self.words(text)
        for layer in self.layers:
            x = layer(x, mask, is_causal=True)
        return self.head(x)


def mlp() -> tuple[nn.Module, list[nn.Module], torch.Tensor]:
    """Return a model of 25 million parameters, its layers, and an input."""
    net = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(2048, 2048), nn.ReLU())))
    return net, list(net[::2]), torch.randn(64, 2048)


def gpt() -> tuple[nn.Module, list[nn.Module], torch.Tensor]:
    """Return a transformer, its layers, and an input."""
    net = Gpt()
    return net, list(net.layers), torch.randint(2048, (4, 128))


def training(make: Callable[[], Any], wrap: str, group: Any) -> Callable[[], None]:
    """Return a step of training under DDP or FSDP2 in a group; None: in none, with all but the communication."""
    torch.manual_seed(0)
    net, layers, x = make()
    if wrap == "FSDP2":
        mesh = dist.DeviceMesh.from_group(group or dist.new_group(backend="fake"), "cpu")
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
    else:
        net = DDP(net, process_group=group)
        if group is None:
            net.register_comm_hook(None, lambda _, bucket: _completed(bucket.buffer()))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return step


def _completed(value: Any) -> Any:
    future: Any = torch.futures.Future()
    future.set_result(value)
    return future


def show_training(gloo: Any, seconds: float) -> None:
    """Print what a step of training costs, and by how much communication makes it longer."""
    say(f"{'ms a step':<12} {'without':>8} {'pycomm':>8} {'gloo':>8} {'exposed':>8} {'gloo':>8} {'ratio':>7}")
    for make in (mlp, gpt):
        for wrap in ("DDP", "FSDP2"):
            groups = {"without": None, "pycomm": dist.group.WORLD, "gloo": gloo}
            steps: Calls = {name: training(make, wrap, group) for name, group in groups.items()}
            times = by_turns(steps, seconds)
            without, own, other = (times[name].median().item() / 1e3 for name in steps)
            shown = (without, own, other, own - without, other - without)
            row = " ".join(f"{value:8.1f}" for value in shown)
            say(f"{make.__name__ + ', ' + wrap:<12} {row} {(other - without) / (own - without):7.1f}")


SHOWN = {"calls": show_calls, "allreduce": show_allreduce, "messages": show_messages, "training": show_training}


def rank_main(rank: int, asked: argparse.Namespace, place: str) -> None:
    """Be a rank."""
    warnings.simplefilter("ignore")  # of FSDP2, and of names that torch 2.13 has changed
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // asked.ranks))
    store = dist.FileStore(f"{place}/store", asked.ranks)
    dist.init_process_group("pycomm", store=store, rank=rank, world_size=asked.ranks)
    SHOWN[asked.what](dist.new_group(backend="gloo"), asked.seconds)
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks of what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=SHOWN)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line and each backend")
    asked = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as place:
        torch.multiprocessing.start_processes(rank_main, (asked, place), asked.ranks, start_method="fork")


if __name__ == "__main__":
    main()
