"""Parameters, operations and bytes, against numbers that were published or reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pycomm.plan import Model, Training, state, transfers
from pycomm.plan.volumes import expert_parameters

GPT2 = Model("gpt", 12, 768, 12, 12, 3072, 50257, 1024)
LLAMA_7B = Model("llama", 32, 4096, 32, 32, 11008, 32000, 4096)
LLAMA_70B = Model("llama", 80, 8192, 64, 8, 28672, 32000, 4096)
MIXTRAL = Model("llama", 32, 4096, 32, 8, 14336, 32000, 4096, experts=8, top_k=2)
SMALL = Model("gpt", 4, 64, 4, 4, 256, 1000, 32)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (GPT2, 124_439_808),  # Radford et al., "Language models are unsupervised multitask learners", as released
        (LLAMA_7B, 6_738_415_616),  # Touvron et al., "Llama 2", as released
        (LLAMA_70B, 68_976_648_192),
        (MIXTRAL, 46_702_792_704),  # Jiang et al., "Mixtral of experts", as released
    ],
)
def test_parameters_are_those_of_the_models_that_were_released(model: Model, parameters: int):
    assert model.parameters == parameters


def test_operations_are_those_of_narayanan_et_al():
    gpt3 = Model("gpt", 96, 12288, 96, 96, 4 * 12288, 51200, 2048)
    h, layers, s, vocabulary = 12288, 96, 2048, 51200
    with_backward = 72 * s * layers * h**2 * (1 + s / (6 * h) + vocabulary / (12 * layers * h))
    assert 3 * gpt3.flops * s == pytest.approx(with_backward, rel=1e-12)


def by_name(model: Model, training: Training) -> dict[str, tuple[str, str, float, int]]:
    return {one.name: (one.degree, one.collective, one.nbytes, one.calls) for one in transfers(model, training)}


def test_a_small_gpt_by_hand():
    found = by_name(SMALL, Training(32, 2, data=4, tensor=2, pipeline=2))
    rows = 2 * 32 * 64 * 2  # sequences, tokens, hidden, bytes
    layer = 12 * 64 * 64 + 13 * 64
    assert found == {
        "activations": ("tensor", "allreduce", rows, 4 * 2 * 4),  # 2 layers of a stage, 4 micro-batches
        "stage to stage": ("pipeline", "send", rows, 2 * 4),
        "gradients": ("data", "allreduce", (2 * layer + 1000 * 64) / 2 * 2, 1),
    }


def test_sequence_parallelism_sends_as_much_in_two_halves():
    plain, halves = (by_name(SMALL, Training(32, 2, 4, 2, 2, sequence=on)) for on in (False, True))
    _, _, nbytes, calls = plain["activations"]
    assert halves["activations, scatter"] == ("tensor", "reduce_scatter", nbytes, calls)
    assert halves["activations, gather"] == ("tensor", "allgather", nbytes, calls)
    assert halves["stage to stage"][2] == plain["stage to stage"][2] / 2


@pytest.mark.parametrize(("zero", "times"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_zero_sends_what_its_authors_say(zero: int, times: int):
    """Rajbhandari et al., SC 2020, section 7: 2 parameters' worth for each, and 3 where weights are sharded."""
    training = Training(8, 1, data=8, zero=zero)
    sent = sum(one.sent(8) for one in transfers(LLAMA_7B, training))
    assert sent == pytest.approx(times * 7 / 8 * 2 * LLAMA_7B.parameters)


@pytest.mark.parametrize("zero", range(4))
def test_zero_shards_what_its_authors_say(zero: int):
    """The same, figure 1: 7.5 billion parameters on 64 cards take 120, 31.4, 16.6 and 1.9 GB."""
    model = replace(LLAMA_7B, vocabulary=1)
    scale = 7.5e9 / model.parameters
    weights, gradients, optimizer, _ = state(model, Training(64, 1, data=64, zero=zero))
    assert scale * (weights + gradients + optimizer) / 1e9 == pytest.approx((120, 31.4, 16.6, 1.9)[zero], rel=0.02)


def test_sharded_gradients_do_not_wait_for_the_last_micro_batch():
    found = by_name(SMALL, Training(32, 2, data=4, zero=3))
    assert [found[name][3] for name in ("gradients", "weights, forward", "weights, backward")] == [4, 4, 4]


def test_tokens_go_to_experts_and_back_forward_and_backward():
    found = by_name(MIXTRAL, Training(64, 1, data=16, expert=8))
    rows = 4096 * 4096 * 2
    assert found["tokens to experts"] == ("expert", "alltoall", 2 * rows, 4 * 32 * 4)
    assert found["gradients of experts"] == ("replica", "allreduce", 2 * MIXTRAL.expert_parameters / 8, 1)
    shared = MIXTRAL.parameters - MIXTRAL.expert_parameters
    assert found["gradients"] == ("data", "allreduce", 2 * shared, 1)


def test_degrees_share_out_all_parameters():
    training = Training(64, 1, data=8, tensor=2, pipeline=4, expert=4)
    assert expert_parameters(MIXTRAL, training) * 2 * 4 * 4 == MIXTRAL.expert_parameters


def test_recomputing_keeps_less_and_sends_more():
    plain, again = (Training(32, 2, 4, 2, 2, recompute=on) for on in (False, True))
    assert state(SMALL, again).activations < state(SMALL, plain).activations
    assert by_name(SMALL, again)["activations"][3] == 1.5 * by_name(SMALL, plain)["activations"][3]
