"""The compiled WKV-7 sequence equals the token-by-token definition, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch

from antiphon_kernels.wkv7_sequence import numba_cpu, reference
from antiphon_kernels.wkv7_sequence.reference import CHUNK

# Against the definition in float64, as a share of the largest number of each array.
FORWARD_WITHIN = 1e-6
BACKWARD_WITHIN = 3e-6

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs r, w, k, v, kappa, b; which chunks go on; the state before; gradients by y and the final state."""

    inputs: tuple[Floats, ...]
    keep: npt.NDArray[np.bool_]
    start: Floats
    dy: Floats
    dfinal: Floats


def random_case(batch: int, length: int, heads: int, n: int = 64, *, seed: int = 0, lone: bool = False) -> Case:
    """Numbers as a trained network has them: unit kappa, a in 0..1, decays of 0.54 and more."""
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> Floats:
        return rng.standard_normal(size).astype(np.float32)

    size = (batch, length, heads, n)
    r, k, v, kappa, dy = (normal(*size) for _ in range(5))
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    a = rng.random(size).astype(np.float32)
    w = np.exp(-np.exp(-0.5) * rng.random(size)).astype(np.float32)
    keep = rng.random((batch, length // CHUNK)) < (1.0 if lone else 0.7)
    start, dfinal = normal(batch, heads, n, n), normal(batch, heads, n, n)
    return Case((r, w, k, v, kappa, kappa * a), keep, start, dy, dfinal)


def defined(case: Case) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.float64]]]:
    """(y, final state) and all gradients of the definition in float64."""
    tensors = [torch.from_numpy(x).double().requires_grad_() for x in (*case.inputs, case.start)]
    out = reference.forward(*tensors[:6], torch.from_numpy(case.keep), tensors[6])
    grads = torch.autograd.grad(out, tensors, [torch.from_numpy(case.dy).double(), torch.from_numpy(case.dfinal)])
    return [x.detach().numpy() for x in out], [x.numpy() for x in grads]


def distance(fast: Floats, exact: npt.NDArray[np.float64]) -> float:
    # Where every row forgets the state before it, its gradient is exactly zero.
    return float(np.abs(fast - exact).max() / max(np.abs(exact).max(), 1e-9))


@pytest.mark.parametrize("shape", [(1, 16, 1), (3, 80, 2), (1, 32, 5)])
@pytest.mark.parametrize("threads", [1, 3])
def test_equals_the_definition_forward_and_backward(shape: tuple[int, int, int], threads: int) -> None:
    case = random_case(*shape)
    outputs, gradients = defined(case)
    y, held, kept, final = numba_cpu.forward(*case.inputs, case.keep, case.start, threads=threads)
    for fast, exact in zip((y, final), outputs, strict=True):
        assert distance(fast, exact) < FORWARD_WITHIN
    grads = numba_cpu.backward(*case.inputs, case.keep, held, kept, case.dy, case.dfinal, threads=threads)
    for fast, exact in zip(grads, gradients, strict=True):
        assert distance(fast, exact) < BACKWARD_WITHIN


def test_a_split_sequence_goes_on_where_it_stopped() -> None:
    case = random_case(2, 64, 2, lone=True)
    whole, _, _, end = numba_cpu.forward(*case.inputs, case.keep, case.start)
    first, second = ([np.ascontiguousarray(x[:, part]) for x in case.inputs] for part in (np.s_[:16], np.s_[16:]))
    y0, _, _, middle = numba_cpu.forward(*first, case.keep[:, :1].copy(), case.start)
    y1, _, _, last = numba_cpu.forward(*second, case.keep[:, 1:].copy(), middle)
    np.testing.assert_array_equal(np.concatenate([y0, y1], axis=1), whole)
    np.testing.assert_array_equal(last, end)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_a_row_does_not_depend_on_the_rest_of_the_batch_nor_on_threads(threads: int) -> None:
    case = random_case(4, 48, 2)
    y, held, kept, final = numba_cpu.forward(*case.inputs, case.keep, case.start, threads=threads)
    grads = numba_cpu.backward(*case.inputs, case.keep, held, kept, case.dy, case.dfinal, threads=threads)
    row = np.s_[2:3]
    alone = [x[row].copy() for x in case.inputs]
    y_alone, held_alone, kept_alone, final_alone = numba_cpu.forward(
        *alone, case.keep[row].copy(), case.start[row].copy()
    )
    np.testing.assert_array_equal(y[row], y_alone)
    np.testing.assert_array_equal(final[row], final_alone)
    grads_alone = numba_cpu.backward(
        *alone, case.keep[row].copy(), held_alone, kept_alone, case.dy[row].copy(), case.dfinal[row].copy()
    )
    for whole, single in zip(grads, grads_alone, strict=True):
        np.testing.assert_array_equal(whole[row], single)


def test_a_nan_is_not_hidden() -> None:
    case = random_case(1, 32, 1, lone=True)
    case.inputs[2][0, 5, 0, 3] = np.nan
    y, held, kept, final = numba_cpu.forward(*case.inputs, case.keep, case.start)
    assert np.isfinite(y[0, :5]).all()
    assert np.isnan(y[0, 5:]).all()
    assert np.isnan(final).any()
    grads = numba_cpu.backward(*case.inputs, case.keep, held, kept, case.dy, case.dfinal)
    assert np.isnan(grads[0]).any()


@pytest.mark.parametrize("wrong", ["a short array", "float64", "not contiguous", "T of 17", "N of 6", "keep", "start"])
def test_what_the_kernel_cannot_take_is_refused(wrong: str) -> None:
    length, n = {"T of 17": (17, 64), "N of 6": (16, 6)}.get(wrong, (16, 64))
    case = random_case(1, length, 2, n)
    inputs, keep, start = list(case.inputs), case.keep, case.start
    if wrong == "a short array":
        inputs[3] = inputs[3][:, :, :1].copy()
    elif wrong == "float64":
        inputs[1] = inputs[1].astype(np.float64)
    elif wrong == "not contiguous":
        inputs[4] = inputs[4].transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    elif wrong == "keep":
        keep = np.ones((1, 2), np.bool_)
    elif wrong == "start":
        start = start[:, :1].copy()
    with pytest.raises(ValueError, match=r"must be contiguous|is \[B, T, H, N\]"):
        numba_cpu.forward(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5], keep, start)
