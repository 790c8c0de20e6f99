"""What a step of training takes: computing, the communication that nothing hides, and the bubble of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .cluster import Cluster, Reals, groups
from .group import widths
from .model import Model, Training
from .price import Price, Pricer
from .volumes import Transfer, transfers

_BACKWARD = 2.0  # operations of the backward pass over those of the forward pass


@dataclass(frozen=True)
class Row:
    """A transfer with its price.

    Attributes:
        transfer: what it is.
        groups: how many groups do it at once.
        ranks: of each group.
        price: of one call, in the group that is worst off.
        seconds: of one call; with unequal shards less than `price.seconds`.
        exposed: seconds of the step that nothing hides.
    """

    transfer: Transfer
    groups: int
    ranks: int
    price: Price
    seconds: float
    exposed: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all calls of a step together."""
        return self.transfer.calls * self.seconds


@dataclass(frozen=True)
class Step:
    """One step of training.

    Attributes:
        model, training, cluster: of what.
        rows: all transfers.
        compute: seconds that the replica that needs longest computes.
        bubble: seconds in which stages of the pipeline wait for the first and the last micro-batch.
        needed: seconds that all cards would need if they shared the operations in proportion to their speed, and did
            not communicate.
    """

    model: Model
    training: Training
    cluster: Cluster
    rows: tuple[Row, ...]
    compute: float
    bubble: float
    needed: float

    @property
    def exposed(self) -> float:
        """Seconds of communication that nothing hides."""
        return sum(row.exposed for row in self.rows)

    @property
    def seconds(self) -> float:
        """What the step takes."""
        return self.compute + self.bubble + self.exposed

    @property
    def efficiency(self) -> float:
        """The part of the cards' reachable speed that is used, 0 to 1."""
        return self.needed / self.seconds

    @property
    def utilisation(self) -> float:
        """The operations that the model needs over what the data sheets of the cards promise (MFU)."""
        flops = 3 * self.model.flops * self.tokens
        return flops / float(self.cluster.flops.sum()) / self.seconds

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.training.batch * self.model.sequence


def step(model: Model, training: Training, cluster: Cluster, pricer: Pricer) -> Step:
    """Price a step.

    Args:
        model, training, cluster: what is trained, how, and where.
        pricer: of the cluster's topology.
    """
    rows = [_row(transfer, training, cluster, pricer) for transfer in transfers(model, training)]
    passes = (1.0, _BACKWARD + training.recompute)
    work = model.flops * training.micro * model.sequence / (training.tensor * training.pipeline)
    speed = replicas(training, cluster) * training.utilisation  # of the slowest card of each replica
    forward, backward = (work * times / float(speed.min()) for times in passes)
    inner = sum(row.total for row in rows if not row.transfer.hides) / training.micro_batches
    each = work * sum(passes) / speed + inner  # seconds of a micro-batch
    taken = _micro_batches(each, training)
    last = int((each * (taken + training.pipeline - 1)).argmax())
    compute = float(taken[last] * (each[last] - inner))
    bubble = (training.pipeline - 1) * float(each[last])
    windows = {"forward": forward, "backward": backward}
    if training.unequal_batch:
        windows = {name: seconds * float(speed.min() / speed[last]) for name, seconds in windows.items()}
    scale = float(taken[last]) / training.micro_batches
    rows = _exposed(rows, model, training, windows, scale)
    needed = work * sum(passes) * training.batch / training.micro * training.tensor * training.pipeline
    needed /= float(cluster.flops.sum()) * training.utilisation
    return Step(model, training, cluster, tuple(rows), compute, bubble, needed)


def _row(transfer: Transfer, training: Training, cluster: Cluster, pricer: Pricer) -> Row:
    members = groups(training, cluster.layout, transfer.degree)
    price = pricer.call(transfer.collective, members, transfer.nbytes)
    seconds = price.seconds
    if training.unequal_shards and transfer.degree in ("data", "replica"):
        seconds = min(seconds, unequal_shards(transfer, price))
    return Row(transfer, len(members), members.shape[1], price, seconds)


def unequal_shards(transfer: Transfer, price: Price) -> float:
    """Return what a call could take if each rank's part were as large as its links allow.

    Of an allreduce by direct messages, T = max(2 (p - 1) n / sum b, n / min b), for bandwidths b of p ranks: rank i,
    whose part is w_i, sends and receives n (1 + (p - 2) w_i), so that T = n (1 + (p - 2) w_i) / b_i for all i if parts
    are not negative. Halves of it, reduce-scatter and allgather, take max((p - 1) n / sum b, max (1 - w_i) n / b_i),
    where w_i = b_i / sum b. Never less than the bound, which holds for parts of any size.
    """
    assert price.share is not None and price.bound is not None
    rates, n, p = widths(price.share), transfer.nbytes, price.share.topology.size
    if transfer.collective == "allreduce":
        seconds = max(2 * (p - 1) * n / rates.sum(), n / rates.min())
    else:
        part = rates / rates.sum()
        received, sent = (p - 1) * part * n / rates, (1 - part) * n / rates
        seconds = float(max(received.max(), sent.max()))
    return max(float(seconds), price.bound.seconds)


def replicas(training: Training, cluster: Cluster) -> Reals:
    """Return the speed of the slowest card of each replica, operations a second."""
    by_replica = groups(training, cluster.layout, "data").T  # [replica, its cards]
    speed: Reals = cluster.flops[by_replica].min(axis=1)
    return speed


def _micro_batches(each: Reals, training: Training) -> Reals:
    """Return how many micro-batches each replica takes, given the seconds that one takes it."""
    if not training.unequal_batch:
        return np.full(len(each), float(training.micro_batches))
    wanted, fill = training.batch // training.micro, training.pipeline - 1
    low, high = 0.0, float(each.max()) * (wanted + fill)
    for _ in range(100):
        middle = (low + high) / 2
        if np.maximum(np.floor(middle / each + 1e-9) - fill, 0).sum() >= wanted:
            high = middle
        else:
            low = middle
    taken: Reals = np.maximum(np.floor(high / each + 1e-9) - fill, 0)
    return taken


def _exposed(
    rows: Sequence[Row], model: Model, training: Training, windows: dict[str, float], scale: float
) -> list[Row]:
    """Return the rows with the seconds of each that nothing hides; docs/plan.md has the rules.

    Args:
        rows: without.
        model, training: of the step.
        windows: seconds of the forward and of the backward pass of a micro-batch.
        scale: micro-batches of the replica that needs longest, over those of an equal share.
    """
    layers = model.layers // training.pipeline
    found = []
    for row in rows:
        hides, total = row.transfer.hides, row.total
        if not hides:
            exposed = total * scale
        elif not training.overlap:
            fill = (training.pipeline - 1) / training.micro_batches if hides == "pipeline" else 0.0
            exposed = total * (1 + fill)
        elif hides == "pipeline":
            steady = total - training.micro_batches * sum(windows.values())
            exposed = 2 * (training.pipeline - 1) * row.seconds + max(0.0, steady)
        else:
            beside = sum(other.seconds for other in rows if other.transfer.hides == hides)
            left = max(beside - windows[hides], beside / layers)  # what the last layer has to send hides nowhere
            exposed = row.transfer.calls * left * row.seconds / beside
        found.append(replace(row, exposed=exposed))
    return found
