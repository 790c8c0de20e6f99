"""The examples beside training in one process: in float64, where losses, weights and gradients must agree closely."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, free_port
from torch import Tensor, nn

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import checkpoint  # noqa: E402
import common  # noqa: E402
import context_parallel  # noqa: E402
import ddp  # noqa: E402
import ddp_compressed  # noqa: E402
import ddp_hooks  # noqa: E402
import ddp_uneven  # noqa: E402
import elastic  # noqa: E402
import expert_parallel  # noqa: E402
import fsdp  # noqa: E402
import pipeline  # noqa: E402
import tensor_parallel  # noqa: E402
import three_d  # noqa: E402
import zero1  # noqa: E402

STEPS = 3
State = dict[str, Tensor]
Outcome = tuple[dict[int, float], State]


# ---- on all ranks ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def state(nets: list[nn.Module]) -> State:
    """Return all weights that a rank has a part of, whole, and their gradients as NAME.grad."""
    found = {}
    for net in nets:
        for name, weight in net.named_parameters():
            for key, tensor in ((name, weight), (f"{name}.grad", weight.grad)):
                if tensor is not None:
                    found[key] = getattr(tensor, "full_tensor", lambda tensor=tensor: tensor)().detach().clone()
    return found


def trained(train: Callable[..., common.Result], dtype: torch.dtype, options: dict[str, Any]) -> Outcome:
    with default(dtype):
        losses, nets = train(**options)
        return losses, state(nets)


def every(
    pool: Any, size: int, train: Callable[..., common.Result], *, dtype: torch.dtype = torch.float64, **options: Any
) -> list[Outcome]:
    return pool(size)(trained, train, dtype, {"steps": STEPS, **options})


# ---- in one process --------------------------------------------------------------------------------------------------


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.5)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=0.003)


def backward(net: nn.Module, tokens: Tensor, targets: Tensor) -> float:
    loss = common.loss_of(net(tokens), targets)
    loss.backward()
    return loss.item()


@functools.cache
def alone(
    make: Callable[[], nn.Module] = common.Transformer,
    optimize: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    backward: Callable[[nn.Module, Tensor, Tensor], float] = backward,
    dtype: torch.dtype = torch.float64,
    steps: int = STEPS,
) -> Outcome:
    """Train here, where nothing is distributed."""
    torch.set_num_threads(1)
    with default(dtype):
        net = make()
        optimizer = optimize(net)
        losses = {}
        for step in range(steps):
            optimizer.zero_grad()
            losses[step] = backward(net, *common.batch(step))
            optimizer.step()
        return losses, state([net])


def same_state(got: State, wanted: State) -> None:
    assert set(got) <= set(wanted)
    for name, tensor in got.items():
        torch.testing.assert_close(
            tensor, wanted[name], rtol=1e-7, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


def same(outcomes: list[Outcome], wanted: Outcome) -> None:
    """Compare what each rank has; all that one process has must be on some rank."""
    for losses, got in outcomes:
        assert losses == pytest.approx(wanted[0], rel=1e-9)
        same_state(got, wanted[1])
    assert set().union(*(got for _, got in outcomes)) == set(wanted[1])


# ---- data parallelism ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_ddp(pool, size, accumulate):
    same(every(pool, size, ddp.train, accumulate=accumulate), alone())


def test_ddp_finds_unused_parameters(pool):
    steps = iter(range(STEPS))

    def backward_that_drops_layers(net, tokens, targets):
        step = next(steps)
        parts = zip(tokens.chunk(3), targets.chunk(3), range(3), strict=True)
        loss = sum(common.loss_of(net(x, str((rank + step) % 4)), y) for x, y, rank in parts) / 3
        loss.backward()
        return loss.item()

    wanted = alone(backward=backward_that_drops_layers)
    assert wanted[0] != alone()[0]
    same(every(pool, 3, ddp.train, layer_drop=True), wanted)


def backward_through_bfloat16(net: nn.Module, tokens: Tensor, targets: Tensor) -> float:
    losses, sums = [], [torch.zeros_like(weight, dtype=torch.bfloat16) for weight in net.parameters()]
    for x, y in zip(tokens.chunk(2), targets.chunk(2), strict=True):
        net.zero_grad()
        losses.append(backward(net, x, y))
        for total, weight in zip(sums, net.parameters(), strict=True):
            total += weight.grad.to(torch.bfloat16) / 2
    for total, weight in zip(sums, net.parameters(), strict=True):
        weight.grad.copy_(total)
    return sum(losses) / 2


def test_ddp_with_gradients_in_bfloat16(pool):
    wanted = alone(backward=backward_through_bfloat16)
    assert wanted[0] != pytest.approx(alone()[0], rel=1e-9)
    same(every(pool, 2, ddp_hooks.train, hook="bf16"), wanted)


def test_ddp_with_powersgd(pool):
    # The factors are linear in the gradients, so one rank with the whole batch must find the same.
    # Two steps are plain, and the fifth pays what the third and fourth have missed.
    wanted = every(pool, 1, ddp_hooks.train, hook="powersgd", steps=5)[0]
    assert wanted[0] != pytest.approx(alone(steps=5)[0], rel=1e-9)
    same(every(pool, 3, ddp_hooks.train, hook="powersgd", steps=5), wanted)


@pytest.mark.parametrize(("kind", "relative"), [("none", 1e-9), ("bf16", 1e-4), ("int8", 1e-3), ("int4", 1e-2)])
def test_ddp_compressed_between_groups(pool, kind, relative):
    wanted = alone(steps=8)[0]
    for losses, _ in every(pool, 4, ddp_compressed.train, kind=kind, groups=2, steps=8):
        assert losses == pytest.approx(wanted, rel=relative)
        assert kind == "none" or losses != pytest.approx(wanted, rel=1e-9)


def test_ddp_with_uneven_inputs(pool):
    size = 3
    losses: list[dict[int, float]] = [{} for _ in range(size)]
    steps = iter(range(STEPS))

    def backward_of_those_that_have_a_batch(net, tokens, targets):
        step = next(steps)
        for rank in range(min(size, STEPS - step)):
            loss = common.loss_of(net(tokens.chunk(size)[rank]), targets.chunk(size)[rank])
            (loss / size).backward()
            losses[rank][step] = loss.item()
        return 0.0

    _, wanted = alone(backward=backward_of_those_that_have_a_batch)
    for rank, (own, got) in enumerate(every(pool, size, ddp_uneven.train)):
        assert own == pytest.approx(losses[rank], rel=1e-9)
        # gradients are of a rank's last batch, but weights are the same in the end
        same_state({name: tensor for name, tensor in got.items() if not name.endswith(".grad")}, wanted)


@pytest.mark.parametrize(("size", "replicas"), [(2, 1), (3, 1), (4, 2)])
def test_fsdp(pool, size, replicas):
    same(every(pool, size, fsdp.train, replicas=replicas), alone())


@pytest.mark.parametrize("size", [2, 3])
def test_zero1(pool, size):
    same(every(pool, size, zero1.train), alone(optimize=adam))


# ---- models that are split -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
def test_tensor_parallel(pool, size):
    same(every(pool, size, tensor_parallel.train), alone())


def eight_layers() -> nn.Module:
    return common.Transformer(8)


@pytest.mark.parametrize("schedule", pipeline.SCHEDULES)
@pytest.mark.parametrize("size", [2, 4])
def test_pipeline(pool, size, schedule):
    same(every(pool, size, pipeline.train, schedule=schedule), alone(eight_layers))


class PlainMixture(nn.Module):
    """All experts in one place, each of which looks at all tokens."""

    def __init__(self) -> None:
        super().__init__()
        width = common.WIDTH
        self.router = nn.Linear(width, expert_parallel.EXPERTS, bias=False)
        self.experts = nn.ModuleDict(
            {
                str(i): nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
                for i in range(expert_parallel.EXPERTS)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(expert_parallel.CHOICES)
        return sum(
            (weights * (chosen == int(i))).sum(-1, keepdim=True) * expert(x) for i, expert in self.experts.items()
        )


def with_experts() -> nn.Module:
    net = common.Transformer()
    for block in net.blocks.values():
        block.feed = PlainMixture()
    return net


@pytest.mark.parametrize("size", [2, 3, 4])
def test_expert_parallel(pool, size):
    same(every(pool, size, expert_parallel.train), alone(with_experts))


@pytest.mark.parametrize("size", [2, 3])
def test_context_parallel(pool, size):
    same(every(pool, size, context_parallel.train), alone())


def ring_attention_beside_attention(causal: bool) -> None:
    with default(torch.float64):
        torch.manual_seed(0)
        wholes = [torch.randn(2, 3, 24, 5, requires_grad=True) for _ in range(3)]
        weight = torch.randn(2, 3, 24, 5)
        wanted = nn.functional.scaled_dot_product_attention(*wholes, is_causal=causal)
        wanted.backward(weight)
        parts = [common.share(whole.detach(), 2).requires_grad_() for whole in wholes]
        got = context_parallel.ring_attention(*parts, causal)
        got.backward(common.share(weight, 2))
        torch.testing.assert_close(got, common.share(wanted, 2))
        for part, whole in zip(parts, wholes, strict=True):
            torch.testing.assert_close(part.grad, common.share(whole.grad, 2))


@pytest.mark.parametrize("causal", [True, False])
def test_ring_attention(pool, causal):
    pool(4)(ring_attention_beside_attention, causal)


def test_three_parallelisms_at_once(pool):
    same(every(pool, 8, three_d.train), alone())


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_read_by_other_numbers_of_ranks(pool, tmp_path):
    losses, wanted = alone(optimize=adam)
    every(pool, 4, checkpoint.train, steps=1, folder=str(tmp_path))
    every(pool, 2, checkpoint.train, steps=2, folder=str(tmp_path))
    same(every(pool, 3, checkpoint.train, folder=str(tmp_path)), ({2: losses[2]}, wanted))


def test_a_killed_rank_changes_nothing(pool, tmp_path):
    """torchrun starts all ranks again, and the weights become those of an undisturbed run, to the bit."""
    file = tmp_path / "killed.pt"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1",
        f"--master-port={free_port()}", EXAMPLES / "elastic.py", file, f"--steps={STEPS}", "--kill-after=1",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    assert re.findall(r"step (\d+)", done.stdout) == ["1", "2"]
    undisturbed = every(pool, 2, elastic.train, dtype=torch.float32, file=str(tmp_path / "undisturbed.pt"))
    killed = torch.load(file)["model"]
    for name, tensor in killed.items():
        assert torch.equal(tensor, undisturbed[0][1][name]), name
    _, wanted = alone(optimize=adam, dtype=torch.float32)
    for name, tensor in killed.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


# ---- as commands -----------------------------------------------------------------------------------------------------

COMMANDS = {
    "checkpoint": ["FOLDER"],
    "context_parallel": [],
    "ddp": ["--accumulate", "2", "--layer-drop"],
    "ddp_compressed": ["--groups", "2"],
    "ddp_hooks": ["--hook", "powersgd"],
    "ddp_uneven": [],
    "elastic": ["FOLDER/file.pt"],
    "expert_parallel": [],
    "fsdp": ["--replicas", "2"],
    "pipeline": ["--schedule", "Interleaved1F1B"],
    "tensor_parallel": [],
    "three_d": ["--data", "1"],
    "zero1": [],
}


@pytest.fixture(scope="module")
def starters():
    with Ranks(2, "", {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}) as ranks:
        yield ranks


def as_command(name: str, arguments: list[str], port: int) -> str:
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = [f"{name}.py", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return printed.getvalue()


def test_every_example_is_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"common", "jacobi"} == set(COMMANDS)  # jacobi is for mpi4py


@pytest.mark.parametrize("name", COMMANDS)
def test_its_command_line(starters, name, tmp_path):
    arguments = [word.replace("FOLDER", str(tmp_path)) for word in COMMANDS[name]]
    printed = starters(as_command, name, [*arguments, "--steps", "3"], free_port())
    losses = [float(text) for text in re.findall(r"^step \d: loss (\d\.\d{4})$", printed[0], re.MULTILINE)]
    assert len(losses) == 3 and losses[2] < losses[0], printed
    assert printed[1] == ""


def test_pycomm_run_is_enough():
    command = [sys.executable, "-m", "pycomm", "run", "-n", "2", EXAMPLES / "ddp.py", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.startswith("step 0: loss "), done.stderr
