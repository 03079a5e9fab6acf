"""Every version gives the same however a sequence is fed, and its state is one vector (S0-086)."""

from __future__ import annotations

import pytest
import torch
from model.any_version import SMALL, SPECS, random_ids, random_weights

from antiphon.model import reference
from antiphon.model.reference import State
from antiphon.model.spec import Version

WITHIN = {torch.float64: 1e-12, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("split", [(3, 5), (1,) * 8])
@pytest.mark.parametrize("name", SMALL)
def test_a_sequence_is_its_steps_and_any_split_of_it(name: str, split: tuple[int, ...], dtype: torch.dtype) -> None:
    spec, ids = SPECS[name], random_ids(SPECS[name], 8)
    weights = random_weights(spec, dtype=dtype)
    logits, state = reference.sequence(spec, weights, ids)
    parts, after = [], None
    for part in ids.split(list(split)):
        if len(part) == 1:
            last, after = reference.step(spec, weights, int(part), after)
            parts.append(last.unsqueeze(0))
        else:
            several, after = reference.sequence(spec, weights, part, after)
            parts.append(several)
    assert after is not None
    assert logits.dtype == dtype
    within = WITHIN[dtype]
    torch.testing.assert_close(torch.cat(parts), logits, rtol=within, atol=within)
    torch.testing.assert_close(reference.pack(after), reference.pack(state), rtol=within, atol=within)


@pytest.mark.parametrize("name", SMALL)
def test_a_row_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    spec = SPECS[name]
    weights = random_weights(spec, dtype=torch.float64)
    rows = random_ids(spec, 24).view(2, 2, 6)
    together, state = reference.sequence(spec, weights, rows)
    packed = reference.pack(state)
    assert packed.shape == (2, 2, spec.state_floats)
    for at in ((0, 0), (0, 1), (1, 0), (1, 1)):
        alone, state_alone = reference.sequence(spec, weights, rows[at])
        torch.testing.assert_close(together[at], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(packed[at], reference.pack(state_alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_state_given_is_left_as_it_was(name: str) -> None:
    spec, ids = SPECS[name], random_ids(SPECS[name], 9)
    weights = random_weights(spec)
    _, state = reference.sequence(spec, weights, ids[:4])
    before = reference.pack(state).clone()
    reference.step(spec, weights, 3, state)
    reference.sequence(spec, weights, ids[4:], state)
    assert torch.equal(reference.pack(state), before)


@pytest.mark.parametrize("name", SMALL)
def test_a_state_becomes_one_vector_and_back(name: str) -> None:
    spec = SPECS[name]
    _, state = reference.sequence(spec, random_weights(spec), random_ids(spec, 5))
    packed = reference.pack(state)
    assert packed.shape == (spec.state_floats,)
    assert torch.equal(packed[: spec.n_embd], state[0].att_x)
    assert torch.equal(packed[-spec.n_embd :], state[-1].ffn_x)
    assert torch.equal(reference.pack(reference.unpack(spec, packed)), packed)
    again, _ = reference.step(spec, random_weights(spec), 1, reference.unpack(spec, packed))
    assert torch.equal(again, reference.step(spec, random_weights(spec), 1, state)[0])


@pytest.mark.parametrize("name", SMALL)
def test_no_state_is_the_zero_state(name: str) -> None:
    spec, ids = SPECS[name], random_ids(SPECS[name], 3)
    weights = random_weights(spec)
    logits, _ = reference.sequence(spec, weights, ids)
    zero = reference.zero_state(spec)
    assert torch.equal(reference.sequence(spec, weights, ids, zero)[0], logits)
    start = reference.pack(zero)
    if spec.version is Version.V4:
        # pp, the log of the largest weight so far, begins below every number that it could meet.
        assert sorted({float(number) for number in start}) == [pytest.approx(-1e30), 0.0]
    else:
        assert not start.any()


@pytest.mark.parametrize("name", SMALL)
def test_the_state_stays_the_same_size_and_finite_over_hundreds_of_tokens(name: str) -> None:
    spec = SPECS[name]
    weights = random_weights(spec)
    state: State | None = None
    for round_ in range(2):
        logits, state = reference.sequence(spec, weights, random_ids(spec, 100, seed=round_), state)
        assert reference.pack(state).shape == (spec.state_floats,)
        assert reference.pack(state).isfinite().all()
        assert logits.isfinite().all()


def test_weights_beyond_the_range_of_e_do_not_overflow_rwkv_4() -> None:
    spec = SPECS["4"]
    weights = random_weights(spec)
    for layer in range(spec.n_layer):
        weights[f"blocks.{layer}.att.key.weight"] *= 300
    logits, state = reference.sequence(spec, weights, random_ids(spec, 20))
    assert float(reference.unpack(spec, reference.pack(state))[0].pp.abs().max()) > 100  # type: ignore[union-attr]
    assert logits.isfinite().all()


def test_a_state_of_another_version_is_refused() -> None:
    four, five = SPECS["4"], SPECS["5.0"]
    with pytest.raises(TypeError, match="keeps matrices"):
        reference.sequence(five, random_weights(five), random_ids(five, 2), reference.zero_state(four))
    with pytest.raises(TypeError, match="keeps sums"):
        reference.sequence(four, random_weights(four), random_ids(four, 2), reference.zero_state(five))
