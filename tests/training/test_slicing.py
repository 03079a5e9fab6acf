"""Physical slicing (S2-040): the loss and the gradients of "compute all, then select", for a fraction of the logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from model.small_models import SMALL, random_weights
from torch import Tensor

from antiphon.training.network import Network
from antiphon.training.slicing import completion_mask, physical_slicing, rows_where

LENGTHS = torch.tensor([40, 7, 23, 2])  # of the windows less their last id
CONTEXTS = torch.tensor([30, 1, 23, 2])
LONGEST = int(LENGTHS.max())
GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.randint(0, SMALL.vocab_size, (4, LONGEST + 1), generator=GENERATOR)
MASK = torch.arange(LONGEST) < LENGTHS.unsqueeze(1)


def selected_one_by_one(rows: Tensor) -> Tensor:
    """What a loop picks from [B, T, …]: of each window the rows from the context's last id on, without padding."""
    picked = [
        rows[b, t] for b in range(len(rows)) for t in range(int(CONTEXTS[b]) - 1, int(LENGTHS[b]))
    ]  # fmt: skip
    return torch.stack(picked)


def test_the_rows_are_those_from_the_contexts_last_id_on() -> None:
    hidden = torch.arange(4 * LONGEST).view(4, LONGEST, 1).float()
    assert torch.equal(physical_slicing(hidden, CONTEXTS, MASK), selected_one_by_one(hidden))
    assert len(physical_slicing(hidden, CONTEXTS, MASK)) == int((LENGTHS - CONTEXTS + 1).sum()) == 20


def test_without_a_mask_nothing_is_padding() -> None:
    hidden = torch.randn(4, LONGEST, 3, generator=GENERATOR)
    everything = torch.ones(4, LONGEST, dtype=torch.bool)
    assert torch.equal(physical_slicing(hidden, CONTEXTS), physical_slicing(hidden, CONTEXTS, everything))
    assert len(physical_slicing(hidden, CONTEXTS)) == int((LONGEST - CONTEXTS + 1).sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_are_those_of_computing_all_then_selecting(dtype: torch.dtype) -> None:
    outcome: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
    targets = selected_one_by_one(IDS[:, 1:])
    for way in ("sliced", "all"):
        network = Network(SMALL, random_weights(dtype=dtype), compute_dtype=dtype)
        if way == "sliced":
            hidden, _ = network.hidden(IDS[:, :-1])
            logits = network.logits_of(physical_slicing(hidden, CONTEXTS, MASK))
        else:
            logits = selected_one_by_one(network(IDS[:, :-1])[0])
        loss = functional.cross_entropy(logits, targets)
        loss.backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        outcome[way] = loss.detach(), gradients
    (sliced, sliced_gradients), (everything, all_gradients) = outcome["sliced"], outcome["all"]
    within = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(sliced, everything, rtol=within, atol=0)
    assert sliced_gradients.keys() == all_gradients.keys()
    assert len(all_gradients) > 70
    for name, gradient in all_gradients.items():
        torch.testing.assert_close(
            sliced_gradients[name], gradient, rtol=0, atol=within * float(gradient.abs().max()), msg=name
        )


def test_what_is_padding_changes_neither_loss_nor_gradients() -> None:
    outcome = []
    for filling in (0, 28):
        ids = torch.where(torch.arange(LONGEST + 1) <= LENGTHS.unsqueeze(1), IDS, filling)
        network = Network(SMALL, random_weights())
        hidden, _ = network.hidden(ids[:, :-1])
        logits = network.logits_of(physical_slicing(hidden, CONTEXTS, MASK))
        functional.cross_entropy(logits, selected_one_by_one(ids[:, 1:])).backward()
        outcome.append((logits, network.emb.weight.grad))
    (logits, gradient), (other_logits, other_gradient) = outcome
    assert torch.equal(logits, other_logits)
    assert gradient is not None
    assert other_gradient is not None
    torch.testing.assert_close(gradient, other_gradient, rtol=0, atol=1e-7)


def test_a_window_without_a_completion_has_no_rows() -> None:
    hidden = torch.randn(1, 8, 4, generator=GENERATOR)
    assert physical_slicing(hidden, torch.tensor([9])).shape == (0, 4)


def test_rows_come_in_their_order() -> None:
    hidden = torch.arange(12).view(2, 3, 2).float()
    wanted = torch.tensor([[False, True, False], [True, False, True]])
    assert rows_where(hidden, wanted).tolist() == [[2, 3], [6, 7], [10, 11]]
    assert not completion_mask(torch.tensor([3, 1]), torch.zeros(2, 3, dtype=torch.bool)).any()


def test_the_memory_that_slicing_saves() -> None:
    """The worked example (S2-041): 8,192 positions of 65,536 logits in 16 bits, 400 of them learnt from."""
    everything = torch.empty(4, 2048, 65536, dtype=torch.bfloat16, device="meta").nbytes
    sliced = torch.empty(400, 65536, dtype=torch.bfloat16, device="meta").nbytes
    assert round(everything / 1e9, 2) == 1.07
    assert round(sliced / 1e6) == 52
    assert round(100 * (1 - sliced / everything), 1) == 95.1
