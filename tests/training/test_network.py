"""The trainable network is the model: the same logits, state and gradients, whatever is packed beside."""

from __future__ import annotations

import pytest
import torch
from model.small_models import SMALL, random_weights
from torch import Tensor

from antiphon.model import rwkv7
from antiphon.model.wkv7_chunked import CHUNK
from antiphon.training.network import Network
from antiphon.training.recurrence import wkv7_training

IDS = torch.randint(0, SMALL.vocab_size, (3, 53), generator=torch.Generator().manual_seed(0))

# float32: as a share of the largest number. bfloat16: a number has 8 bits, so one matmul is off by about 0.4 %; this is
# the root mean square over all logits, as a share of their spread.
FLOAT32_WITHIN = 2e-5
BFLOAT16_WITHIN = 0.03


def network(dtype: torch.dtype = torch.float32, *, compute: torch.dtype | None = None) -> Network:
    return Network(SMALL, random_weights(dtype=dtype), compute_dtype=compute or dtype)


def close(one: Tensor, other: Tensor, within: float) -> bool:
    return float((one - other).detach().abs().max() / other.detach().abs().max()) < within


def test_in_float64_it_is_the_definition() -> None:
    logits, state = network(torch.float64)(IDS)
    expected, expected_state = rwkv7.sequence(random_weights(dtype=torch.float64), IDS)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(rwkv7.pack(state), rwkv7.pack(expected_state), rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 53])
def test_in_float32_on_the_kernel_it_is_the_definition(length: int) -> None:
    logits, state = network()(IDS[:, :length])
    exact, exact_state = rwkv7.sequence(random_weights(dtype=torch.float64), IDS[:, :length])
    assert close(logits.double(), exact, FLOAT32_WITHIN)
    assert close(rwkv7.pack(state).double(), rwkv7.pack(exact_state), FLOAT32_WITHIN)


def test_in_bfloat16_it_stays_near() -> None:
    logits, state = network(compute=torch.bfloat16)(IDS)
    exact, _ = rwkv7.sequence(random_weights(dtype=torch.float64), IDS)
    assert 0 < float((logits.detach() - exact).square().mean().sqrt() / exact.std()) < BFLOAT16_WITHIN
    assert logits.dtype == state[0].wkv.dtype == torch.float32


def test_it_goes_on_from_a_state() -> None:
    weights = random_weights(dtype=torch.float64)
    made = network(torch.float64)
    whole, end = made(IDS)
    first, middle = made(IDS[:, :20])
    second, last = made(IDS[:, 20:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(rwkv7.pack(last), rwkv7.pack(end), rtol=0, atol=1e-11)
    _, by_definition = rwkv7.sequence(weights, IDS[:, :20])
    third, _ = made(IDS[:, 20:], by_definition)
    torch.testing.assert_close(third, second, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_piece_packed_second_has_the_logits_it_has_alone(dtype: torch.dtype) -> None:
    made = network(dtype)
    first, second = IDS[0, :29], IDS[1, :40]
    at = 2 * CHUNK
    row = torch.zeros(1, at + 40, dtype=torch.long)
    row[0, :29], row[0, at:] = first, second
    starts = torch.zeros(1, at + 40, dtype=torch.bool)
    starts[0, [0, at]] = True
    packed, state = made(row, None, starts)
    alone, state_alone = made(second.unsqueeze(0))
    within = 1e-12 if dtype == torch.float64 else 1e-5
    assert close(packed[:, at:], alone, within)
    assert close(rwkv7.pack(state), rwkv7.pack(state_alone), within)
    assert close(packed[:, :29], made(first.unsqueeze(0))[0], within)
    assert not close(made(row)[0][:, at:], alone, 1e-3)  # without `starts` the first piece does leak


def test_no_gradient_leaks_from_a_piece_to_the_one_before_it() -> None:
    made = network()
    starts = torch.zeros(1, 32, dtype=torch.bool)
    starts[0, [0, 16]] = True
    row = torch.arange(32).unsqueeze(0) % 16 + torch.tensor([0] * 16 + [13] * 16)  # no id in both pieces
    logits, _ = made(row % 29, None, starts)
    (gradient,) = torch.autograd.grad(logits[:, 16:].square().sum(), [made.emb.weight])
    assert (gradient[:13] == 0).all()
    assert (gradient[16:29] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_its_gradients_are_those_of_the_definition(dtype: torch.dtype) -> None:
    weights = {name: tensor.requires_grad_() for name, tensor in random_weights(dtype=torch.float64).items()}
    loss, _ = rwkv7.sequence(weights, IDS)
    exact = dict(zip(weights, torch.autograd.grad(loss.square().mean(), list(weights.values())), strict=True))
    made = network(dtype)
    made(IDS)[0].square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        assert close(parameter.grad.double(), exact[name], 1e-10 if dtype == torch.float64 else 1e-4), name


def test_its_parameters_are_a_checkpoint() -> None:
    made = network()
    weights = random_weights()
    state = made.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == SMALL.shapes()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    made.load_state_dict({name: tensor + 1 for name, tensor in weights.items()})
    assert torch.equal(made.head.weight, weights["head.weight"] + 1)


def test_its_parameters_stand_in_one_order_whatever_that_of_the_weights() -> None:
    weights = random_weights()
    turned = Network(SMALL, dict(reversed(weights.items())))
    assert [name for name, _ in turned.named_parameters()] == [name for name, _ in network().named_parameters()]


def test_the_kernel_and_the_chunked_form_train_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 37, 2, 16, generator=generator, dtype=torch.float64) for _ in range(6)]
    inputs[1] = -0.6 * torch.rand(2, 37, 2, 16, generator=generator, dtype=torch.float64)
    inputs[4] = torch.nn.functional.normalize(inputs[4], dim=-1)
    inputs[5] = torch.rand(2, 37, 2, 16, generator=generator, dtype=torch.float64)
    inputs.append(torch.randn(2, 2, 16, 16, generator=generator, dtype=torch.float64))
    keep = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    outcome = {}
    for dtype in (torch.float32, torch.float64):  # the kernel takes float32 only
        tensors = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        y, state = wkv7_training(*tensors, keep.to(dtype))
        grads = torch.autograd.grad(y.square().sum() + state.square().sum(), tensors)
        outcome[dtype] = [tensor.detach().double() for tensor in (y, state, *grads)]
    for fast, exact in zip(outcome[torch.float32], outcome[torch.float64], strict=True):
        assert close(fast, exact, 1e-5)
