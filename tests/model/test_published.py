"""The published sizes (S3-004), and shapes written as text."""

from __future__ import annotations

import pytest
import torch

from antiphon.model import rwkv7
from antiphon.model.published import names, parsed, published
from antiphon.model.random_weights import random_weights
from antiphon.model.spec import ModelSpec

# Numbers in all tensors of the released files, in millions; some hold value residuals for layer 0 too, unused.
RELEASED = {"0.1B": 191.1, "0.4B": 450.8, "1.5B": 1527.7, "2.9B": 2948.1, "7.2B": 7199.9}


@pytest.mark.parametrize(("name", "millions"), RELEASED.items())
def test_a_published_size_has_as_many_parameters_as_the_file(name: str, millions: float) -> None:
    assert published(name).parameters / 1e6 == pytest.approx(millions, abs=0.8)


def test_the_table_of_sizes_is_the_published_one() -> None:
    sizes = {name: (published(name).n_layer, published(name).n_embd) for name in names()}
    assert sizes == {
        "0.1B": (12, 768), "0.4B": (24, 1024), "1.5B": (24, 2048), "2.9B": (32, 2560), "7.2B": (32, 4096),
        "13.3B": (61, 4096),
    }  # fmt: skip


def test_a_shape_is_a_name_or_sizes() -> None:
    assert parsed("0.1b") == published("0.1B")
    assert parsed("6x256x512") == ModelSpec.of_width(n_layer=6, n_embd=256, vocab_size=512)
    assert parsed("6x256", vocab_size=99).vocab_size == 99


@pytest.mark.parametrize("text", ["", "6", "6x", "6x256x", "x256", "-6x256", "6 x 256", "6x256x512x2", "0.2B"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no shape.* or one of 0\.1B, 0\.4B"):
        parsed(text)


def test_a_width_that_no_heads_make_up_is_refused() -> None:
    with pytest.raises(ValueError, match="head_size"):
        parsed("2x100")


def test_random_weights_are_the_same_for_a_seed_and_let_every_part_speak() -> None:
    spec = parsed("2x64x40")
    weights = random_weights(spec, seed=1)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == spec.shapes()
    again, other = random_weights(spec, seed=1), random_weights(spec, seed=2)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["emb.weight"], other["emb.weight"])
    ids = torch.tensor([1, 2, 3, 4])
    logits, _ = rwkv7.sequence(weights, ids)
    assert torch.isfinite(logits).all()
    for name in weights:
        if name.endswith("bias"):
            continue
        changed = weights | {name: weights[name] * 1.5 + 0.1}
        assert not torch.allclose(rwkv7.sequence(changed, ids)[0], logits), name


def test_random_weights_keep_activations_in_bounds_over_many_layers() -> None:
    spec = parsed("24x64x40")
    logits, _ = rwkv7.sequence(random_weights(spec, seed=1), torch.arange(40).repeat(4))
    assert 0.1 < float(logits.std()) < 10
