"""pycomm.moe against one process that holds all experts: values, gradients, counts, hosts, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks

SIZES = (1, 2, 3, 4)
HIDDEN, TOPK, EACH = 24, 3, 4


def tokens(rank: int, size: int, dtype: torch.dtype, kind: str):
    """Return a rank's tokens, experts and weights: the same wherever it is called."""
    random = torch.Generator().manual_seed(1000 * size + rank)
    experts = EACH * size
    count = {"none": 0, "one rank": 5 if rank == size - 1 else 0}.get(kind, 7 + 9 * rank)
    x = torch.randn(count, HIDDEN, generator=random, dtype=torch.float64).to(dtype)
    likely = torch.ones(experts) if kind == "even" else 1 / torch.arange(1, experts + 1) ** 2
    if kind == "empty":  # nobody wants the last rank's, nor one of the first rank's; with one rank, all want the same
        likely[-EACH:] = 0
        likely[1] = 0
        likely[0] = 1
    idx = torch.stack([choose(likely, random) for _ in range(count)]) if count else torch.empty(0, TOPK).long()
    if kind == "skewed":
        idx[torch.rand(idx.shape, generator=random) < 0.3] = -1
    if kind == "nowhere":
        idx[:] = -1
    weights = torch.rand(count, TOPK, generator=random, dtype=torch.float64)
    return x, idx, weights.to(torch.float64 if dtype is torch.float64 else torch.float32)


def choose(likely: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return distinct experts for a token, as many as there are or TOPK; -1 for the rest."""
    few = min(TOPK, int((likely > 0).sum()))
    chosen = torch.full((TOPK,), -1)
    chosen[:few] = torch.multinomial(likely, few, generator=random)
    return chosen


def matrices(size: int) -> torch.Tensor:
    return torch.randn(EACH * size, HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / (
        HIDDEN**0.5
    )


def experts_sum(x, idx, weights, experts):
    """Return what experts make of tokens, weighted and added up: the same code with all experts and with some."""
    out = torch.zeros_like(x)
    for e, matrix in enumerate(experts):
        rows, slot = (idx == e).nonzero(as_tuple=True)
        if len(rows):
            out = out.index_add(0, rows, torch.tanh(x[rows] @ matrix) * weights[rows, slot, None].to(x.dtype))
    return out


def layer(dtype: torch.dtype, kind: str, hosts: list[list[int]] | None) -> None:
    """Compare a whole layer, and its gradients, with the layer that holds all experts, on the tokens of all ranks."""
    from pycomm.moe import Buffer

    rank, size = dist.get_rank(), dist.get_world_size()
    comm = dist.group.WORLD.engine.comm
    as_it_is, comm.groups = comm.groups, hosts or comm.groups
    try:
        buffer = Buffer()
    finally:
        comm.groups = as_it_is
    x, idx, weights = tokens(rank, size, dtype, kind)
    x.requires_grad_(), weights.requires_grad_()
    mine = matrices(size)[rank * EACH : (rank + 1) * EACH].to(dtype).requires_grad_()
    for _ in range(2):  # the second finds memory that was used
        x.grad = weights.grad = mine.grad = None
        recv_x, recv_idx, recv_weights, counts, handle, event = buffer.dispatch(
            x, topk_idx=idx, topk_weights=weights, num_experts=EACH * size
        )
        assert event is None and recv_x.dtype is dtype and recv_x.is_contiguous()
        out, _, _ = buffer.combine(experts_sum(recv_x, recv_idx, recv_weights, mine), handle)
        (out.double() * torch.arange(1.0, HIDDEN + 1)).sum().backward()

    everything = [tokens(r, size, dtype, kind) for r in range(size)]
    arrived = [(t_x[n], t_idx[n]) for t_x, t_idx, _ in everything for n in range(len(t_x))]
    arrived = [(row, i) for row, i in arrived if ((i // EACH == rank) & (i >= 0)).any()]
    assert len(recv_x) == len(arrived), "each token once"
    assert sorted(row.tolist() for row in recv_x) == sorted(row.tolist() for row, _ in arrived)
    all_idx = torch.cat([i for _, i, _ in everything])
    assert counts == [int((all_idx == rank * EACH + e).sum()) for e in range(EACH)]
    assert not recv_weights[recv_idx < 0].any()

    all_experts = matrices(size).to(dtype).double().requires_grad_()
    wanted = []
    for r, (t_x, t_idx, t_weights) in enumerate(everything):
        t_x, t_weights = t_x.double().requires_grad_(), t_weights.double().requires_grad_()
        result = experts_sum(t_x, t_idx, t_weights, all_experts)
        if result.requires_grad:  # some token has an expert
            (result * torch.arange(1.0, HIDDEN + 1)).sum().backward()
        if r == rank:
            wanted = [result, t_x.grad, t_weights.grad]
    grad = torch.zeros_like(all_experts) if all_experts.grad is None else all_experts.grad
    wanted.append(grad[rank * EACH : (rank + 1) * EACH])
    close = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 4e-2}[dtype]
    names, results = ("out", "x", "weights", "experts"), (out, x.grad, weights.grad, mine.grad)
    for name, got, want in zip(names, results, wanted, strict=True):
        want = torch.zeros_like(got, dtype=torch.float64) if want is None else want
        got = torch.zeros_like(want) if got is None else got
        scale = max(1.0, float(want.abs().max()) if want.numel() else 1.0)
        assert got.shape == want.shape, name
        assert not want.numel() or float((got.double() - want).abs().max()) <= close * scale, name


@pytest.mark.parametrize("kind", ["even", "skewed", "empty", "nowhere", "none", "one rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_layer_is_as_in_one_process(pool, size, dtype, kind):
    pool(size)(layer, dtype, kind, None)


@pytest.mark.parametrize("kind", ["even", "skewed", "empty", "one rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hosts", [[[0, 1], [2, 3]], [[0, 2], [3, 1]], [[0, 1, 2], [3]]], ids=str)
def test_a_layer_over_hosts_is_as_in_one_process(pool, hosts, dtype, kind):
    pool(4)(layer, dtype, kind, hosts)


def crossing() -> tuple[int, int, int]:
    """Return rows that leave this rank's host when tokens go by hosts and directly, and the layout's count."""
    from pycomm.moe import Buffer, exchange

    rank = dist.get_rank()
    comm = dist.group.WORLD.engine.comm
    hosts, as_it_is = [[0, 1], [2, 3]], comm.groups
    sent = []
    rows = exchange.Exchange.rows

    def counted(self, own, counts, *others):
        members = self._pointers.comm._ranks
        sent.append(sum(n for n, to in zip(counts, members, strict=True) if to // 2 != rank // 2))
        rows(self, own, counts, *others)

    exchange.Exchange.rows = counted
    results = []
    try:
        for layout in (hosts, as_it_is):
            comm.groups = layout
            buffer = Buffer()
            comm.groups = as_it_is
            x, idx, _ = tokens(rank, 4, torch.float32, "even")
            *_, handle, _ = buffer.dispatch(x, topk_idx=idx, num_experts=4 * EACH)
            sent.clear()
            buffer.dispatch(x, handle)
            results.append(sum(sent))
            if layout is hosts:
                _, per_host, *_ = buffer.get_dispatch_layout(idx, 4 * EACH)
                results.append(int(per_host[1 - rank // 2]))
    finally:
        exchange.Exchange.rows, comm.groups = rows, as_it_is
    return tuple(results)


def test_a_token_crosses_between_hosts_once(pool):
    for by_hosts, layout, direct in pool(4)(crossing):
        assert by_hosts == layout < direct


def layout() -> None:
    from pycomm.moe import Buffer

    size = dist.get_world_size()
    idx = torch.tensor([[0, 1], [0, EACH * size - 1], [-1, -1], [-1, 2]])
    per_rank, per_host, per_expert, to, event = Buffer().get_dispatch_layout(idx, EACH * size)
    assert per_host is None and event is None and per_rank.dtype is per_expert.dtype is torch.int32
    assert to.tolist() == [[r in {e // EACH for e in row if e >= 0} for r in range(size)] for row in idx.tolist()]
    assert per_rank.tolist() == to.sum(0).tolist()
    assert per_expert.tolist() == [int((idx == e).sum()) for e in range(EACH * size)]


@pytest.mark.parametrize("size", SIZES)
def test_layout(pool, size):
    pool(size)(layout)


def again() -> None:
    """Send other rows the same way, sum weights on the way back, and see that each call is the other's gradient."""
    from pycomm.moe import Buffer

    rank, size = dist.get_rank(), dist.get_world_size()
    buffer = Buffer(dist.group.WORLD)
    x, idx, weights = tokens(rank, size, torch.float64, "skewed")
    recv_x, _, recv_weights, _, handle, _ = buffer.dispatch(
        x, topk_idx=idx, topk_weights=weights, num_experts=EACH * size
    )
    other = (2 * x[:, :5]).requires_grad_()
    got, *nothing, second, _ = buffer.dispatch(other, handle)
    assert nothing == [None] * 3 and torch.equal(got, 2 * recv_x[:, :5])
    seeds = torch.Generator().manual_seed(rank)
    y = torch.randn(got.shape, generator=seeds, dtype=torch.float64).requires_grad_()
    z = torch.randn(other.shape, generator=seeds, dtype=torch.float64)
    returned, returned_weights, _ = buffer.combine(y, second, recv_weights)
    # each weight is on one rank alone, and those of no expert nowhere
    assert torch.equal(returned_weights, weights.where(idx >= 0, 0))
    # <dispatch(a), y> = <a, combine(y)> is what makes one the gradient of the other
    pair = torch.stack([(got * y).sum(), (other * returned).sum()]).detach()
    dist.all_reduce(pair)
    assert torch.allclose(pair[0], pair[1])
    (grad_y,) = torch.autograd.grad(returned, y, z, retain_graph=True)
    assert torch.equal(grad_y, buffer.dispatch(z, handle)[0])
    (grad_x,) = torch.autograd.grad(got, other, y.detach())
    assert torch.equal(grad_x, returned.detach())
    with torch.no_grad():
        assert not buffer.dispatch(other, handle)[0].requires_grad


@pytest.mark.parametrize("size", SIZES)
def test_a_handle_sends_other_rows_the_same_way(pool, size):
    pool(size)(again)


def caught(function, *args, **kwargs) -> tuple[str, str, list[str]]:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error), [k.__name__ for k in type(error).__mro__]
    return "", "", []


def disagree(what: str) -> list[tuple[str, str, list[str]]]:
    from pycomm.moe import Buffer

    rank, size = dist.get_rank(), dist.get_world_size()
    odd = rank == size - 1
    buffer = Buffer()
    experts = EACH * size
    idx = torch.zeros(3, 2 + (odd and what == "num_topk"), dtype=torch.int64)
    x = torch.ones(3, 8 + 8 * (odd and what == "hidden size"))
    x = x.to(torch.bfloat16 if odd and what == "dtype" else torch.float32)
    weights = torch.ones(idx.shape) if odd and what == "dtype of topk_weights" else None
    if what in ("handle", "call"):
        one, two = (buffer.dispatch(x, topk_idx=idx, num_experts=experts) for _ in range(2))
        if what == "handle":
            first = caught(buffer.combine, one[0], (two if odd else one)[4])
        elif odd:
            first = caught(buffer.combine, one[0], one[4])
        else:
            first = caught(buffer.dispatch, x, one[4])
    else:
        experts *= 1 + (odd and what == "num_experts")
        first = caught(buffer.dispatch, x, topk_idx=idx, topk_weights=weights, num_experts=experts)
    # all have heard of it, so that the group goes on
    good = buffer.dispatch(torch.ones(2, 4), topk_idx=torch.zeros(2, 1).long(), num_experts=size)
    assert buffer.combine(good[0], good[4])[0].sum() == 8
    return [first]


@pytest.mark.parametrize(
    "what", ["hidden size", "dtype", "num_experts", "num_topk", "dtype of topk_weights", "handle", "call"]
)
@pytest.mark.parametrize("size", SIZES[1:])
def test_a_disagreement_is_an_error_on_all_ranks(pool, size, what):
    for ((name, text, family),) in pool(size)(disagree, what):
        assert name == "Mismatch" and f"disagree on the {what} of" in text and "DistBackendError" in family, text


def refused() -> None:
    from pycomm.moe import Buffer

    size = dist.get_world_size()
    buffer = Buffer()
    x, idx, n = torch.ones(3, 8), torch.zeros(3, 2, dtype=torch.int64), EACH * size
    recv_x, *_, handle, _ = buffer.dispatch(x, topk_idx=idx, num_experts=n)

    def dispatch(x=x, handle=None, **fields):
        fields = {"topk_idx": idx, "num_experts": n} | fields if handle is None else fields
        return caught(buffer.dispatch, x, handle, **fields)

    for (name, text, family), words in [
        (dispatch(torch.ones(8)), "x has shape [8]"),
        (dispatch([1.0]), "x has shape list"),
        (dispatch(torch.ones(3, 8, device="meta")), "on meta"),
        (dispatch(torch.ones(3, 8).to_sparse()), "sparse"),
        (dispatch(torch.ones(2, 8)), "topk_idx has 3 rows and must have 2"),
        (dispatch(topk_idx=idx.int()), "topk_idx is torch.int32"),
        (dispatch(topk_idx=idx[0]), "of shape [2]"),
        (dispatch(topk_idx=idx + n), f"from {n} to {n}"),
        (dispatch(topk_idx=idx - 2), "from -2 to -2"),
        (dispatch(num_experts=n + 1), f"num_experts is {n + 1}") if size > 1 else (dispatch(num_experts=0), "is 0"),
        (dispatch(num_experts=None), "needs topk_idx and num_experts"),
        (dispatch(topk_weights=torch.ones(3, 3)), "topk_weights is torch.float32 of shape [3, 3]"),
        (dispatch(topk_weights=idx), "topk_weights is torch.int64"),
        (dispatch(handle=handle, topk_idx=idx), "leave them out"),
        (dispatch(handle=(handle,)), "handle is a tuple"),
        (caught(buffer.combine, recv_x, None), "handle is a NoneType"),
        (dispatch(torch.ones(2, 8), handle), "x has 2 rows and must have 3"),
        (caught(buffer.combine, torch.ones(len(recv_x) + 1, 8), handle), f"must have {len(recv_x)} rows"),
        (caught(buffer.combine, recv_x, handle, torch.ones(len(recv_x) + 1, 2)), "topk_weights has"),
        (caught(buffer.combine, recv_x.int(), handle), "torch.int32 cannot be added up"),
    ]:
        assert name == "InvalidArgument" and words in text and "DistBackendError" in family, (name, text, words)


@pytest.mark.parametrize("size", (1, 2))
def test_what_is_wrong_is_named(pool, size):
    pool(size)(refused)


def late() -> tuple[str, str, list[str]]:
    from pycomm.moe import Buffer

    dist.group.WORLD.set_timeout(timedelta(seconds=1))
    buffer = Buffer()
    if dist.get_rank():
        time.sleep(3)
        return caught(dist.barrier)
    return caught(
        buffer.dispatch, torch.ones(2, 4), topk_idx=torch.zeros(2, 1).long(), num_experts=dist.get_world_size()
    )


def test_nobody_waits_beyond_the_deadline():
    with Ranks(2) as ranks:
        (name, text, family), (other, *_) = ranks(late)
        assert name == "DeadlineExceeded" and "TimeoutError" in family, text
        assert other


def gone() -> None:
    from pycomm.moe import Buffer

    buffer = Buffer()
    dist.destroy_process_group()
    name, text, _ = caught(buffer.dispatch, torch.ones(2, 4), topk_idx=torch.zeros(2, 1).long(), num_experts=1)
    assert name == "InvalidArgument" and "freed" in text, text


def test_a_group_that_is_gone_is_refused():
    with Ranks(1) as ranks:
        ranks(gone)


def foreign() -> None:
    from pycomm.moe import Buffer

    name, text, _ = caught(Buffer)
    assert name == "InvalidArgument" and "this one is gloo" in text, text
    name, text, _ = caught(Buffer, "a group")
    assert name == "InvalidArgument" and "this one is str" in text, text


def test_a_group_of_another_backend_is_refused():
    with Ranks(1, backend="gloo") as ranks:
        ranks(foreign)


def test_without_torch_the_error_says_so():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import pycomm; pycomm.Comm\n"
        "from pycomm.errors import InvalidArgument\n"
        "try: import pycomm.moe\n"
        "except InvalidArgument as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "pip install torch" in done.stdout


def test_pycomm_alone_loads_no_torch():
    program = "import sys, pycomm; pycomm.Comm; print('torch' in sys.modules, 'pycomm.moe' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
