"""Int8 keeps every weight within half a step of its row, and what is small stays as it was."""

from __future__ import annotations

import pytest
import torch
from model.small_models import SMALL, random_weights

from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint, quantized_names
from antiphon.model.quantize import dequantize, quantize_int8
from antiphon.model.spec import ModelSpec


@pytest.fixture(scope="module")
def plain() -> Checkpoint:
    return Checkpoint(spec=SMALL, tensors=random_weights(), metadata={"seed": "0"})


def test_every_weight_is_within_half_a_step_of_its_row(plain: Checkpoint) -> None:
    whole = dequantize(quantize_int8(plain))
    for name in quantized_names(SMALL):
        exact = plain.tensors[name]
        half_a_step = exact.abs().amax(dim=1, keepdim=True) / 127 / 2
        error = (whole.tensors[name] - exact).abs()
        assert (error <= half_a_step * (1 + 1e-5)).all()
        # The bound is tight, so that a coarser grid would not pass.
        assert (error > 0.9 * half_a_step).any()


def test_the_largest_of_a_row_is_127_and_signs_are_treated_alike(plain: Checkpoint) -> None:
    negated = Checkpoint(spec=SMALL, tensors={name: -tensor for name, tensor in plain.tensors.items()})
    one, other = quantize_int8(plain), quantize_int8(negated)
    for name in quantized_names(SMALL):
        assert (one.tensors[name].abs().amax(dim=1) == 127).all()
        assert torch.equal(one.tensors[name], -other.tensors[name])
        assert torch.equal(one.tensors[f"{name}.scale"], other.tensors[f"{name}.scale"])


def test_the_big_matrices_are_int8_and_the_rest_is_untouched(plain: Checkpoint) -> None:
    packed = quantize_int8(plain)
    int8 = {name for name, tensor in packed.tensors.items() if tensor.dtype == torch.int8}
    layers = [f"blocks.{i}" for i in range(SMALL.n_layer)]
    linear = ("att.receptance", "att.key", "att.value", "att.output", "ffn.key", "ffn.value")
    assert int8 == {f"{layer}.{name}.weight" for layer in layers for name in linear} | {"emb.weight", "head.weight"}
    for name in set(plain.tensors) - int8:
        assert torch.equal(packed.tensors[name], plain.tensors[name])
        assert f"{name}.scale" not in packed.tensors
    assert packed.metadata == plain.metadata


def test_a_row_of_zeros_stays_one(plain: Checkpoint) -> None:
    tensors = dict(plain.tensors)
    tensors["head.weight"] = tensors["head.weight"].clone()
    tensors["head.weight"][5] = 0
    packed = quantize_int8(Checkpoint(spec=SMALL, tensors=tensors))
    assert (packed.tensors["head.weight"][5] == 0).all()
    assert packed.tensors["head.weight.scale"].isfinite().all()


def test_quantizing_again_changes_nothing(plain: Checkpoint) -> None:
    once = quantize_int8(plain)
    twice = quantize_int8(once)
    for name, tensor in once.tensors.items():
        torch.testing.assert_close(twice.tensors[name], tensor, rtol=1e-6, atol=0)


def test_logits_move_little() -> None:
    spec = ModelSpec.of_width(n_layer=2, n_embd=128, vocab_size=50)
    plain = Checkpoint(spec=spec, tensors=random_weights(spec))
    whole = dequantize(quantize_int8(plain))
    ids = torch.randint(0, 50, (40,), generator=torch.Generator().manual_seed(0))
    exact, _ = rwkv7.sequence(plain.tensors, ids)
    rounded, _ = rwkv7.sequence(whole.tensors, ids)
    assert 0 < float((exact - rounded).std() / exact.std()) < 0.05
