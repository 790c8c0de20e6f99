"""Expert parallelism: pycomm.moe beside what a plain user writes with gloo's all_to_all_single, in one run.

Both hand every rank the tokens of its experts and return, for each token, the weighted sum of what they make of it. The
plain way sends the counts before, and a copy for each (token, expert). The experts are the identity, so that nothing
but moving rows is timed. `grouped` adds, to both, what is done on a rank so that each expert finds its rows together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
dist = torch.distributed

RANKS, TOKENS, HIDDEN, EXPERTS, TOPK, REPETITIONS = 4, 4096, 1024, 64, 8, 7
EACH = EXPERTS // RANKS


def routing(rank: int, skew: float) -> tuple[Any, Any]:
    """Return a rank's experts and weights: expert e (in a shuffled order) is chosen as often as 1 / (e + 1)**skew."""
    likely = (1 / torch.arange(1, EXPERTS + 1) ** skew)[
        torch.randperm(EXPERTS, generator=torch.Generator().manual_seed(1))
    ]
    random = torch.Generator().manual_seed(2 + rank)
    idx = torch.multinomial(likely.expand(TOKENS, -1), TOPK, generator=random)
    weights = torch.rand(TOKENS, TOPK, generator=random)
    return idx, weights / weights.sum(1, keepdim=True)


def plainly(group: Any, x: Any, idx: Any, weights: Any, grouped: bool) -> Any:
    """Send a copy of each token to each of its experts with all_to_all_single, and add up what returns."""
    experts, order = idx.view(-1).sort(stable=True)
    source = order // TOPK
    per_expert = experts.bincount(minlength=EXPERTS)
    arriving = torch.empty_like(per_expert)
    dist.all_to_all_single(arriving, per_expert, group=group)
    sent, got = per_expert.view(RANKS, EACH).sum(1).tolist(), arriving.view(RANKS, EACH).sum(1).tolist()
    arrived = x.new_empty((sum(got), HIDDEN))
    dist.all_to_all_single(arrived, x[source], got, sent, group=group)
    leaving = arrived
    if grouped:  # they came by source, then by expert
        by_expert = torch.arange(EACH).repeat(RANKS).repeat_interleave(arriving).sort(stable=True).indices
        made = arrived[by_expert]
        leaving = torch.empty_like(made)
        leaving[by_expert] = made
    returned = x.new_empty((len(order), HIDDEN))
    dist.all_to_all_single(returned, leaving, sent, got, group=group)
    return torch.zeros_like(x).index_add_(0, source, returned.mul_(weights.view(-1)[order, None].to(x.dtype)))


def at_once(buffer: Any, x: Any, idx: Any, weights: Any, grouped: bool) -> Any:
    """Dispatch and combine. Identical experts make of a token its own weighted sum, unless each is to see its rows."""
    recv_x, recv_idx, recv_weights, _, handle, _ = buffer.dispatch(
        x, topk_idx=idx, topk_weights=weights, num_experts=EXPERTS
    )
    if not grouped:
        return buffer.combine(recv_x.mul_(recv_weights.sum(1, keepdim=True).to(x.dtype)), handle)[0]
    experts, order = recv_idx.view(-1).sort(stable=True)
    order = order[torch.searchsorted(experts, 0) :]
    rows = order // TOPK
    made = recv_x[rows].mul_(recv_weights.view(-1)[order, None].to(x.dtype))
    return buffer.combine(torch.zeros_like(recv_x).index_add_(0, rows, made), handle)[0]


def measure(place: str, dtype: str, skew: float, rank: int) -> None:
    """Take turns; rank 0 writes the times, each of the slowest rank, in seconds."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.FileStore(f"{place}/store", RANKS), rank=rank, world_size=RANKS)
    gloo, pycomm = dist.group.WORLD, dist.new_group(backend="pycomm")
    from pycomm.moe import Buffer

    buffer = Buffer(pycomm)
    idx, weights = routing(rank, skew)
    x = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(rank)).to(getattr(torch, dtype))
    ways: dict[str, Callable[[], Any]] = {
        "gloo": lambda: plainly(gloo, x, idx, weights, False),
        "pycomm": lambda: at_once(buffer, x, idx, weights, False),
        "gloo, grouped": lambda: plainly(gloo, x, idx, weights, True),
        "pycomm, grouped": lambda: at_once(buffer, x, idx, weights, True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for repetition in range(REPETITIONS + 1):
            for name, way in ways.items():
                dist.barrier(pycomm)
                start = time.perf_counter()
                out = way()
                took = torch.tensor([time.perf_counter() - start])
                dist.all_reduce(took, dist.ReduceOp.MAX, group=pycomm)
                close = 1e-5 if dtype == "float32" else 0.05
                assert (out - x).abs().max() < close * x.abs().max(), name  # the weights of a token add up to 1
                if repetition:
                    times[name].append(float(took))
    if rank == 0:
        to = buffer.get_dispatch_layout(idx, EXPERTS)[3]
        torch.save((times, int(to.sum()) / TOKENS), f"{place}/times")
    dist.destroy_process_group()


def run(place: str, dtype: str, skew: float) -> None:
    """Run `measure` in fresh processes, and wait for them."""
    command = [sys.executable, "-P", __file__, place, dtype, str(skew)]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(RANKS)]
    try:
        assert [rank.wait(100) for rank in ranks] == [0] * RANKS
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.parametrize("skew", [0.0, 1.0], ids=["even", "zipf"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_moe(benchmark: Any, capsys: Any, dtype: str, skew: float) -> None:
    """Time dispatch and combine; `speedup` is the median of gloo's times over pycomm's."""
    with tempfile.TemporaryDirectory() as place:
        benchmark.pedantic(run, (place, dtype, skew), rounds=1)
        times, copies = torch.load(f"{place}/times")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    benchmark.extra_info.update({f"{name} ms": round(took * 1e3, 1) for name, took in medians.items()})
    benchmark.extra_info["speedup"] = round(medians["gloo"] / medians["pycomm"], 2)
    with capsys.disabled():
        print(
            f"\n{RANKS} ranks, {TOKENS} tokens each, hidden {HIDDEN}, {dtype}, top {TOPK} of {EXPERTS} experts, skew "
            f"{skew:g}: {copies:.2f} copies a token in place of {TOPK}",
            file=sys.stdout,
        )
        for name, took in medians.items():
            spread = f"{min(times[name]) * 1e3:.1f} to {max(times[name]) * 1e3:.1f}"
            rival = medians[name.replace("pycomm", "gloo")]
            print(f"  {name:15} {took * 1e3:8.1f} ms ({spread})  gloo's time over it {rival / took:5.2f}")


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
