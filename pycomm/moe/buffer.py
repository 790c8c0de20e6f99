"""Buffer: dispatch and combine of a mixture of experts, shaped like DeepEP's, and differentiable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from ..communicator.comm import Comm
from ..errors import InvalidArgument, Mismatch, PycommError
from ..torch.errors import as_torch
from ..torch.group import PycommGroup
from ..torch.tensors import CODES, Tensor
from .exchange import Exchange, Staging
from .route import Hop, Route, ranks_of, table

_NAMES = dict(zip(CODES.values(), CODES, strict=True))
_CALLS = ("dispatch", "dispatch with a handle", "combine")
_FIELDS = ("call", "handle", "hidden size", "dtype", "num_experts", "num_topk", "dtype of topk_weights")
_NONE = -1  # in the place of a dtype: there is no such tensor


class Handle(NamedTuple):
    """What `dispatch` leaves for `combine`, and for a further dispatch of the same tokens. Its content is private."""

    route: Route
    thread: Tensor  # empty; ties the gradient of `combine` to that of `dispatch`, on ranks too that got no token


@contextmanager
def _torch_errors() -> Iterator[None]:
    try:
        yield
    except PycommError as error:
        raise as_torch(error) from error.__cause__


class Buffer:
    """Sends tokens to the ranks that hold their experts and adds up what those return.

    Expert e lives on rank e // (num_experts / size). A token that is routed to several experts of one rank is sent
    there once. Where the group's ranks lie on several hosts, equally many on each, it is sent once to each host and
    handed on inside of it, and what returns is added up on the host before it travels.

    Names and shapes are those of DeepEP's Buffer (github.com/deepseek-ai/DeepEP, deep_ep/buffer.py), with these
    differences. A dispatch works out its layout itself, so it takes num_experts instead of get_dispatch_layout's
    results. There are no buffer sizes, configurations, streams or events: a call returns when it is done, and None
    stands where DeepEP has an event. Both calls are differentiable, once.

    dispatch and combine are collective, as is making a Buffer; so is the backward pass through them. They raise
    pycomm's errors, which are torch's DistBackendErrors too: InvalidArgument for wrong shapes, on the rank that gave
    them; Mismatch, on all ranks, if they disagree on what they call; DeadlineExceeded after the group's timeout.

    Attributes:
        group: the group.
        rank, group_size: this process's place in the group.

    Args:
        group: a process group whose backend is pycomm; None: the default group. Make one Buffer and keep it: its
            memory grows to what the largest call needs.
    """

    @_torch_errors()
    def __init__(self, group: Any = None) -> None:
        group = dist.group.WORLD if group is None else group
        if not isinstance(group, PycommGroup):
            kind = dist.get_backend(group) if isinstance(group, dist.ProcessGroup) else type(group).__name__
            raise InvalidArgument(
                f"a moe.Buffer needs a process group whose backend is pycomm, and this one is {kind}: make it with "
                'init_process_group("pycomm") or new_group(backend="pycomm")'
            )
        self.group = group
        comm = group.engine.comm
        self.rank, self.group_size = comm.rank, comm.size
        self._staging = Staging()
        self._routes = 0
        self._everyone = Exchange(comm)
        self._hosts = _even_hosts(comm)
        if self._hosts is not None:
            self._host = next(h for h, host in enumerate(self._hosts) if comm.rank in host)
            place = self._hosts[self._host].index(comm.rank)
            across, inside = comm.Split(place, self._host), comm.Split(self._host, place)
            assert across is not None and inside is not None
            self._levels = across, inside
            self._across, self._inside = Exchange(across), Exchange(inside)

    @_torch_errors()
    def get_dispatch_layout(
        self, topk_idx: Tensor, num_experts: int
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        """Count what a dispatch will send. This alone is not collective.

        Args:
            topk_idx: int64 [tokens, k], each token's experts; -1: none.
            num_experts: in all ranks together.

        Returns:
            num_tokens_per_rank: int32 [size].
            num_tokens_per_rdma_rank: int32 [hosts]: tokens to each host; None where they do not go by hosts.
            num_tokens_per_expert: int32 [num_experts].
            is_token_in_rank: bool [tokens, size].
            event: None.
        """
        each = self._check_experts(topk_idx, num_experts)
        to = ranks_of(topk_idx, table(range(self.group_size), each, self.group_size), self.group_size)
        per_host = None
        if self._hosts is not None:
            per_host = self._to_hosts(topk_idx, each).sum(0, dtype=torch.int32)
        per_expert = topk_idx[topk_idx >= 0].bincount(minlength=num_experts).to(torch.int32)
        return to.sum(0, dtype=torch.int32), per_host, per_expert, to, None

    @_torch_errors()
    def dispatch(
        self,
        x: Tensor,
        handle: Handle | None = None,
        *,
        topk_idx: Tensor | None = None,
        topk_weights: Tensor | None = None,
        num_experts: int | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[int] | None, Handle, None]:
        """Send each token to the ranks of its experts.

        Args:
            x: [tokens, hidden], of a dtype that pycomm computes with; their number may differ from rank to rank.
            handle: of an earlier dispatch: send other rows of the same tokens the same way, in place of the rest.
            topk_idx: int64 [tokens, k], each token's experts; -1: none.
            topk_weights: [tokens, k], floating point; None: there are none.
            num_experts: in all ranks together, a multiple of their number.

        Returns:
            recv_x: [received, hidden], in an order that is the same each time.
            recv_topk_idx: int64 [received, k], experts by their number on this rank; -1: none of this rank's.
            recv_topk_weights: [received, k], 0 where recv_topk_idx is -1.
            num_recv_tokens_per_expert_list: tokens for each expert of this rank.
            handle: for `combine`, and further dispatches.
            event: None.
            With a handle the second, third and fourth are None.
        """
        _check_rows(x)
        if handle is not None:
            _check_handle(handle)
            if not (topk_idx is None and topk_weights is None and num_experts is None):
                raise InvalidArgument("a handle has its own topk_idx, topk_weights and num_experts: leave them out")
            _check_length(x, handle.route.tokens, "tokens, as the dispatch that gave the handle had")
            grads = self._agree(1, handle.route.number, x, None)
            recv_x, _, thread = _Scatter.apply(_anchor(any(grads)), x, None, handle.route, grads)
            return recv_x, None, None, None, Handle(handle.route, thread), None
        if topk_idx is None or num_experts is None:
            raise InvalidArgument("dispatch needs topk_idx and num_experts, or a handle")
        each = self._check_experts(topk_idx, num_experts)
        _check_length(topk_idx, x.size(0), "rows, as many as x", "topk_idx")
        if topk_weights is not None:
            _check_weights(topk_weights, topk_idx)
        grads = self._agree(0, 0, x, topk_weights, num_experts, topk_idx.size(1))
        route, idx = self._route(topk_idx, each)
        recv_x, recv_weights, thread = _Scatter.apply(_anchor(any(grads)), x, topk_weights, route, grads)
        idx = idx - self.rank * each
        here = (idx >= 0) & (idx < each)
        if recv_weights is not None:
            recv_weights = recv_weights.where(here, 0)
        per_expert = idx[here].bincount(minlength=each).tolist()
        return recv_x, idx.where(here, -1), recv_weights, per_expert, Handle(route, thread), None

    @_torch_errors()
    def combine(
        self, x: Tensor, handle: Handle, topk_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, None]:
        """Return rows to where their tokens came from, and add them up there, without weights.

        Args:
            x: [received, hidden], float32, float64, float16 or bfloat16: what this rank's experts make of recv_x.
            handle: of the dispatch.
            topk_weights: [received, k], to be added up likewise; None: there are none.

        Returns:
            recv_x: [tokens, hidden]; zeros for a token that was sent nowhere.
            recv_topk_weights: [tokens, k], or None.
            event: None.
        """
        _check_rows(x)
        _check_handle(handle)
        route, thread = handle
        _check_length(x, route.received, "rows, one for each token that dispatch received")
        if topk_weights is not None:
            _check_rows(topk_weights, "topk_weights")
            _check_length(
                topk_weights, route.received, "rows, one for each token that dispatch received", "topk_weights"
            )
        width = 0 if topk_weights is None else topk_weights.size(1)
        grads = self._agree(2, route.number, x, topk_weights, num_topk=width)
        tied = thread if thread.requires_grad else _anchor(any(grads))
        combined, weights = _Gather.apply(tied, x, topk_weights, route, grads)
        return combined, weights, None

    def _route(self, topk_idx: Tensor, each: int) -> tuple[Route, Tensor]:
        """Make the way of some tokens; returns also the experts of those that come."""
        self._routes += 1
        if self._hosts is None:
            to = ranks_of(topk_idx, table(range(self.group_size), each, self.group_size), self.group_size)
            hop = Hop(self._everyone, self._staging, to)
            return Route([hop], self._routes), hop.scatter(topk_idx)
        for comm in self._levels:
            comm.set_timeout(self.group.options._timeout.total_seconds())
        across = Hop(self._across, self._staging, self._to_hosts(topk_idx, each))
        idx = across.scatter(topk_idx)
        host = self._hosts[self._host]
        places = [host.index(r) if r in host else len(host) for r in range(self.group_size)]
        to = ranks_of(idx, table(places, each, len(host)), len(host))
        inside = Hop(self._inside, self._staging, to)
        return Route([across, inside], self._routes), inside.scatter(idx)

    def _to_hosts(self, topk_idx: Tensor, each: int) -> Tensor:
        assert self._hosts is not None
        host_of = {rank: h for h, host in enumerate(self._hosts) for rank in host}
        hosts = len(self._hosts)
        return ranks_of(topk_idx, table((host_of[r] for r in range(self.group_size)), each, hosts), hosts)

    def _agree(self, call: int, handle: int, x: Tensor, weights: Tensor | None, num_experts: int = 0,
               num_topk: int = 0) -> tuple[bool, bool]:  # fmt: skip
        """See that all ranks make the same call; returns whether some rank wants gradients of x, and of weights."""
        wants = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (x, weights)]
        kind = _NONE if weights is None else CODES[weights.dtype]
        mine = [call, handle, x.size(1), CODES[x.dtype], num_experts, num_topk, kind]
        everyone = self._everyone.facts([*mine, *map(int, wants)])
        for rank, facts in enumerate(everyone):
            for name, here, there in zip(_FIELDS, mine, facts, strict=False):
                if here != there:
                    raise Mismatch(
                        f"ranks disagree on the {name} of a {_CALLS[call]}: rank {self.rank} has {_said(name, here)} "
                        f"and rank {rank} {_said(name, there)}: make the same call on all ranks",
                        rank,
                    )
        return any(facts[-2] for facts in everyone), any(facts[-1] for facts in everyone)

    def _check_experts(self, topk_idx: Tensor, num_experts: int) -> int:
        """Return how many experts a rank has; raise InvalidArgument unless arguments fit."""
        if num_experts < 1 or num_experts % self.group_size:
            raise InvalidArgument(f"num_experts is {num_experts} and must be a multiple of the {self.group_size} ranks")
        if topk_idx.dtype is not torch.int64 or topk_idx.dim() != 2 or not topk_idx.size(1):
            raise InvalidArgument(
                f"topk_idx is {topk_idx.dtype} of shape {list(topk_idx.shape)} and must be int64 of shape [tokens, k]"
            )
        if topk_idx.numel():
            low, high = (int(end) for end in topk_idx.aminmax())
            if low < -1 or high >= num_experts:
                raise InvalidArgument(
                    f"topk_idx goes from {low} to {high} and must stay within 0 to {num_experts - 1}, or be -1 for none"
                )
        return num_experts // self.group_size


class _Scatter(torch.autograd.Function):  # type: ignore[misc]
    """Route.scatter of rows and weights; its gradient is Route.gather.

    It takes and returns an empty tensor beside them, which wants a gradient if something does on any rank: so the
    backward pass comes through here on all ranks, also on those whose rows nobody has used.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, weights: Tensor | None, route: Route, grads: Sequence[bool]
    ) -> Any:
        ctx.route, ctx.grads = route, grads
        return route.scatter(x), None if weights is None else route.scatter(weights), anchor.new_zeros(0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, x: Tensor, weights: Tensor | None, thread: Tensor) -> Any:
        return thread, *_both(ctx, Route.gather, x, weights), None, None


class _Gather(torch.autograd.Function):  # type: ignore[misc]
    """Route.gather of rows and weights; its gradient is Route.scatter. The empty tensor is that of _Scatter."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, weights: Tensor | None, route: Route, grads: Sequence[bool]
    ) -> Any:
        ctx.route, ctx.grads = route, grads
        return route.gather(x), None if weights is None else route.gather(weights)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, x: Tensor, weights: Tensor | None) -> Any:
        return x.new_zeros(0, dtype=torch.float32), *_both(ctx, Route.scatter, x, weights), None, None


def _both(ctx: Any, way: Any, x: Tensor, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Send gradients where some rank wants them."""
    with _torch_errors():
        return tuple(  # type: ignore[return-value]
            way(ctx.route, grad) if wanted else None for grad, wanted in zip((x, weights), ctx.grads, strict=True)
        )


def _anchor(wants: bool) -> Tensor:
    return torch.zeros(0, dtype=torch.float32, requires_grad=wants)


def _even_hosts(comm: Comm) -> list[list[int]] | None:
    """Return the ranks of each host if there are several hosts with equally many ranks, and more than one on each."""
    hosts = [list(_members(group)) for group in (() if comm.groups is None else comm.groups)]
    return hosts if len(hosts) > 1 and len({len(host) for host in hosts}) == 1 and len(hosts[0]) > 1 else None


def _members(group: Any) -> Iterator[int]:
    if isinstance(group, int):
        yield group
    else:
        for inner in group:
            yield from _members(inner)


def _said(field: str, value: int) -> str:
    if field.startswith("dtype"):
        return "none" if value == _NONE else str(_NAMES[value])
    if field == "handle":
        return f"that of dispatch {value}"
    return _CALLS[value] if field == "call" else str(value)


def _check_rows(x: Any, what: str = "x") -> None:
    if not isinstance(x, torch.Tensor) or x.dim() != 2 or not x.size(1):
        shape = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise InvalidArgument(f"{what} has shape {shape} and must be a tensor of shape [rows, columns]")
    if not x.is_cpu or x.layout is not torch.strided or x.dtype not in CODES:
        raise InvalidArgument(
            f"{what} is {x.dtype}, {x.layout}, on {x.device}, and must be a dense tensor on the CPU, of a dtype that "
            "pycomm computes with"
        )


def _check_handle(handle: Any) -> None:
    if not isinstance(handle, Handle):
        raise InvalidArgument(f"handle is a {type(handle).__name__} and must be what a dispatch returned as its fifth")


def _check_length(x: Tensor, rows: int, meaning: str, what: str = "x") -> None:
    if x.size(0) != rows:
        raise InvalidArgument(f"{what} has {x.size(0)} rows and must have {rows} {meaning}")


def _check_weights(weights: Tensor, topk_idx: Tensor) -> None:
    _check_rows(weights, "topk_weights")
    if weights.shape != topk_idx.shape or not weights.is_floating_point():
        raise InvalidArgument(
            f"topk_weights is {weights.dtype} of shape {list(weights.shape)} and must be floating point, of topk_idx's "
            f"shape {list(topk_idx.shape)}"
        )
