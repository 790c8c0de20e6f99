"""What is trained: a transformer, its parameters and the operations of a token; docs/plan.md has the formulas."""

from __future__ import annotations

from dataclasses import dataclass

STYLES = ("gpt", "llama")


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer, dense or with experts.

    Attributes:
        style: "gpt" (LayerNorm, biases, learned positions, two matrices in the feed-forward part, the head is the
            embedding) or "llama" (RMSNorm, no biases, rotary positions, three matrices, a head of its own).
        layers: how many.
        hidden: width h.
        heads, kv_heads: of attention; fewer of keys and values than of queries is grouped-query attention.
        ffn: width of the feed-forward part.
        vocabulary: tokens.
        sequence: tokens of a sequence, s.
        experts: in each layer that has them; 0: the model is dense.
        top_k: experts that a token goes to.
        capacity: rows that are sent to experts, over top_k rows a token (the capacity factor of Switch and GShard).
        every: each so many-th layer has experts.
    """

    style: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    sequence: int
    experts: int = 0
    top_k: int = 1
    capacity: float = 1.0
    every: int = 1

    @property
    def expert_layers(self) -> int:
        """How many layers have experts."""
        return self.layers // self.every if self.experts else 0

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, which are those of the head too in the style of GPT."""
        return self.vocabulary * self.hidden

    @property
    def feed_forward(self) -> int:
        """Parameters of a feed-forward part, or of one expert."""
        if self.style == "gpt":
            return 2 * self.hidden * self.ffn + self.ffn + self.hidden
        return 3 * self.hidden * self.ffn

    @property
    def attention(self) -> int:
        """Parameters of a layer beside its feed-forward part: attention and two norms."""
        keys = self.hidden * self.kv_heads // self.heads
        matrices = 2 * self.hidden * self.hidden + 2 * self.hidden * keys
        if self.style == "gpt":
            return matrices + 2 * self.hidden + 2 * keys + 4 * self.hidden
        return matrices + 2 * self.hidden

    @property
    def expert_parameters(self) -> int:
        """Parameters of all experts."""
        return self.expert_layers * self.experts * self.feed_forward

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers that are not in experts; those that choose experts are."""
        dense = (self.layers - self.expert_layers) * self.feed_forward
        return self.layers * self.attention + dense + self.expert_layers * self.hidden * self.experts

    @property
    def outer_parameters(self) -> int:
        """Parameters outside of the layers: embedding, positions, last norm, head."""
        if self.style == "gpt":
            return self.embedding + self.sequence * self.hidden + 2 * self.hidden
        return 2 * self.embedding + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layer_parameters + self.expert_parameters + self.outer_parameters

    @property
    def flops(self) -> float:
        """Operations of a token forward: two for each weight of a matrix that it meets, and attention's scores.

        Narayanan et al., SC 2021, appendix: 24 s h^2 + 4 s^2 h a layer and 2 s h V for the head, a sequence; here with
        the sizes of this model's matrices. All scores count, although half of them are masked.
        """
        keys = self.hidden * self.kv_heads // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * keys
        each = (2 if self.style == "gpt" else 3) * self.hidden * self.ffn
        met = (self.layers - self.expert_layers + self.expert_layers * self.top_k) * each
        met += self.expert_layers * self.hidden * self.experts
        scores = 4 * self.layers * self.hidden * self.sequence
        return 2.0 * (self.layers * attention + met + self.embedding) + scores


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
        batch: sequences of a step.
        micro: sequences of a micro-batch.
        data, tensor, pipeline: degrees of parallelism, whose product is the number of cards.
        expert: how many ranks of the data-parallel ones share out the experts; a divisor of `data`.
        zero: 0, or which stage of ZeRO: 1 shards the optimizer, 2 gradients too, 3 weights too.
        sequence: activations are sharded between tensor-parallel parts, too (sequence parallelism).
        weight_bytes, gradient_bytes, optimizer_bytes: of a parameter.
        activation_bytes: of a number that goes between ranks in a layer.
        utilisation: the part of the cards' speed that computing reaches, 0 to 1, without communication.
        recompute: activations are computed once more for the backward pass.
        overlap: communication hides behind computing where docs/plan.md says that it can.
        unequal_batch: faster replicas take more micro-batches.
        unequal_shards: sharded gradients and weights go in parts proportional to the bandwidth of each rank.
    """

    batch: int
    micro: int
    data: int
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    zero: int = 0
    sequence: bool = False
    weight_bytes: float = 2.0
    gradient_bytes: float = 2.0
    optimizer_bytes: float = 12.0
    activation_bytes: float = 2.0
    utilisation: float = 0.5
    recompute: bool = False
    overlap: bool = True
    unequal_batch: bool = False
    unequal_shards: bool = False

    @property
    def cards(self) -> int:
        """How many cards that takes."""
        return self.data * self.tensor * self.pipeline

    @property
    def micro_batches(self) -> int:
        """How many micro-batches each replica takes, if all take as many."""
        return self.batch // (self.data * self.micro)
