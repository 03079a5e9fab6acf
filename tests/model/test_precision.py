"""Whole numbers keep a matrix as well as their bits can (S4-040)."""

from __future__ import annotations

import pytest
import torch

from antiphon.model.precision import GROUP, Precision, dequantize, quantize
from antiphon.model.quantize import quantize_int8

WHOLE = (Precision.INT8, Precision.INT8_GROUPS, Precision.INT4)


def matrix(rows: int = 40, inputs: int = 96, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, inputs, generator=generator) * torch.rand(rows, 1, generator=generator)


@pytest.mark.parametrize("precision", WHOLE)
def test_the_shapes_are_those_of_the_files(precision: Precision) -> None:
    made = quantize(matrix(), precision)
    assert made.values.dtype is torch.int8
    assert made.scale.dtype is torch.float32
    assert made.group == (0 if precision is Precision.INT8 else GROUP)
    assert made.scale.shape == ((40,) if precision is Precision.INT8 else (40, 3))
    low, high = (-8, 7) if precision is Precision.INT4 else (-127, 127)
    assert low <= int(made.values.min())
    assert int(made.values.max()) <= high


def test_int8_by_row_is_the_int8_there_always_was() -> None:
    from model.small_models import SMALL, random_weights

    from antiphon.model.checkpoint import Checkpoint

    packed = quantize_int8(Checkpoint(spec=SMALL, tensors=random_weights())).tensors
    for name, weight in random_weights().items():
        if f"{name}.scale" in packed:
            made = quantize(weight, Precision.INT8)
            assert torch.equal(made.values, packed[name])
            assert torch.equal(made.scale, packed[f"{name}.scale"])


@pytest.mark.parametrize("precision", WHOLE[:2])
def test_int8_is_within_half_a_step(precision: Precision) -> None:
    weight = matrix()
    made = quantize(weight, precision)
    grouped = weight.view(40, -1, made.group or 96)
    half = grouped.abs().amax(-1, keepdim=True) / 127 / 2
    error = (dequantize(made).view_as(grouped) - grouped).abs()
    # Rounded to bfloat16, a scale by group may be a two-hundred-and-fiftieth too large.
    assert (error <= half * (1.004 if made.group else 1 + 1e-5)).all()
    assert (error > 0.9 * half).any()


def test_int4_has_less_error_than_its_largest_number_would_choose() -> None:
    weight = matrix(200, 128)
    grouped = weight.view(-1, GROUP)
    step = grouped.abs().amax(1, keepdim=True) / 7
    plain = torch.round(grouped / step).clamp(-8, 7) * step
    best = dequantize(quantize(weight, Precision.INT4)).view(-1, GROUP)
    plain_error, best_error = ((x - grouped).pow(2).sum(1) for x in (plain, best))
    assert float(best_error.sum()) < 0.8 * float(plain_error.sum())


@pytest.mark.parametrize("precision", WHOLE)
def test_a_matrix_that_was_whole_numbers_stays_as_it_is(precision: Precision) -> None:
    once = dequantize(quantize(matrix(), precision))
    torch.testing.assert_close(dequantize(quantize(once, precision)), once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", WHOLE)
def test_zeros_and_single_numbers_are_kept(precision: Precision) -> None:
    weight = torch.zeros(4, 64)
    weight[1, 5], weight[2, 40] = 3.0, -2.0
    made = quantize(weight, precision)
    assert made.scale.isfinite().all()
    torch.testing.assert_close(dequantize(made), weight, rtol=0.004 if made.group else 1e-6, atol=0)


@pytest.mark.parametrize("precision", WHOLE)
def test_the_faintest_numbers_there_are_make_nothing_large(precision: Precision) -> None:
    for size in (1e-38, 1e-42, 1e-45):
        weight = torch.full((3, 64), size)
        assert dequantize(quantize(weight, precision)).abs().max() <= 2e-38


@pytest.mark.parametrize("precision", WHOLE)
def test_inputs_that_do_not_divide_become_int8_by_row(precision: Precision) -> None:
    weight = matrix(9, 50)
    made, by_row = quantize(weight, precision), quantize(weight, Precision.INT8)
    assert made.group == 0
    assert torch.equal(made.values, by_row.values)
    assert torch.equal(made.scale, by_row.scale)


@pytest.mark.parametrize("precision", WHOLE)
def test_a_row_does_not_depend_on_the_others(precision: Precision) -> None:
    """Large matrices are done in parts."""
    weight = matrix(70, 8192)
    whole = quantize(weight, precision)
    for row in (0, 63, 64, 69):
        alone = quantize(weight[row : row + 1], precision)
        assert torch.equal(whole.values[row], alone.values[0])
        assert torch.equal(whole.scale[row], alone.scale[0])


@pytest.mark.parametrize("precision", WHOLE[1:])
def test_scales_by_group_take_two_bytes_whatever_their_size(precision: Precision) -> None:
    for size in (1e-9, 1e-3, 1.0, 1e9):
        weight = matrix() * size
        made = quantize(weight, precision)
        assert torch.equal(made.scale.bfloat16().float(), made.scale)
        error = float((dequantize(made) - weight).pow(2).mean().sqrt() / weight.std())
        assert error < (0.15 if precision is Precision.INT4 else 0.01)
        if size == 1.0:
            assert torch.equal(made.scale.half().float(), made.scale)


def test_floats_hold_no_whole_numbers() -> None:
    with pytest.raises(ValueError, match="fp16 holds no whole numbers"):
        quantize(matrix(), Precision.FP16)
