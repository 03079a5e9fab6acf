"""WKV-4 in place: the definition is the model's, and the compiled form equals it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from antiphon.model.rwkv4 import wkv4
from antiphon_kernels.wkv4_step import numba_cpu, reference

Floats = npt.NDArray[np.float32]


def case(rows: int, width: int, *, loud: float = 1.0, seed: int = 0) -> tuple[Floats, Floats, Floats, Floats]:
    """k and v, u, log_w, and sums that know nothing yet."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2, rows, width)).astype(np.float32)
    vectors[0] *= loud
    u = rng.standard_normal(width).astype(np.float32)
    log_w = -np.exp(rng.uniform(-6, 2, width)).astype(np.float32)
    sums = np.zeros((3, width), np.float32)
    sums[2] = -1e30
    return vectors, u, log_w, sums


def test_the_definition_is_the_models() -> None:
    vectors, u, log_w, sums = case(20, 12)
    out = np.full((20, 12), np.nan, np.float32)
    k, v, bonus, decay, *state = (torch.from_numpy(a.copy()) for a in (*vectors, u, log_w, *sums))
    wanted, after = wkv4(k, v, bonus, decay, (state[0], state[1], state[2]))
    reference.advance(vectors, u, log_w, sums, out)
    np.testing.assert_allclose(out, wanted.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums, torch.stack(after).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loud", [1.0, 60.0])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 3), (30, 50), (5, 128), (3, 67)])
def test_the_kernel_equals_the_definition(rows: int, width: int, loud: float) -> None:
    """60: keys whose exponentials alone would overflow."""
    vectors, u, log_w, sums = case(rows, width, loud=loud)
    wanted_sums = sums.astype(np.float64)
    wanted, out = np.full((rows, width), np.nan), np.full((rows, width), np.nan, np.float32)
    reference.advance(vectors.astype(np.float64), u.astype(np.float64), log_w.astype(np.float64), wanted_sums, wanted)
    numba_cpu.advance(vectors, u, log_w, sums, out)
    np.testing.assert_allclose(out, wanted, rtol=1e-5 * loud, atol=1e-5 * loud)
    np.testing.assert_allclose(sums, wanted_sums, rtol=1e-5 * loud, atol=1e-5 * loud)


def test_a_sequence_is_its_parts_to_the_bit() -> None:
    vectors, u, log_w, sums = case(9, 70)
    parted, out, parts = sums.copy(), np.empty((9, 70), np.float32), np.empty((9, 70), np.float32)
    numba_cpu.advance(vectors, u, log_w, sums, out)
    for first, last in ((0, 1), (1, 5), (5, 9)):
        numba_cpu.advance(np.ascontiguousarray(vectors[:, first:last]), u, log_w, parted, parts[first:last])
    np.testing.assert_array_equal(parts, out)
    np.testing.assert_array_equal(parted, sums)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_nan_in_the_sums_stays_one(part: int) -> None:
    vectors, u, log_w, sums = case(4, 5)
    sums[part, 2] = np.nan
    out = np.zeros((4, 5), np.float32)
    numba_cpu.advance(vectors, u, log_w, sums, out)
    assert np.isnan(out[:, 2]).all()
    assert np.isfinite(out[:, [0, 1, 3, 4]]).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    vectors, u, log_w, sums = case(4, 5)
    with pytest.raises(ValueError, match="do not fit"):
        numba_cpu.advance(vectors, u, log_w, sums, np.zeros((4, 6), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        numba_cpu.advance(vectors, u, log_w, sums, np.zeros((4, 10), np.float32)[:, ::2])
