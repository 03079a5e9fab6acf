"""A model's sizes are read from its tensors, and its tensors carry the official names."""

from __future__ import annotations

import dataclasses
import json

import pytest
from model.small_models import SMALL

from antiphon.errors import FileError
from antiphon.model.init import initial_weights
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.version import version_of

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


BEFORE_7 = ("ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "ffn.key.weight", "ffn.receptance.weight",
            "ffn.value.weight", "att.key.weight", "att.value.weight", "att.receptance.weight", "att.output.weight",
            "att.time_decay")  # fmt: skip
V4 = (*BEFORE_7, "att.time_first", "att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k",
      "ffn.time_mix_r")  # fmt: skip
V5 = (*V4, "att.ln_x.weight", "att.ln_x.bias")
V5_1 = (*(name for name in V5 if name != "att.time_first"), "att.time_faaaa", "att.time_mix_g", "att.gate.weight")
V6 = (*BEFORE_7, "att.ln_x.weight", "att.ln_x.bias", "att.gate.weight", "att.time_faaaa", "att.time_maa_x",
      "att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g", "att.time_maa_w1",
      "att.time_maa_w2", "att.time_decay_w1", "att.time_decay_w2", "ffn.time_maa_k", "ffn.time_maa_r")  # fmt: skip
OFFICIAL = {"4": V4, "5.0": V5, "5.1": V5_1, "5.2": V5_1, "6": V6, "7": IN_A_LAYER}


@pytest.mark.parametrize("version", Version)
def test_every_version_has_its_official_names_and_is_known_by_them(version: Version) -> None:
    """S0-080: the version is told by the tensors' names."""
    spec = ModelSpec.of_width(version=version, n_layer=2, n_embd=96, vocab_size=29, head_size=32)
    shapes = spec.shapes()
    names = {f"blocks.{layer}.{name}" for layer in range(2) for name in OFFICIAL[version]} | set(OUTSIDE)
    assert set(shapes) == names - {f"blocks.0.att.v{i}" for i in range(3)}
    assert version_of(shapes) is version
    assert ModelSpec.of_tensors(shapes) == spec
    assert ModelSpec.from_json(spec.to_json()) == spec


SHAPES = {
    "4": {"time_decay": (96,), "time_first": (96,), "time_mix_k": (1, 1, 96)},
    "5.0": {"time_decay": (3,), "time_first": (3,), "time_mix_r": (1, 1, 96)},
    "5.1": {"time_decay": (3,), "time_faaaa": (3,), "time_mix_g": (1, 1, 96)},
    "5.2": {"time_decay": (3, 32), "time_faaaa": (3, 32)},
    "6": {"time_decay": (1, 1, 96), "time_faaaa": (3, 32), "time_maa_w1": (96, 160), "time_maa_w2": (5, 32, 96),
          "time_decay_w1": (96, 64), "time_decay_w2": (64, 96)},
}  # fmt: skip


@pytest.mark.parametrize(("version", "shapes"), SHAPES.items(), ids=SHAPES)
def test_tensors_have_the_shapes_of_the_official_files(version: str, shapes: dict[str, tuple[int, ...]]) -> None:
    spec = ModelSpec.of_width(version=Version(version), n_layer=2, n_embd=96, vocab_size=29, head_size=32)
    assert shapes.items() <= {n.removeprefix("blocks.1.att."): shape for n, shape in spec.shapes().items()}.items()


LAYERS = {"4": 5 * 96, "5.0": 2 * 96 + 96 * 32, "5.2": 2 * 96 + 96 * 32, "6": 2 * 96 + 96 * 32, "7": 2 * 96 + 96 * 32}


@pytest.mark.parametrize(("version", "numbers"), LAYERS.items(), ids=LAYERS)
def test_a_layer_remembers_as_many_numbers_as_its_version_says(version: str, numbers: int) -> None:
    spec = ModelSpec.of_width(version=Version(version), n_layer=3, n_embd=96, vocab_size=29, head_size=32)
    assert (spec.layer_floats, spec.state_floats) == (numbers, 3 * numbers)


PUBLISHED = {  # parameters in millions; RWKV-4 169M (Pile) and RWKV-6-World 1.6B by their files, the rest by name
    169.3: ModelSpec.of_width(version=Version.V4, n_layer=12, n_embd=768, vocab_size=50277),
    1599.9: ModelSpec.of_width(version=Version.V6, n_layer=24, n_embd=2048, vocab_size=65536),
    191.1: ModelSpec.of_width(n_layer=12, n_embd=768, vocab_size=65536),
}


@pytest.mark.parametrize(("millions", "spec"), PUBLISHED.items(), ids=[f"{size} M" for size in PUBLISHED])
def test_published_models_have_their_known_size(millions: float, spec: ModelSpec) -> None:
    """S2-060: the count is exact."""
    assert spec.parameters / 1e6 == pytest.approx(millions, abs=0.1)


LOOK_ALIKES = {  # a tensor that gives the relative away, and its base
    "blocks.0.ffn.s_emb.weight": ("7", "RWKV-7a"),
    "blocks.1.ffn.s0": ("7", "RWKV-7a"),
    "blocks.0.qkv.k1": ("7", "RWKV-7b"),
    "blocks.0.ffn.enn.weight": ("7", "RWKV-8"),
    "blocks.0.rosa_qkv.weight": ("7", "ROSA"),
    "blocks.0.att.time_maa_rkvw_w1": ("6", "RWKV-6 of another kind"),
    "blocks.0.att.gate_w1": ("6", "RWKV-6 of another kind"),
    "blocks.1.tiny_att.q.weight": ("4", "extra parts"),
}


@pytest.mark.parametrize(("name", "base"), LOOK_ALIKES.items(), ids=LOOK_ALIKES)
def test_a_look_alike_is_refused_by_name(name: str, base: tuple[str, str]) -> None:
    spec = ModelSpec.of_width(version=Version(base[0]), n_layer=2, n_embd=64, vocab_size=29, head_size=32)
    with pytest.raises(FileError, match=base[1]) as refusal:
        ModelSpec.of_tensors(spec.shapes() | {name: (64, 64)}, where="file.pth")
    assert name in str(refusal.value)
    assert refusal.value.where == "file.pth"


def test_layers_without_any_known_tensor_are_refused_by_what_they_have() -> None:
    """S0-080: unknown means an error."""
    with pytest.raises(FileError, match=r"no RWKV.*blocks\.0\.attn\.qkv_proj"):
        ModelSpec.of_tensors({"blocks.0.attn.qkv_proj": (3, 3)})


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


def test_a_spec_of_the_time_of_one_version_is_an_rwkv7() -> None:
    old = {key: value for key, value in json.loads(SMALL.to_json()).items() if key not in ("version", "mix_rank")}
    assert ModelSpec.from_json(json.dumps(old)) == SMALL


def test_a_rank_that_a_version_lacks_is_zero_and_one_that_it_has_is_not() -> None:
    v6 = ModelSpec.of_width(version=Version.V6, n_layer=1, n_embd=64, vocab_size=9)
    assert (v6.decay_rank, v6.mix_rank, v6.gate_rank) == (64, 32, 0)
    for change in ({"gate_rank": 8}, {"mix_rank": 0}, {"version": Version.V7}, {"version": "6"}, {"head_size": 0}):
        with pytest.raises(ValueError, match=r"must be"):
            dataclasses.replace(v6, **change)
    v4 = ModelSpec.of_width(version=Version.V4, n_layer=1, n_embd=64, vocab_size=9)
    with pytest.raises(ValueError, match="head_size must be 1"):
        dataclasses.replace(v4, head_size=64)


def test_a_spec_survives_json_and_nothing_else_does() -> None:
    assert ModelSpec.from_json(SMALL.to_json()) == SMALL
    for text in ("{}", "[]", "no", SMALL.to_json().replace('"n_layer": 3', '"n_layer": 0'),
                 SMALL.to_json().replace('"version": "7"', '"version": "8"')):  # fmt: skip
        with pytest.raises(ValueError, match=r"keys|positive|Expecting|valid"):
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
