"""Every version from a file, in every precision, through the compiled step: what the definition gives (S0-083, S0-086).

The definition is run on the very numbers that the precision leaves of the weights, so that the bounds are those of the
arithmetic alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model.any_version import SPECS, random_ids, random_weights
from torch import Tensor

from antiphon.model import reference
from antiphon.model.held import HeldWeights
from antiphon.model.own_form import is_linear
from antiphon.model.precision import Precision, Quantized, dequantize, quantize
from antiphon.model.source import open_source
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.program.any_version import build
from antiphon_kernels.program.ops import Program
from antiphon_kernels.program.slab import Segment, feed

Floats = npt.NDArray[np.float32]

VERSIONS = ["4", "5.0", "5.1", "5.2", "6", "7"]
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


def opened(folder: Path, name: str, precision: Precision) -> tuple[Program, dict[str, Tensor]]:
    """The program of a file, and what it computes with."""
    weights = random_weights(SPECS[name])
    torch.save(weights, folder / "model.pth")
    source = open_source(folder / "model.pth")
    assert source.spec == SPECS[name]
    program = build(HeldWeights(source, precision), interleave=vnni_bits() > 0, ln_x_eps=source.ln_x_eps)
    return program, left(weights, precision)


def fed(program: Program, ids: Tensor, cuts: list[int]) -> tuple[Floats, Floats]:
    state, logits = program.start.copy(), np.full(program.vocab_size, np.nan, np.float32)
    for part in ids.split(cuts):
        feed(program, [Segment(state=state, logits=logits, ids=part.numpy().astype(np.int32))])
    return state, logits


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_in_a_precision_gives_what_the_definition_gives(
    version: str, precision: Precision, tmp_path: Path
) -> None:
    name = f"{version} wide"
    spec, ids = SPECS[name], random_ids(SPECS[name], 30)
    program, weights = opened(tmp_path, name, precision)
    state, logits = fed(program, ids, [30])
    expected, defined = reference.sequence(spec, weights, ids)
    within = FLOAT_WITHIN if precision in FLOATS else WHOLE_WITHIN
    assert float(np.abs(logits - expected[-1].numpy()).max() / expected[-1].std()) < within
    packed = reference.pack(defined).numpy()
    assert np.abs(state - packed).max() / packed.std() < within
    for cuts in ([1] * 30, [3, 5, 22]):
        again, logits_again = fed(program, ids, cuts)
        np.testing.assert_array_equal(again, state)
        np.testing.assert_array_equal(logits_again, logits)
