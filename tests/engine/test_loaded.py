from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.errors import AntiphonError, FileError
from antiphon.model import checkpoint as checkpoints
from antiphon.model import rwkv7
from antiphon.model.adapter_file import AdapterFile
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.convert import Form, convert
from antiphon.model.held import precision_of
from antiphon.model.merged import MergedSource
from antiphon.model.precision import Precision
from antiphon.model.quantize import dequantize, quantize_int8
from antiphon.model.source import open_source

IDS = [1, 5, 50, 0, 7, 7, 7, 12, 33, 2] * 6


def test_an_opened_file_says_what_it_is(model: LoadedModel, float_checkpoint: Checkpoint) -> None:
    assert model.spec == float_checkpoint.spec
    assert model.vocab_size == 51
    assert model.metadata["tokenizer"] == "{}"
    assert model.state_bytes == 4 * 2 * (64 + 64 * 64 + 64)


def test_agrees_with_the_definition_on_the_files_dequantized_weights(
    model: LoadedModel, float_checkpoint: Checkpoint
) -> None:
    weights = dequantize(quantize_int8(float_checkpoint)).tensors
    expected, state = rwkv7.sequence(weights, torch.tensor(IDS))
    timeline = Timeline(model)
    for token, row in zip(IDS, expected.numpy(), strict=True):
        timeline.feed([token])
        np.testing.assert_allclose(timeline.logits, row, rtol=0, atol=1e-3)
    np.testing.assert_allclose(timeline.state, rwkv7.pack(state).numpy(), rtol=0, atol=1e-3)


def test_a_float_checkpoint_is_quantized_first(model: LoadedModel, float_checkpoint: Checkpoint) -> None:
    straight, quantized = Timeline(LoadedModel.of(float_checkpoint)), Timeline(model)
    straight.feed(IDS)
    quantized.feed(IDS)
    np.testing.assert_array_equal(straight.logits, quantized.logits)


def test_low_rank_weights_may_be_of_any_floating_type(float_checkpoint: Checkpoint) -> None:
    quantized = quantize_int8(float_checkpoint)
    for dtype in (torch.float16, torch.bfloat16):
        tensors = {
            name: tensor.to(dtype) if name[-2:] in ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2") else tensor
            for name, tensor in quantized.tensors.items()
        }
        timeline = Timeline(LoadedModel.of(Checkpoint(spec=quantized.spec, tensors=tensors)))
        timeline.feed(IDS)
        expected, _ = rwkv7.sequence(
            dequantize(Checkpoint(spec=quantized.spec, tensors=tensors)).tensors, torch.tensor(IDS)
        )
        np.testing.assert_allclose(timeline.logits, expected[-1].numpy(), rtol=0, atol=1e-3)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"MThd" + bytes(40))
    with pytest.raises(FileError, match=r"wrong\.safetensors"):
        LoadedModel.open(wrong)


def fed(model: LoadedModel) -> np.ndarray:
    timeline = Timeline(model)
    timeline.feed(IDS)
    return timeline.logits.copy()


def test_a_file_is_opened_in_any_precision_and_its_own_by_default(
    float_checkpoint: Checkpoint, model_file: Path, tmp_path: Path
) -> None:
    """Its own whole numbers, else int8; each within its bound of the definition, and the smaller the rougher."""
    path = tmp_path / "float.safetensors"
    checkpoints.write(path, float_checkpoint)
    exact = rwkv7.sequence(float_checkpoint.tensors, torch.tensor(IDS))[0][-1].numpy()
    spread = exact.std()
    off = {}
    for precision in (Precision.INT8, Precision.INT8_GROUPS, Precision.INT4):
        opened = LoadedModel.open(path, precision=precision)
        assert opened.identity.precision == precision.value
        off[precision] = np.abs(fed(opened) - exact).max() / spread
    assert off[Precision.INT8_GROUPS] < off[Precision.INT4] < 1
    assert off[Precision.INT8] < 0.1
    by_default = LoadedModel.open(path)
    assert by_default.identity.precision == "int8"
    np.testing.assert_array_equal(fed(by_default), fed(LoadedModel.open(path, precision=Precision.INT8)))
    assert LoadedModel.open(model_file).identity.precision == "int8"


def test_the_quantized_file_has_the_same_bits_opened_or_held(model: LoadedModel, float_checkpoint: Checkpoint) -> None:
    np.testing.assert_array_equal(fed(model), fed(LoadedModel.of(quantize_int8(float_checkpoint))))


def test_a_start_state_is_where_every_timeline_begins(
    float_checkpoint: Checkpoint, model_file: Path, tmp_path: Path
) -> None:
    """S0-087: a state-tuned start state from a file; another one is another identity."""
    generator = torch.Generator().manual_seed(3)
    wkv = {f"blocks.{i}.att.time_state": 0.3 * torch.randn(1, 64, 64, generator=generator) for i in range(2)}
    torch.save(wkv, tmp_path / "state.pth")
    begun = LoadedModel.open(model_file, start_state=tmp_path / "state.pth")
    timeline = Timeline(begun)
    state = timeline.state.reshape(2, -1)
    for layer in range(2):
        np.testing.assert_array_equal(state[layer, 64:-64], wkv[f"blocks.{layer}.att.time_state"].numpy().ravel())
        assert not state[layer, :64].any()
    plain = LoadedModel.open(model_file)
    assert np.abs(fed(begun) - fed(plain)).max() > 0.01
    by_hand = Timeline.restored(plain, state=timeline.state.copy(), logits=timeline.logits.copy(), count=0)
    by_hand.feed(IDS)
    np.testing.assert_array_equal(fed(begun), by_hand.logits)
    assert begun.identity != plain.identity
    shutil.copy(tmp_path / "state.pth", tmp_path / "turned.state")
    turned = LoadedModel.open(model_file, start_state=tmp_path / "turned.state")
    assert np.abs(fed(begun) - fed(turned)).max() > 0.01
    assert begun.identity != turned.identity
    with pytest.raises(FileError, match="start state"):
        LoadedModel.open(model_file, start_state=model_file)


def test_an_adapter_is_merged_when_the_model_is_opened(
    float_checkpoint: Checkpoint, model_file: Path, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(4)
    down, up = (torch.randn(shape, generator=generator) for shape in [(4, 256), (64, 4)])
    prefix = "blocks.1.ffn.value"
    torch.save({f"{prefix}.lora_A": down, f"{prefix}.lora_B": up}, tmp_path / "lora.pth")
    adapted = LoadedModel.open(model_file, adapters=[AdapterFile(path=tmp_path / "lora.pth", alpha=8.0)])
    merged = dequantize(quantize_int8(float_checkpoint))
    merged.tensors[f"{prefix}.weight"] = merged.tensors[f"{prefix}.weight"] + 2.0 * up @ down
    np.testing.assert_allclose(fed(adapted), rwkv7.sequence(merged.tensors, torch.tensor(IDS))[0][-1], atol=0.02)
    assert np.abs(fed(adapted) - fed(LoadedModel.open(model_file))).max() > 0.2
    assert len(adapted.identity.adapters) == 1
    assert adapted.identity.adapters[0].endswith(":8")


def test_all_that_decides_what_an_adapter_does_is_part_of_the_identity(model_file: Path, tmp_path: Path) -> None:
    """An alpha that is found beside it, the factors that PiSSA began with, and how its base was rounded."""
    generator = torch.Generator().manual_seed(4)
    path, first, prefix = tmp_path / "lora.pth", tmp_path / "init_pissa.pth", "blocks.1.ffn.value"
    for one in (path, first):
        down, up = (0.1 * torch.randn(shape, generator=generator) for shape in [(4, 256), (64, 4)])
        torch.save({f"{prefix}.lora_A": down, f"{prefix}.lora_B": up}, one)
    path.with_suffix(".json").write_text('{"alpha": 8}')
    plain = LoadedModel.open(model_file, adapters=[AdapterFile(path=path)])
    path.with_suffix(".json").write_text('{"alpha": 16}')
    models = [
        plain,
        LoadedModel.open(model_file, adapters=[AdapterFile(path=path)]),
        LoadedModel.open(model_file, adapters=[AdapterFile(path=path, first=first)]),
        LoadedModel.open(model_file, adapters=[AdapterFile(path=path, first=first, rounding="nf4")]),
    ]
    assert plain.identity.adapters[0].endswith(":8")
    assert len({model.identity for model in models}) == len({fed(model).tobytes() for model in models}) == 4


def test_a_file_of_int8_and_floats_is_held_in_int8(model_file: Path, tmp_path: Path) -> None:
    """As a merge into a quantized model is: int4 would lose what the file has."""
    up, prefix = torch.ones(64, 4), "blocks.1.ffn.value"
    torch.save({f"{prefix}.lora_A": torch.ones(4, 256), f"{prefix}.lora_B": up}, tmp_path / "lora.pth")
    base = open_source(model_file)
    merged = MergedSource.open(base, [AdapterFile(path=tmp_path / "lora.pth", alpha=0.01)])
    convert(merged, tmp_path / "merged.safetensors", form=Form.SAFETENSORS)
    source = open_source(tmp_path / "merged.safetensors")
    assert {source.stored[f"{prefix}.weight"], source.stored["head.weight"]} == {"F32", "INT8"}
    assert precision_of(source) is Precision.INT8
    convert(base, tmp_path / "groups.safetensors", form=Form.SAFETENSORS, quantize="int8-groups")
    groups = MergedSource.open(
        open_source(tmp_path / "groups.safetensors"), [AdapterFile(path=tmp_path / "lora.pth", alpha=0.01)]
    )
    assert precision_of(groups) is Precision.INT8_GROUPS


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "GPU-ffffffff-ffff-ffff-ffff-ffffffffffff", "tpu"])
def test_a_device_there_is_not_is_refused_before_anything_is_read(tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(AntiphonError, match=r"GPU|no device"):
        LoadedModel.open(tmp_path / "none.safetensors", device=device)


def test_what_does_not_fit_is_refused_before_it_is_read(model_file: Path) -> None:
    """S0-162: more timelines than any machine has room for."""
    with pytest.raises(AntiphonError, match=r"it needs .* are free"):
        LoadedModel.open(model_file, timelines=1 << 40)
