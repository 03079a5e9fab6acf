"""Every version from a file, in every precision, through the compiled step: what the definition gives (S0-083, S0-083b,
S0-086).

The definition is run on the very numbers that the precision leaves of the weights, so that the bounds are those of the
arithmetic alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model.any_version import SPECS, random_ids, random_weights
from model.official import official_outcomes
from torch import Tensor

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Feed, Runner
from antiphon.model import reference
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.own_form import is_linear
from antiphon.model.precision import Precision, Quantized, dequantize, quantize
from antiphon.model.quantize import dequantize as whole_and_back
from antiphon.model.quantize import quantize_int8

Floats = npt.NDArray[np.float32]

VERSIONS = ["4", "5.0", "5.1", "5.2", "6", "7"]
# Every version as float32 and int8, every other precision once with low-rank matrices and once without.
CASES = [
    *((version, precision) for version in VERSIONS for precision in (Precision.FP32, Precision.INT8)),
    *((version, precision) for version in ("4", "6") for precision in (Precision.BF16, Precision.INT8_GROUPS)),
    *((version, precision) for version in ("5.2", "7") for precision in (Precision.FP16, Precision.INT4)),
]
FLOATS = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}

# In standard deviations. Whole-number precisions round activations to 16 bits besides.
FLOAT_WITHIN, WHOLE_WITHIN = 1e-5, 2e-3


def left(weights: dict[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """What the precision leaves of the weights, as float64."""

    def rounded(name: str, tensor: Tensor) -> Tensor:
        if precision in FLOATS:
            matrix = is_linear(name) or name.endswith(("_w1", "_w2", *(f"att.{a}{n}" for a in "wavg" for n in "12")))
            return tensor.to(FLOATS[precision]) if matrix else tensor
        return dequantize(_scaled_as_held(quantize(tensor, precision))) if is_linear(name) else tensor

    return {name: rounded(name, tensor).double() for name, tensor in weights.items()}


def _scaled_as_held(whole: Quantized) -> Quantized:
    """Scales of groups are held in float16."""
    return dataclasses.replace(whole, scale=whole.scale.half().float()) if whole.group else whole


@contextlib.contextmanager
def opened(path: Path, precision: Precision) -> Iterator[Runner]:
    model = LoadedModel.open(path, precision=precision)
    try:
        yield model.runner
    finally:
        model.close()


def fed(runner: Runner, ids: Tensor, cuts: list[int]) -> tuple[Floats, Floats]:
    memory = runner.new_memory()
    for part in ids.split(cuts):
        runner.run([Feed(memory=memory, ids=part.numpy().astype(np.int32))])
    return memory.state.copy(), memory.logits.copy()


def apart(one: Floats, other: Tensor) -> float:
    """The largest difference, in standard deviations of the second."""
    return float(np.abs(one - other.numpy()).max() / other.std())


@pytest.mark.parametrize(("version", "precision"), CASES)
def test_a_file_in_a_precision_gives_what_the_definition_gives(
    version: str, precision: Precision, tmp_path: Path
) -> None:
    name = f"{version} wide"
    spec, ids = SPECS[name], random_ids(SPECS[name], 20)
    weights = random_weights(spec)
    torch.save(weights, tmp_path / "model.pth")
    expected, defined = reference.sequence(spec, left(weights, precision), ids)
    within = FLOAT_WITHIN if precision in FLOATS else WHOLE_WITHIN
    with opened(tmp_path / "model.pth", precision) as runner:
        assert runner.spec == spec
        state, logits = fed(runner, ids, [20])
        assert apart(logits, expected[-1]) < within
        assert apart(state, reference.pack(defined)) < within
        for cuts in ([1] * 20, [3, 5, 12]):
            again, logits_again = fed(runner, ids, cuts)
            np.testing.assert_array_equal(again, state)
            np.testing.assert_array_equal(logits_again, logits)


@pytest.mark.parametrize("version", ["5.2", "6", "7"])
def test_what_is_beyond_float16_on_the_way_does_no_harm(version: str, tmp_path: Path) -> None:
    """S0-082, S0-085: weights in float16, what they are multiplied with in float32; nothing need be scaled down."""
    spec, ids = SPECS[f"{version} wide"], random_ids(SPECS[f"{version} wide"], 8)
    weights = random_weights(spec)
    for name in weights:
        if name.endswith("ffn.key.weight"):
            weights[name] = 100 * weights[name]  # squared, it is beyond float16's 65504
    held = left(weights, Precision.FP16)
    expected, _ = reference.sequence(spec, held, ids)
    in_halves, _ = reference.sequence(spec, {name: tensor.half() for name, tensor in held.items()}, ids)
    assert expected.isfinite().all()
    assert not in_halves.isfinite().all()
    torch.save(weights, tmp_path / "model.pth")
    with opened(tmp_path / "model.pth", Precision.FP16) as runner:
        _, logits = fed(runner, ids, [8])
    assert apart(logits, expected[-1]) < FLOAT_WITHIN


def test_float32_gives_what_the_official_package_gives(tmp_path: Path) -> None:
    """Of odd sizes too."""
    for name, (logits, state) in official_outcomes(tmp_path, count=10).items():
        ids = random_ids(SPECS[name], 10)
        with opened(tmp_path / name / "model.pth", Precision.FP32) as runner:
            ours, memory = [], runner.new_memory()
            for token in ids.numpy().astype(np.int32):
                runner.run([Feed(memory=memory, ids=np.array([token]))])
                ours.append(memory.logits.copy())
        for row, expected in zip(ours, logits, strict=True):
            assert apart(row, expected) < FLOAT_WITHIN
        assert apart(memory.state, state) < FLOAT_WITHIN


@pytest.mark.parametrize("version", VERSIONS)
def test_a_checkpoint_in_memory_becomes_int8(version: str) -> None:
    spec = SPECS[version]
    checkpoint = Checkpoint(spec=spec, tensors=random_weights(spec))
    whole = {name: tensor.double() for name, tensor in whole_and_back(quantize_int8(checkpoint)).tensors.items()}
    ids = random_ids(spec, 12)
    expected, _ = reference.sequence(spec, whole, ids)
    model = LoadedModel.of(checkpoint)
    _, logits = fed(model.runner, ids, [5, 7])
    model.close()
    assert apart(logits, expected[-1]) < WHOLE_WITHIN
