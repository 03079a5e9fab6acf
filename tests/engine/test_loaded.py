from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.errors import FileError
from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize, quantize_int8

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
