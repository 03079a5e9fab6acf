"""Muon moves the blocks' matrices, AdamW the rest; both go on where they stopped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from antiphon.errors import FileError
from antiphon.training.optimizer import Optimizer

NAMES = ("emb.weight", "blocks.0.att.w0", "blocks.0.att.w1", "blocks.0.att.key.weight", "blocks.0.ln1.weight")


def parameters(*, width: int = 8) -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(1)
    shapes = {"emb.weight": (12, width), "blocks.0.att.w1": (width, 4), "blocks.0.att.key.weight": (width, width)}
    return [(name, nn.Parameter(torch.randn(shapes.get(name, (width,))))) for name in NAMES]


def optimizer(named: list[tuple[str, nn.Parameter]], *, kind: str = "muon", weight_decay: float = 0.0) -> Optimizer:
    return Optimizer(named, kind=kind, muon_lr_factor=2.0, weight_decay=weight_decay, betas=(0.9, 0.99), epsilon=1e-12)


def moved(
    named: list[tuple[str, nn.Parameter]], chosen: Optimizer, *, lr: float = 0.01, seed: int = 2
) -> dict[str, torch.Tensor]:
    """How far each parameter went in one step on random gradients."""
    before = {name: parameter.detach().clone() for name, parameter in named}
    torch.manual_seed(seed)
    for _, parameter in named:
        parameter.grad = torch.randn_like(parameter)
    chosen.step(lr=lr)
    return {name: parameter.detach() - before[name] for name, parameter in named}


def test_muon_gives_every_direction_of_a_block_matrix_about_the_same_step() -> None:
    named = parameters()
    steps = moved(named, optimizer(named))
    sizes = torch.linalg.svdvals(steps["blocks.0.att.key.weight"])
    # 0.2 * sqrt(8) * lr * factor, times 0.7 to 1.2: what five Newton-Schulz turns leave of the spread.
    expected = 0.2 * 8**0.5 * 0.01 * 2.0
    assert 0.5 * expected < float(sizes.min()) <= float(sizes.max()) < 1.5 * expected


def test_adamw_moves_all_else_by_the_learning_rate_and_w0_by_twice_as_much() -> None:
    named = parameters()
    steps = moved(named, optimizer(named))
    for name in ("emb.weight", "blocks.0.att.w1", "blocks.0.ln1.weight"):
        torch.testing.assert_close(steps[name].abs(), torch.full_like(steps[name], 0.01))
    torch.testing.assert_close(steps["blocks.0.att.w0"].abs(), torch.full((8,), 0.02))


def test_adamw_alone_moves_the_matrices_too() -> None:
    named = parameters()
    steps = moved(named, optimizer(named, kind="adamw"))
    torch.testing.assert_close(steps["blocks.0.att.key.weight"].abs(), torch.full((8, 8), 0.01))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_only_matrices_called_weight_decay(kind: str) -> None:
    named = parameters()
    chosen = optimizer(named, kind=kind, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in named}
    for _, parameter in named:
        parameter.grad = torch.zeros_like(parameter)
    chosen.step(lr=0.1)
    for name, parameter in named:
        shrunk = bool((parameter.detach().abs() < before[name].abs()).all())
        assert shrunk == (name in ("emb.weight", "blocks.0.att.key.weight")), name


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_goes_on_where_it_stopped(kind: str) -> None:
    named, again = parameters(), parameters()
    first = optimizer(named, kind=kind)
    moved(named, first)
    for (_, target), (_, source) in zip(again, named, strict=True):
        target.data.copy_(source.data)
    second = optimizer(again, kind=kind)
    second.load(copy.deepcopy(first.state_dict()), where="here")
    ours, theirs = moved(named, first, seed=3), moved(again, second, seed=3)
    fresh = moved(parameters(), optimizer(parameters(), kind=kind), seed=3)
    for name in NAMES:
        # Small matrices may lie differently in memory, and Muon turns them in bfloat16.
        torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=1e-4)
        assert not torch.allclose(ours[name], fresh[name], rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("wrong", ["another width", "another kind", "nothing", "not a state"])
def test_a_state_of_other_weights_is_refused(wrong: str) -> None:
    other = parameters(width=4 if wrong == "another width" else 8)
    source = optimizer(other, kind="adamw" if wrong == "another kind" else "muon")
    moved(other, source)
    saved: dict[str, Any] = source.state_dict()
    if wrong == "nothing":
        saved = {}
    elif wrong == "not a state":
        saved["muon"] = {"state": 3}
    with pytest.raises(FileError, match="other weights"):
        optimizer(parameters()).load(saved, where="here")
