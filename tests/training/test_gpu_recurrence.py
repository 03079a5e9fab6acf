"""The GPU's recurrence trains as the chunked form does, and gives way to it aloud."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from triton_here import DEVICE, needs_triton

from antiphon.model.rwkv7 import MAX_LOG_DECAY
from antiphon.model.wkv7_chunked import wkv7_chunked
from antiphon.training import gpu_recurrence
from antiphon.training.gpu_recurrence import SlowRecurrence, wkv7_gpu
from antiphon.training.recurrence import wkv7_training

KERNELS = "antiphon_kernels.wkv7_sequence.triton_gpu"
# On a machine with a GPU this goes the whole way that training goes.
FORM = wkv7_training if DEVICE == "cuda" else wkv7_gpu


@pytest.fixture
def nothing_known() -> Iterator[None]:
    """What a process finds out once about its machine is found out again, and once more after the test."""
    for found in (gpu_recurrence._kernels, gpu_recurrence._proven):
        found.cache_clear()
    yield
    for found in (gpu_recurrence._kernels, gpu_recurrence._proven):
        found.cache_clear()


def random_inputs(n: int = 16, length: int = 21) -> list[Tensor]:
    """r, log_w, k, v, kappa, a and a state."""
    generator = torch.Generator().manual_seed(0)
    r, log_w, k, v, kappa, a = (torch.randn(1, length, 2, n, generator=generator) for _ in range(6))
    kappa = torch.nn.functional.normalize(kappa, dim=-1)
    state = torch.randn(1, 2, n, n, generator=generator)
    inputs = (r, MAX_LOG_DECAY * torch.sigmoid(log_w), k, v, kappa, torch.sigmoid(a), state)
    return [x.to(DEVICE) for x in inputs]


@needs_triton
@pytest.mark.parametrize("keep", [None, torch.tensor([[1.0, 0.0]])])
def test_it_trains_as_the_chunked_form_does(keep: Tensor | None) -> None:
    keep = None if keep is None else keep.to(DEVICE)
    fast = [x.requires_grad_() for x in random_inputs()]
    exact = [x.detach().double().requires_grad_() for x in fast]
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowRecurrence)
        for form, inputs in ((FORM, fast), (wkv7_chunked, exact)):
            y, state = form(*inputs, keep)
            grads = torch.autograd.grad(y.square().sum() + state.square().sum(), inputs)
            outcomes.append((y, state, *grads))
    for got, expected in zip(*outcomes, strict=True):
        assert got.dtype == torch.float32
        assert float((got.double() - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-4


@needs_triton
def test_the_shapes_that_a_compiler_is_told_are_those_that_come() -> None:
    *inputs, state = random_inputs(length=16)
    keep = torch.ones(1, 1, dtype=torch.bool, device=DEVICE)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(gpu_recurrence._sequence, (*inputs, keep, state), test_utils=checks)


@needs_triton
@pytest.mark.usefixtures("nothing_known")
def test_kernels_that_prove_wrong_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_recurrence, "PROVEN_WITHIN", 0.0)
    inputs = random_inputs()
    with pytest.warns(SlowRecurrence, match="are off by"):
        y, state = FORM(*inputs, None)
    expected_y, expected_state = wkv7_chunked(*inputs, None)
    assert torch.equal(y, expected_y)
    assert torch.equal(state, expected_state)


@pytest.mark.usefixtures("nothing_known")
def test_without_triton_the_chunked_form_runs_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    inputs = random_inputs()
    with pytest.warns(SlowRecurrence, match="Triton is not installed"):
        y, state = FORM(*inputs, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowRecurrence)
        FORM(*inputs, None)
    expected_y, expected_state = wkv7_chunked(*inputs, None)
    assert torch.equal(y, expected_y)
    assert torch.equal(state, expected_state)


@needs_triton
def test_a_head_size_or_dtype_that_the_kernels_do_not_take_runs_in_the_chunked_form() -> None:
    for inputs in (random_inputs(n=8), [x.double() for x in random_inputs()]):
        y, state = FORM(*inputs, None)
        expected_y, expected_state = wkv7_chunked(*inputs, None)
        assert torch.equal(y, expected_y)
        assert torch.equal(state, expected_state)
