"""What a model takes is counted from its tensors, not guessed (S2-060, S2-061, S3-004)."""

from __future__ import annotations

import pytest

from antiphon.library.memory import GIB, estimate_model_memory, released_spec, size_name
from antiphon.model.published import names, published
from antiphon.model.spec import ModelSpec

# Totals of the released files, in millions, counted from their shapes.
MILLIONS = {"0.1B": 191.1, "0.4B": 450.8, "1.5B": 1527.7, "2.9B": 2948.1, "7.2B": 7199.9}


@pytest.mark.parametrize("name", MILLIONS)
def test_a_published_model_has_the_parameters_of_its_file(name: str) -> None:
    spec = published(name)
    assert released_spec(n_layer=spec.n_layer, n_embd=spec.n_embd, vocab_size=65536) == spec
    found = estimate_model_memory(spec.n_layer, spec.n_embd, 65536)
    # Their layer 0 has three tensors that nothing uses.
    unused = spec.n_embd * (1 + 2 * spec.value_rank)
    assert (found["model_params"] + unused) / 1e6 == pytest.approx(MILLIONS[name], abs=0.051)


def test_the_keys_are_those_of_the_tool_that_it_replaces() -> None:
    found = estimate_model_memory(n_layer=6, n_embd=256, vocab_size=512, batch_size=4, seq_len=128, precision="fp32")
    wanted = {"parameters_gb", "activations_gb", "optimizer_gb", "gradients_gb", "total_gb", "model_params"}
    assert wanted <= set(found)
    count = found["model_params"]
    assert count == released_spec(n_layer=6, n_embd=256, vocab_size=512).parameters
    assert found["parameters_gb"] * GIB == 4 * count
    assert found["gradients_gb"] * GIB == 4 * count
    assert found["optimizer_gb"] * GIB == 8 * count
    parts = ("parameters_gb", "gradients_gb", "optimizer_gb", "activations_gb")
    assert found["total_gb"] == pytest.approx(sum(found[part] for part in parts))


def test_only_what_depends_on_the_batch_grows_with_it() -> None:
    one, four = (estimate_model_memory(6, 256, 512, batch, 128) for batch in (1, 4))
    grown = {key for key in one if one[key] != four[key]}
    assert grown == {"activations_gb", "total_gb", "state_gb"}
    assert four["activations_gb"] == 4 * one["activations_gb"]


@pytest.mark.parametrize(("precision", "of_fp32"), [("bf16", 1 / 2), ("int8", 1 / 4), ("int4", 0.5625 / 4)])
def test_a_coarser_precision_takes_its_share(precision: str, of_fp32: float) -> None:
    whole, part = (estimate_model_memory(6, 256, 512, precision=p)["parameters_gb"] for p in ("fp32", precision))
    assert part == pytest.approx(whole * of_fp32)


@pytest.mark.parametrize(
    "wrong",
    [{"precision": "fp7"}, {"batch_size": 0}, {"seq_len": 0}, {"n_layer": 0}, {"n_embd": 100}, {"vocab_size": -1}],
)
def test_sizes_that_no_model_has_are_refused(wrong: dict[str, int | str]) -> None:
    sizes: dict[str, int | str] = {"n_layer": 2, "n_embd": 64, "vocab_size": 10}
    with pytest.raises(ValueError, match=r"."):
        estimate_model_memory(**(sizes | wrong))  # type: ignore[arg-type]


def test_a_model_is_called_by_its_published_size() -> None:
    assert [size_name(published(name).parameters) for name in names()] == list(names())
    small = ModelSpec.of_width(n_layer=6, n_embd=256, vocab_size=512)
    assert size_name(small.parameters).endswith("M")
    assert size_name(900_000_000) == "0.9B"
