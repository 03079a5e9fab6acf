"""A model's sizes are read from its tensors, and its tensors carry the official names."""

from __future__ import annotations

import pytest
from model.small_models import SMALL

from antiphon.errors import FileError
from antiphon.model.init import initial_weights
from antiphon.model.spec import ModelSpec

# The tensors of RWKV-x070 files: outside of layers, and after `blocks.N.`.
OUTSIDE = (
    "emb.weight", "blocks.0.ln0.weight", "blocks.0.ln0.bias", "ln_out.weight", "ln_out.bias", "head.weight",
)  # fmt: skip
IN_A_LAYER = (
    "ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a",
    "att.x_g", "att.w0", "att.r_k", "att.w1", "att.w2", "att.a1", "att.a2", "att.a0", "att.g1", "att.g2", "att.v2",
    "att.v1", "att.v0", "att.k_k", "att.k_a", "att.receptance.weight", "att.key.weight", "att.value.weight",
    "att.output.weight", "att.ln_x.weight", "att.ln_x.bias", "ffn.x_k", "ffn.key.weight", "ffn.value.weight",
)  # fmt: skip


def test_the_names_are_the_official_ones() -> None:
    names = {f"blocks.{layer}.{name}" for layer in range(SMALL.n_layer) for name in IN_A_LAYER} | set(OUTSIDE)
    assert set(SMALL.shapes()) == names - {f"blocks.0.att.v{i}" for i in range(3)}


@pytest.mark.parametrize("spec", [SMALL, ModelSpec.of_width(n_layer=6, n_embd=256, vocab_size=410)])
def test_a_spec_is_what_its_tensors_say(spec: ModelSpec) -> None:
    weights = initial_weights(spec, seed=1)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    assert shapes == spec.shapes()
    assert ModelSpec.of_tensors(shapes) == spec
    assert sum(tensor.numel() for tensor in weights.values()) == spec.parameters


def test_ranks_follow_the_official_rule() -> None:
    # RWKV-LM's RWKV-v7/train_temp: width 768 has ranks 64, 64, 32 and 128.
    spec = ModelSpec.of_width(n_layer=12, n_embd=768, vocab_size=65536)
    assert (spec.decay_rank, spec.iclr_rank, spec.value_rank, spec.gate_rank) == (64, 64, 32, 128)
    assert spec.ffn_dim == 4 * 768


def test_a_spec_survives_json_and_nothing_else_does() -> None:
    assert ModelSpec.from_json(SMALL.to_json()) == SMALL
    for text in ("{}", "[]", "no", SMALL.to_json().replace('"n_layer": 3', '"n_layer": 0')):
        with pytest.raises(ValueError, match=r"keys|positive|Expecting"):
            ModelSpec.from_json(text)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of head_size"):
        ModelSpec.of_width(n_layer=1, n_embd=100, vocab_size=10)


def test_other_tensors_are_no_rwkv7() -> None:
    with pytest.raises(FileError, match=r"blocks\.N"):
        ModelSpec.of_tensors({"model.embed_tokens.weight": (100, 10)})


def test_the_same_seed_gives_the_same_weights() -> None:
    one, same, other = (initial_weights(SMALL, seed=seed) for seed in (1, 1, 2))
    assert all(tensor.equal(same[name]) for name, tensor in one.items())
    assert not one["emb.weight"].equal(other["emb.weight"])
