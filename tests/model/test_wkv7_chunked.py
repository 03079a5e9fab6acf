"""The chunked WKV-7 equals the token-by-token form: output, state and every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from antiphon.model.rwkv7 import MAX_LOG_DECAY, wkv7
from antiphon.model.wkv7_chunked import CHUNK, wkv7_chunked

LENGTHS = [1, 2, 15, 16, 17, 31, 32, 50]


def random_inputs(batch: int, length: int, heads: int, n: int, dtype: torch.dtype) -> list[Tensor]:
    """r, log_w, k, v, kappa, a and a state, as a network makes them."""
    generator = torch.Generator().manual_seed(length)
    size = (batch, length, heads, n)
    r, k, v, kappa = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(4))
    log_w = MAX_LOG_DECAY * torch.rand(size, generator=generator, dtype=torch.float64)
    a = torch.rand(size, generator=generator, dtype=torch.float64)
    state = torch.randn(batch, heads, n, n, generator=generator, dtype=torch.float64)
    kappa = torch.nn.functional.normalize(kappa, dim=-1)
    return [tensor.to(dtype).requires_grad_() for tensor in (r, log_w, k, v, kappa, a, state)]


def by_steps(inputs: list[Tensor], keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same from the definition, told where to forget by running it piece by piece."""
    *sequence, state = inputs
    outputs = []
    for c, start in enumerate(range(0, sequence[0].shape[1], CHUNK)):
        if keep is not None:
            state = state * keep[:, c, None, None, None]
        y, state = wkv7(*(tensor[:, start : start + CHUNK] for tensor in sequence), state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("resets", [False, True])
def test_output_state_and_gradients_are_those_of_the_steps(length: int, resets: bool) -> None:
    inputs = random_inputs(3, length, 2, 8, torch.float64)
    chunks = -(-length // CHUNK)
    keep = (torch.arange(3 * chunks).view(3, chunks) % 3 != 1).double() if resets else None
    y, state = wkv7_chunked(*inputs, keep)
    y_defined, state_defined = by_steps(inputs, keep)
    torch.testing.assert_close(y, y_defined, rtol=0, atol=1e-11)
    torch.testing.assert_close(state, state_defined, rtol=0, atol=1e-11)
    grad_y, grad_state = torch.randn_like(y), torch.randn_like(state)
    grads = torch.autograd.grad([y, state], inputs, [grad_y, grad_state])
    grads_defined = torch.autograd.grad([y_defined, state_defined], inputs, [grad_y, grad_state])
    for grad, defined in zip(grads, grads_defined, strict=True):
        torch.testing.assert_close(grad, defined, rtol=0, atol=1e-10)


def test_gradients_are_the_slopes() -> None:
    inputs = random_inputs(1, 19, 1, 4, torch.float64)
    assert torch.autograd.gradcheck(lambda *tensors: wkv7_chunked(*tensors), inputs, atol=1e-6)


def test_float32_stays_within_2e_6_of_the_largest_number_even_where_every_decay_is_strongest() -> None:
    inputs = random_inputs(2, 256, 2, 64, torch.float32)
    with torch.no_grad():
        inputs[1].fill_(MAX_LOG_DECAY)
    y, state = wkv7_chunked(*inputs)
    y_exact, state_exact = wkv7(*(tensor.double() for tensor in inputs))
    for fast, exact in ((y, y_exact), (state, state_exact)):
        assert float((fast - exact).detach().abs().max() / exact.detach().abs().max()) < 2e-6


def test_a_sequence_split_anywhere_goes_on_from_the_carried_state() -> None:
    *sequence, state = random_inputs(2, 41, 2, 8, torch.float64)
    y, end = wkv7_chunked(*sequence, state)
    first, middle = wkv7_chunked(*(tensor[:, :23] for tensor in sequence), state)
    second, last = wkv7_chunked(*(tensor[:, 23:] for tensor in sequence), middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, end, rtol=0, atol=1e-12)


def test_without_a_state_it_begins_from_zeros() -> None:
    *sequence, state = random_inputs(1, 20, 1, 8, torch.float64)
    y, end = wkv7_chunked(*sequence)
    y_zeros, end_zeros = wkv7_chunked(*sequence, torch.zeros_like(state))
    assert torch.equal(y, y_zeros)
    assert torch.equal(end, end_zeros)
