"""Start states are checked against the model and turned the way that it runs them (S0-087)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model.any_version import SPECS, random_ids, random_weights
from safetensors.torch import save_file
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model import reference
from antiphon.model.source import open_source
from antiphon.model.spec import ModelSpec
from antiphon.model.states import StartState, state_names
from antiphon.model.stored import StoredTensor

MATRICES = ("5.0", "5.1", "5.2", "6", "7")


def tuned(spec: ModelSpec) -> dict[str, Tensor]:
    shape = (spec.n_head, spec.head_size, spec.head_size)
    generator = torch.Generator().manual_seed(5)
    return {f"blocks.{i}.att.time_state": torch.randn(shape, generator=generator) for i in range(spec.n_layer)}


def opened(tensors: dict[str, Tensor]) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(shape=tuple(t.shape), dtype=t.dtype, stored="F32", read=t.clone)
        for name, t in tensors.items()
    }


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("transpose", [False, True])
def test_the_seventh_is_run_as_it_is_and_the_others_turned(name: str, transpose: bool) -> None:
    spec = SPECS[name]
    tensors = tuned(spec)
    found = StartState.of(opened(tensors), spec, where="f", transpose=transpose)
    for i in range(spec.n_layer):
        as_written = tensors[f"blocks.{i}.att.time_state"]
        turned = (name != "7") != transpose
        assert torch.equal(found.wkv[i], as_written.transpose(1, 2) if turned else as_written)


@pytest.mark.parametrize("name", MATRICES)
def test_a_state_is_what_the_definition_starts_from(name: str) -> None:
    """Packed, it is the state with which no token has been seen but the matrices are there."""
    spec = SPECS[name]
    state = StartState.of(opened(tuned(spec)), spec, where="f")
    unpacked = reference.unpack(spec, state.packed())
    for i, layer in enumerate(unpacked):
        assert not layer.att_x.any()
        assert not layer.ffn_x.any()
        assert torch.equal(layer.wkv, state.wkv[i])  # type: ignore[union-attr]
    weights, ids = random_weights(spec), random_ids(spec, 5)
    with_state, _ = reference.sequence(spec, weights, ids, unpacked)
    without, _ = reference.sequence(spec, weights, ids)
    assert (with_state - without).abs().max() > 0.1


def test_what_is_stored_is_what_was_read() -> None:
    for name in MATRICES:
        tensors = tuned(SPECS[name])
        stored = StartState.of(opened(tensors), SPECS[name], where="f").stored()
        assert all(torch.equal(stored[key], tensor) for key, tensor in tensors.items())


def test_a_state_in_a_checkpoint_is_its_start_state(tmp_path: Path) -> None:
    spec = SPECS["6"]
    save_file({**random_weights(spec), **tuned(spec)}, tmp_path / "m")
    found = StartState.of_source(open_source(tmp_path / "m"))
    assert found is not None
    assert torch.equal(found.packed(), StartState.of(opened(tuned(spec)), spec, where="f").packed())
    save_file(random_weights(spec), tmp_path / "n")
    assert StartState.of_source(open_source(tmp_path / "n")) is None


def test_a_state_of_another_model_is_refused() -> None:
    spec = SPECS["7"]

    def message(tensors: dict[str, Tensor], spec: ModelSpec = spec) -> str:
        with pytest.raises(FileError) as caught:
            StartState.of(opened(tensors), spec, where="f")
        return str(caught.value)

    whole = tuned(spec)
    assert "RWKV-4 has no matrix" in message(whole, SPECS["4"])
    assert "f: holds no start state" in message({"emb.weight": torch.zeros(2, 2)})
    two = dict(list(whole.items())[:2])
    assert "start states of 2 layers, and the model has 3" in message(two)
    assert "blocks.2.att.time_state is missing" in message({**two, "blocks.3.att.time_state": whole.popitem()[1]})
    assert "has shape [3, 20, 19], and the model needs [3, 20, 20]" in message(
        {**tuned(spec), "blocks.1.att.time_state": torch.zeros(3, 20, 19)}
    )
    spoilt = tuned(spec)
    spoilt["blocks.1.att.time_state"][0, 0, 0] = torch.inf
    assert "holds a NaN or an infinity" in message(spoilt)


def test_only_the_matrices_names_are_a_states() -> None:
    names = ["blocks.0.att.time_state", "blocks.0.att.time_decay", "x.blocks.0.att.time_state"]
    assert state_names(names) == ["blocks.0.att.time_state"]
