"""Every version gives the numbers of the official `rwkv` package and of an independent float64 statement (S0-086)."""

from __future__ import annotations

import pytest
import torch
from model import independent_rwkv4, independent_rwkv7, independent_rwkv56
from model.any_version import SMALL, SPECS, random_ids, random_weights
from model.independent_parts import Tensors, Vector
from model.official import official_outcomes
from torch import Tensor

from antiphon.model import reference
from antiphon.model.spec import ModelSpec, Version

# The largest difference that a float32 engine may show, in standard deviations.
WITHIN = 1e-5
FED = 24


def stated(spec: ModelSpec, weights: dict[str, Tensor], ids: list[int], *, eps: float = 64e-5) -> tuple[Tensor, Tensor]:
    """Logits [T, V] and the state after the last id, float64, by the statement that knows no state."""
    outcome: tuple[list[Vector], Vector]
    if spec.version is Version.V4:
        outcome = independent_rwkv4.run(Tensors(weights), ids)
    elif spec.version is Version.V7:
        outcome = independent_rwkv7.run(Tensors(weights), ids, n_head=spec.n_head)
    else:
        outcome = independent_rwkv56.run(Tensors(weights), ids, n_head=spec.n_head, eps=eps)
    return torch.tensor(outcome[0], dtype=torch.float64), torch.tensor(outcome[1], dtype=torch.float64)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, in standard deviations of the second."""
    return float((one.double() - other.double()).abs().max() / other.double().std())


def by_part(spec: ModelSpec, state: Tensor) -> list[Tensor]:
    """The parts of a state, which differ in scale."""
    d = spec.n_embd
    sizes = [d] * 5 if spec.version is Version.V4 else [d, d * spec.head_size, d]
    return list(state.split(sizes * spec.n_layer))


def assert_same(spec: ModelSpec, logits: Tensor, state: Tensor, expected: tuple[Tensor, Tensor], within: float) -> None:
    assert logits.shape == expected[0].shape
    assert float(expected[0].std()) > 0.1
    for row, wanted in zip(logits, expected[0], strict=True):
        assert apart(row, wanted) < within
    for part, wanted in zip(by_part(spec, state), by_part(spec, expected[1]), strict=True):
        assert apart(part, wanted) < within


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, Tensor]]:
    """Logits and state by the official package for every spec."""
    return official_outcomes(tmp_path_factory.mktemp("official"), count=FED)


@pytest.mark.parametrize("name", SPECS)
def test_float32_gives_what_the_official_package_gives(name: str, official: dict[str, tuple[Tensor, Tensor]]) -> None:
    spec = SPECS[name]
    logits, state = reference.sequence(spec, random_weights(spec), random_ids(spec, FED))
    assert_same(spec, logits, reference.pack(state), official[name], WITHIN)


@pytest.mark.parametrize("name", SMALL)
def test_float32_and_float64_give_what_the_statement_without_a_state_gives(name: str) -> None:
    spec, ids = SPECS[name], random_ids(SPECS[name], 10)
    weights = random_weights(spec)
    expected = stated(spec, weights, ids.tolist())
    logits, state = reference.sequence(spec, weights, ids)
    assert_same(spec, logits, reference.pack(state), expected, WITHIN)
    exact, exact_state = reference.sequence(spec, random_weights(spec, dtype=torch.float64), ids)
    assert_same(spec, exact, reference.pack(exact_state), expected, 1e-12)


@pytest.mark.parametrize("name", ["5.0", "5.1", "5.2"])
def test_the_constant_in_the_norm_over_heads_is_the_one_asked_for(name: str) -> None:
    # rwkv.cpp's files of RWKV-5 are made for 1e-5.
    spec, ids = SPECS[name], random_ids(SPECS[name], 8)
    # Faint values, so that the constant counts.
    weights = {n: t * (0.02 if n.endswith("att.value.weight") else 1) for n, t in random_weights(spec).items()}
    expected = stated(spec, weights, ids.tolist(), eps=1e-5)
    logits, state = reference.sequence(spec, weights, ids, ln_x_eps=1e-5)
    assert_same(spec, logits, reference.pack(state), expected, 1e-4)
    usual, _ = reference.sequence(spec, weights, ids)
    assert apart(usual, expected[0]) > 0.1


@pytest.mark.parametrize("name", ["4", "6", "7"])
def test_versions_of_one_constant_refuse_another(name: str) -> None:
    spec = SPECS[name]
    with pytest.raises(ValueError, match="norms its heads"):
        reference.sequence(spec, random_weights(spec), random_ids(spec, 2), ln_x_eps=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_tensor_has_something_to_say(name: str) -> None:
    """So that the comparisons above would find a part that is left out."""
    spec, ids = SPECS[name], random_ids(SPECS[name], 4)
    weights = random_weights(spec)
    logits, _ = reference.sequence(spec, weights, ids)
    for tensor, other in random_weights(spec, seed=1).items():
        if tensor.startswith("blocks.2."):
            continue  # nothing that layer 1 has not
        changed, _ = reference.sequence(spec, weights | {tensor: torch.lerp(weights[tensor], other, 0.2)}, ids)
        assert apart(changed, logits) > 100 * WITHIN, tensor
