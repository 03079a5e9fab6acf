"""WKV-5 and 6 in place: the definition is the model's, and the compiled form equals it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from antiphon.model.rwkv5 import wkv5
from antiphon_kernels.wkv5_step import numba_cpu, reference

Floats = npt.NDArray[np.float32]


def case(rows: int, heads: int, size: int, *, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """r, w, k and v, u, and a matrix that knows something already."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((4, rows, heads, size)).astype(np.float32)
    vectors[1] = np.exp(-np.exp(vectors[1] * 2 - 1))
    u = rng.standard_normal((heads, size)).astype(np.float32)
    return vectors, u, rng.standard_normal((heads, size, size)).astype(np.float32)


def test_the_definition_is_the_models() -> None:
    vectors, u, wkv = case(11, 3, 8)
    out = np.full((11, 3, 8), np.nan, np.float32)
    r, w, k, v, bonus, state = (torch.from_numpy(a.copy()) for a in (*vectors, u, wkv))
    wanted, after = wkv5(r, w, k, v, bonus, state)
    reference.advance(vectors, u, wkv, out)
    np.testing.assert_allclose(out, wanted.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(wkv, after.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "heads", "size"), [(1, 1, 1), (9, 2, 64), (30, 1, 64), (8, 3, 20), (4, 2, 12), (3, 1, 128)]
)
def test_the_kernel_equals_the_definition(rows: int, heads: int, size: int) -> None:
    vectors, u, wkv = case(rows, heads, size)
    wanted_wkv = wkv.astype(np.float64)
    wanted, out = np.full((rows, heads, size), np.nan), np.full((rows, heads, size), np.nan, np.float32)
    reference.advance(vectors.astype(np.float64), u.astype(np.float64), wanted_wkv, wanted)
    numba_cpu.advance(vectors, u, wkv, out)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(wkv, wanted_wkv, rtol=1e-5, atol=1e-5)


def test_heads_of_64_follow_the_same_order_as_any_other() -> None:
    """The written-out loop gives the bits of the plain one: here the plain one in NumPy, a product at a time."""
    vectors, u, wkv = case(1, 1, 64)
    r, w, k, v = (a[0, 0] for a in vectors)
    before, out = wkv[0].copy(), np.empty((1, 1, 64), np.float32)
    numba_cpu.advance(vectors, u, wkv, out)

    def fma(a: object, b: object, c: object) -> Floats:
        # float64 holds a product of float32 exactly, and its sum with a third closely enough to round alike.
        return (np.float64(a) * np.float64(b) + np.float64(c)).astype(np.float32)  # type: ignore[arg-type,no-any-return]

    np.testing.assert_array_equal(wkv[0], fma(before, w[:, None], k[:, None] * v[None, :]))
    read = np.zeros(64, np.float32)
    for key in range(64):
        read = fma(before[key], r[key], read)
    own = out[0, 0].astype(np.float64) - read.astype(np.float64)
    np.testing.assert_allclose(own, float(np.float64(r * k * u[0]).sum()) * v, rtol=1e-4, atol=1e-5)


def test_a_sequence_is_its_parts_to_the_bit() -> None:
    vectors, u, wkv = case(9, 2, 20)
    parted, out, parts = wkv.copy(), np.empty((9, 2, 20), np.float32), np.empty((9, 2, 20), np.float32)
    numba_cpu.advance(vectors, u, wkv, out)
    for first, last in ((0, 1), (1, 5), (5, 9)):
        numba_cpu.advance(np.ascontiguousarray(vectors[:, first:last]), u, parted, parts[first:last])
    np.testing.assert_array_equal(parts, out)
    np.testing.assert_array_equal(parted, wkv)


@pytest.mark.parametrize("size", [64, 12])
def test_a_nan_in_the_matrix_shows_in_its_head_alone(size: int) -> None:
    vectors, u, wkv = case(2, 2, size)
    wkv[1, 3, 5] = np.nan
    out = np.zeros((2, 2, size), np.float32)
    numba_cpu.advance(vectors, u, wkv, out)
    assert np.isnan(out[:, 1, 5]).all()
    assert np.isfinite(out[:, 0]).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    vectors, u, wkv = case(2, 2, 12)
    with pytest.raises(ValueError, match="do not fit"):
        numba_cpu.advance(vectors, u, wkv, np.zeros((2, 2, 13), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        numba_cpu.advance(vectors, u, wkv, np.zeros((2, 2, 24), np.float32)[:, :, ::2])
