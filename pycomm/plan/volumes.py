"""The collectives of one step of training: which ranks, how many bytes, how often; docs/plan.md has the derivations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .model import Model, Training

# Activations of a layer that the backward pass needs, in bytes for each number of the layer's input, with attention
# that keeps no scores (FlashAttention); of that, what tensor parallelism does not shard without sequence parallelism
# (Korthikanti et al., "Reducing activation recomputation", MLSys 2023, equations 1 and 2).
_KEPT, _KEPT_WHOLE, _KEPT_INPUT = 34.0, 10.0, 2.0


class Transfer(NamedTuple):
    """What each rank of a group takes part in, several times a step.

    Attributes:
        name: what it is for.
        degree: of parallelism, whose groups do it, all at once (see `pycomm.plan.cluster.groups`).
        collective: its name, or "send" to the next rank of the group.
        nbytes: n, the bytes of a rank's full vector (see `Schedule.share`); of a send, those of the message.
        calls: how many in a step.
        hides: behind which part of computing: "forward", "backward", "pipeline" (other micro-batches), "" (none).
    """

    name: str
    degree: str
    collective: str
    nbytes: float
    calls: int
    hides: str

    def sent(self, ranks: int) -> float:
        """Return what each rank at least sends in a step, in bytes, in a group of so many ranks."""
        part = {"allreduce": 2 * (ranks - 1) / ranks, "send": 1.0}.get(self.collective, (ranks - 1) / ranks)
        return self.calls * self.nbytes * part


class State(NamedTuple):
    """Bytes that a card keeps.

    Attributes:
        weights, gradients, optimizer: of its part of the model.
        activations: what the backward pass of the micro-batches under way needs.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float


def shared_parameters(model: Model, training: Training) -> float:
    """Return how many parameters that are in no expert a rank has: one on the stage that has most."""
    outer = model.outer_parameters if training.pipeline == 1 else model.embedding
    return (model.layer_parameters / training.pipeline + outer) / training.tensor


def expert_parameters(model: Model, training: Training) -> float:
    """Return how many parameters of experts a rank has."""
    return model.expert_parameters / (training.pipeline * training.tensor * training.expert)


def transfers(model: Model, training: Training) -> list[Transfer]:
    """Return all transfers of a step, those of groups of one rank left out."""
    size = {degree: getattr(training, degree) for degree in ("tensor", "data", "pipeline", "expert")}
    size["replica"] = training.data // training.expert
    every = [*_tensor(model, training), *_experts(model, training), *_pipeline(model, training)]
    for name, degree, parameters in (
        ("", "data", shared_parameters(model, training)),
        (" of experts", "replica", expert_parameters(model, training)),
    ):
        every += _replicas(name, degree, parameters, training)
    return [one for one in every if size[one.degree] > 1 and one.nbytes > 0]


def state(model: Model, training: Training) -> State:
    """Return what a card must keep: one on the stage that has most."""
    kept = [0.0, 0.0, 0.0]
    for parameters, replicas in (
        (shared_parameters(model, training), training.data),
        (expert_parameters(model, training), training.data // training.expert),
    ):
        each = (training.weight_bytes, training.gradient_bytes, training.optimizer_bytes)
        for which, (nbytes, sharded_from) in enumerate(zip(each, (3, 2, 1), strict=True)):
            kept[which] += parameters * nbytes / (replicas if training.zero >= sharded_from else 1)
    numbers = training.micro * model.sequence * model.hidden
    layers = model.layers // training.pipeline
    if training.recompute:
        each_layer = _KEPT_INPUT / (training.tensor if training.sequence else 1)
        once = _KEPT / training.tensor
    else:
        whole = 0.0 if training.sequence else _KEPT_WHOLE
        each_layer, once = whole + (_KEPT - whole) / training.tensor, 0.0
    under_way = min(training.pipeline, training.micro_batches)  # of the first stage, with one forward, one backward
    return State(kept[0], kept[1], kept[2], numbers * (each_layer * layers * under_way + once))


def _rows(model: Model, training: Training) -> float:
    """Return the bytes of the activations of a micro-batch."""
    return training.micro * model.sequence * model.hidden * training.activation_bytes


def _tensor(model: Model, training: Training) -> Iterator[Transfer]:
    """Yield what joins the parts of a layer: after attention and feed-forward, forward and backward."""
    passes = 6 if training.recompute else 4  # the forward pass once more
    count = passes * model.layers // training.pipeline * training.micro_batches
    rows = _rows(model, training)
    if training.sequence:
        yield Transfer("activations, scatter", "tensor", "reduce_scatter", rows, count, "")
        yield Transfer("activations, gather", "tensor", "allgather", rows, count, "")
    else:
        yield Transfer("activations", "tensor", "allreduce", rows, count, "")


def _experts(model: Model, training: Training) -> Iterator[Transfer]:
    """Yield dispatch and combine, forward and backward."""
    if model.experts:
        passes = 6 if training.recompute else 4
        count = passes * model.expert_layers // training.pipeline * training.micro_batches
        rows = _rows(model, training) * model.top_k * model.capacity
        part = training.tensor if training.sequence else 1
        yield Transfer("tokens to experts", "expert", "alltoall", rows / part, count, "")


def _pipeline(model: Model, training: Training) -> Iterator[Transfer]:
    """Yield activations to the next stage; their gradients, backward, are as many."""
    part = training.tensor if training.sequence else 1
    rows = _rows(model, training) / part
    yield Transfer("stage to stage", "pipeline", "send", rows, 2 * training.micro_batches, "pipeline")


def _replicas(name: str, degree: str, parameters: float, training: Training) -> Iterator[Transfer]:
    """Yield what keeps replicas equal: gradients, and weights where they are sharded."""
    gradients, weights = parameters * training.gradient_bytes, parameters * training.weight_bytes
    m = training.micro_batches
    if training.zero == 0:
        yield Transfer(f"gradients{name}", degree, "allreduce", gradients, 1, "backward")
        return
    often = 1 if training.zero == 1 else m  # sharded gradients cannot wait for the last micro-batch
    yield Transfer(f"gradients{name}", degree, "reduce_scatter", gradients, often, "backward")
    if training.zero == 3:
        yield Transfer(f"weights{name}, forward", degree, "allgather", weights, m, "forward")
        yield Transfer(f"weights{name}, backward", degree, "allgather", weights, m, "backward")
    else:
        yield Transfer(f"weights{name}", degree, "allgather", weights, 1, "forward")
