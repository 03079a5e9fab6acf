"""Adapters are known by their shapes and merged by the maths of their trainers (S0-161, S1-073)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model import bnb_rounding
from antiphon.model.adapter_file import AdapterFile
from antiphon.model.adapters import Adapter, AdapterKind
from antiphon.model.stored import StoredTensor

OUT, IN, RANK = 24, 16, 4
KEY, PREFIX = "blocks.0.ffn.key.weight", "blocks.0.ffn.key"
SHAPES = {KEY: (OUT, IN), "blocks.0.att.key.weight": (IN, IN), "blocks.0.att.x_k": (1, 1, IN)}


def stored(**tensors: Tensor) -> dict[str, StoredTensor]:
    """An opened file; `__` in a name stands for a dot."""
    return {
        name.replace("__", "."): StoredTensor(
            shape=tuple(tensor.shape), dtype=tensor.dtype, stored="F32", read=tensor.clone
        )
        for name, tensor in tensors.items()
    }


def at(suffixes: dict[str, Tensor], prefix: str = PREFIX) -> dict[str, StoredTensor]:
    return stored(**{f"{prefix}.{suffix}".replace(".", "__"): tensor for suffix, tensor in suffixes.items()})


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


WEIGHT, A, B = rand(OUT, IN), rand(RANK, IN, seed=1), rand(OUT, RANK, seed=2)
A0, B0 = rand(RANK, IN, seed=3), rand(OUT, RANK, seed=4)


def test_a_lora_adds_its_product_times_alpha_over_rank() -> None:
    adapter = Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f", alpha=10)
    assert adapter.kinds == (AdapterKind.LORA,)
    torch.testing.assert_close(adapter.merged(KEY, WEIGHT), WEIGHT + 10 / RANK * (B @ A))
    other = rand(IN, IN)
    assert adapter.merged("blocks.0.att.key.weight", other) is other


@pytest.mark.parametrize(
    "names",
    [("lora_A", "lora_B"), ("lora_A.weight", "lora_B.weight"), ("lora_A.default.weight", "lora_B.default.weight"),
     ("lora_a", "lora_b"), ("lora.0", "lora.1")],
)  # fmt: skip
@pytest.mark.parametrize("leading", ["", "model.", "base_model.model.", "_forward_module."])
def test_names_of_all_releases_are_the_same_adapter(names: tuple[str, str], leading: str) -> None:
    found = Adapter.of(at({names[0]: A, names[1]: B}, leading + PREFIX), SHAPES, where="f", alpha=4)
    torch.testing.assert_close(found.merged(KEY, WEIGHT), WEIGHT + B @ A)


def test_factors_may_stand_the_other_way_round() -> None:
    found = Adapter.of(at({"lora.0": A.T, "lora.1": B}), SHAPES, where="f", alpha=4)
    torch.testing.assert_close(found.merged(KEY, WEIGHT), WEIGHT + B @ A)
    found = Adapter.of(at({"lora.0": A.T, "lora.1": B.T}), SHAPES, where="f", alpha=4)
    torch.testing.assert_close(found.merged(KEY, WEIGHT), WEIGHT + B @ A)


def test_a_lora_without_an_alpha_is_not_guessed() -> None:
    with pytest.raises(FileError, match=r"f: a LoRA, whose alpha is not in the file"):
        Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f")


@pytest.mark.parametrize("leading", ["", "model."])
@pytest.mark.parametrize("init", ["init_", ""])
def test_pissa_takes_out_what_it_began_with(leading: str, init: str) -> None:
    first = at({f"{init}lora_A": A0, f"{init}lora_B": B0}, leading + PREFIX)
    adapter = Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f", first=first)
    assert adapter.kinds == (AdapterKind.PISSA,)
    expected = (WEIGHT - B0 @ A0).bfloat16().float() + B @ A
    torch.testing.assert_close(adapter.merged(KEY, WEIGHT), expected, rtol=0, atol=1e-6)


def test_pissa_of_one_file_needs_no_other() -> None:
    both = at({"lora_A": A, "lora_B": B, "init_lora_A": A0, "init_lora_B": B0})
    assert Adapter.of(both, SHAPES, where="f").kinds == (AdapterKind.PISSA,)


def test_pissa_whose_first_factors_lack_a_weight_is_refused() -> None:
    first = at({"init_lora_A": A0, "init_lora_B": B0}, "blocks.9.ffn.key")
    with pytest.raises(FileError, match="missing among the factors that PiSSA began with"):
        Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f", first=first)


def test_pissa_that_returns_to_its_beginning_changes_nothing() -> None:
    weight = WEIGHT.bfloat16()
    part = at({"lora_A": A0, "lora_B": B0, "init_lora_A": A0, "init_lora_B": B0})
    merged = Adapter.of(part, SHAPES, where="f").merged(KEY, weight)
    assert merged.dtype is torch.bfloat16
    torch.testing.assert_close(merged.float(), weight.float(), rtol=0, atol=0.1)


def test_pissa_on_a_quantized_base_rounds_the_residual_first() -> None:
    both = at({"lora_A": A, "lora_B": B, "init_lora_A": A0, "init_lora_B": B0})
    found = Adapter.of(both, SHAPES, where="f", rounding=bnb_rounding.nf4).merged(KEY, WEIGHT)
    expected = bnb_rounding.nf4(WEIGHT - B0 @ A0).bfloat16().float() + B @ A
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (expected - WEIGHT - B @ A + B0 @ A0).abs().max() > 0.01


@pytest.mark.parametrize("name", ["disha", "bone"])
@pytest.mark.parametrize("rank", [4, 5, 16])
def test_bone_adds_its_shards_to_every_rth_column(name: str, rank: int) -> None:
    shards = rand(rank, OUT)
    adapter = Adapter.of(at({name: shards}), SHAPES, where="f")
    assert adapter.kinds == (AdapterKind.BONE,)
    merged = adapter.merged(KEY, WEIGHT)
    for column in range(IN):
        torch.testing.assert_close(merged[:, column], WEIGHT[:, column] + shards[column % rank])


@pytest.mark.parametrize("rank", [4, 5])
def test_bone_equals_what_its_trainer_computes(rank: int) -> None:
    shards, x = rand(rank, OUT), rand(7, IN)
    padded = torch.nn.functional.pad(x, (0, -IN % rank))
    trained = x @ WEIGHT.T + padded.view(7, -1, rank).sum(1) @ shards
    torch.testing.assert_close(x @ Adapter.of(at({"bone": shards}), SHAPES, where="f").merged(KEY, WEIGHT).T, trained)


@pytest.mark.parametrize("name", ["disha", "bone"])
def test_bat_multiplies_and_adds_block_by_block(name: str) -> None:
    blocks = rand(IN // RANK, RANK, RANK)
    adapter = Adapter.of(at({name: blocks}), SHAPES, where="f")
    assert adapter.kinds == (AdapterKind.BAT,)
    merged = adapter.merged(KEY, WEIGHT)
    for a in range(0, OUT, RANK):
        for b in range(0, IN, RANK):
            block, change = WEIGHT[a : a + RANK, b : b + RANK], blocks[b // RANK]
            torch.testing.assert_close(merged[a : a + RANK, b : b + RANK], block + block @ change + change)


def test_thin_forms_beside_the_weight_equal_the_merged_one() -> None:
    x = rand(3, IN)
    first = at({"lora_A": A0, "lora_B": B0})
    kinds = {
        "lora": Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f", alpha=3),
        "pissa": Adapter.of(at({"lora_A": A, "lora_B": B}), SHAPES, where="f", first=first),
        "bone": Adapter.of(at({"disha": rand(5, OUT)}), SHAPES, where="f"),
    }
    for name, adapter in kinds.items():
        thin = adapter.thin(KEY, inputs=IN)
        assert thin is not None
        assert thin.before.shape[1] == IN
        assert thin.after.shape == (OUT, thin.before.shape[0])
        beside = x @ WEIGHT.T + (x @ thin.before.T) @ thin.after.T
        # PiSSA's merge rounds the residual to bfloat16, as its trainer holds it.
        tolerance = 0.2 if name == "pissa" else 1e-4
        torch.testing.assert_close(beside, x @ adapter.merged(KEY, WEIGHT).T, rtol=0, atol=tolerance)
        assert adapter.thin("blocks.0.att.key.weight", inputs=IN) is None
        assert not adapter.mergeable_only


def test_bat_and_whole_tensors_can_only_be_merged() -> None:
    bat = Adapter.of(at({"disha": rand(IN // RANK, RANK, RANK)}), SHAPES, where="f")
    assert bat.mergeable_only
    with pytest.raises(ValueError, match="merge it"):
        bat.thin(KEY, inputs=IN)
    assert Adapter.of(stored(blocks__0__att__x_k=rand(IN)), SHAPES, where="f").mergeable_only


def test_what_was_trained_along_takes_the_models_place_before_the_adapter() -> None:
    mixes, weight, state = rand(IN), rand(OUT, IN, seed=9), rand(2, 8, 8)
    parts = at({"lora_A": A, "lora_B": B, "weight": weight}) | stored(
        model__blocks__0__att__x_k=mixes, blocks__0__att__time_state=state
    )
    adapter = Adapter.of(parts, SHAPES, where="f", alpha=RANK)
    assert torch.equal(adapter.merged("blocks.0.att.x_k", rand(1, 1, IN)), mixes.view(1, 1, IN))
    torch.testing.assert_close(adapter.merged(KEY, WEIGHT), weight + B @ A)
    assert torch.equal(adapter.states["blocks.0.att.time_state"].read(), state)


def test_an_adapter_of_another_model_is_refused_by_name() -> None:
    def message(parts: dict[str, StoredTensor]) -> str:
        with pytest.raises(FileError) as caught:
            Adapter.of(parts, SHAPES, where="f", alpha=1)
        return str(caught.value)

    assert "changes blocks.7.ffn.key.weight" in message(at({"lora_A": A, "lora_B": B}, "blocks.7.ffn.key"))
    assert "which do not fit its weight [24, 16]" in message(at({"lora_A": rand(4, 17), "lora_B": B}))
    assert "one of its two factors only" in message(at({"lora_A": A}))
    assert "neither Bone's [r, 24] nor Bat's [16 / r, r, r]" in message(at({"bone": rand(24, 4)}))
    assert "neither Bone's" in message(at({"bone": rand(2, 4, 4)}))
    assert "tensor blocks.0.att.q is neither" in message(stored(blocks__0__att__q=A))
    assert "has shape [15], and the model's [1, 1, 16]" in message(stored(blocks__0__att__x_k=rand(15)))
    assert "holds no adapter" in message(stored(blocks__0__att__time_state=rand(2, 8, 8)))
    spoilt = A.clone()
    spoilt[1, 1] = torch.nan
    assert "holds a NaN or an infinity" in message(at({"lora_A": spoilt, "lora_B": B}))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "rwkv-3.safetensors"
    save_file({f"{PREFIX}.lora_A": A, f"{PREFIX}.lora_B": B}, path)
    return path


@pytest.mark.parametrize(
    ("name", "told"),
    [("rwkv-3.safetensors.json", {"alpha": 8}), ("rwkv-3.json", {"alpha": 8.0}),
     ("adapter_config.json", {"lora_alpha": 8})],
)  # fmt: skip
def test_alpha_is_found_beside_the_file(lora: Path, name: str, told: dict[str, float]) -> None:
    (lora.parent / name).write_text(json.dumps(told))
    torch.testing.assert_close(AdapterFile(path=lora).open(SHAPES).merged(KEY, WEIGHT), WEIGHT + 2 * (B @ A))
    given = AdapterFile(path=lora, alpha=4).open(SHAPES)
    torch.testing.assert_close(given.merged(KEY, WEIGHT), WEIGHT + B @ A)


def test_alpha_may_be_in_the_files_own_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"{PREFIX}.lora_A": A, f"{PREFIX}.lora_B": B}, path, {"alpha": "8"})
    torch.testing.assert_close(AdapterFile(path=path).open(SHAPES).merged(KEY, WEIGHT), WEIGHT + 2 * (B @ A))


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[1]",
        '{"alpha": "much"}',
        '{"alpha": 0}',
        '{"alpha": true}',
        '{"alpha": NaN}',
        '{"alpha": 1' + 400 * "0" + "}",
    ],
)
def test_a_sidecar_that_says_nonsense_is_refused(lora: Path, text: str) -> None:
    lora.with_suffix(".json").write_text(text)
    with pytest.raises(FileError, match=r"rwkv-3\.json"):
        AdapterFile(path=lora).open(SHAPES)


def test_roundings_are_idempotent_and_coarse_as_their_bits() -> None:
    weight = rand(64, 64)
    errors = {}
    for name, rounding in bnb_rounding.ROUNDINGS.items():
        once = rounding(weight)
        torch.testing.assert_close(rounding(once), once)
        errors[name] = float((once - weight).pow(2).mean().sqrt())
    assert errors["4bit"] == errors["fp4"]
    assert 0.005 < errors["int8"] < errors["nf4"] < errors["fp4"] < 0.2
