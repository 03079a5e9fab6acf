"""The definition is RWKV-7, and gives the same however a sequence is fed."""

from __future__ import annotations

import pytest
import torch
from model.small_models import SMALL, random_weights, wavy_weights

from antiphon.model import rwkv7
from antiphon.model.rwkv7 import State
from antiphon.model.spec import ModelSpec

IDS = torch.tensor([(7 * i * i + 3 * i) % SMALL.vocab_size for i in range(24)])

# Logits after IDS and the spread of the matrix states, as RWKV-LM's RWKV-v7/rwkv_v7_numpy.py (commit 2148350) gives
# them in float64 for `wavy_weights(SMALL)`.
OFFICIAL_LOGITS = [
    1.750091838, 3.238419993, 2.679412278, 0.426474534, -2.096081299, -3.293490165, -2.408747683, -0.001189894,
    2.407120148, 3.293643815, 2.097918995, -0.424114587, -2.678022043, -3.23887838, -1.752109054, 0.842347269,
    2.904269893, 3.130107035, 1.377083985, -1.246534432, -3.082091182, -2.969143461, -0.979097055, 1.629936551,
    3.208520871, 2.758671608, 0.564784403, -1.986160679, -3.281450839,
]  # fmt: skip
OFFICIAL_STATE_SPREAD = 20.053722091065996

WITHIN = {torch.float64: 1e-12, torch.float32: 1e-4}


def assert_equal(one: State, other: State, *, within: float) -> None:
    torch.testing.assert_close(rwkv7.pack(one), rwkv7.pack(other), rtol=within, atol=within)


def test_gives_what_the_official_implementation_gives() -> None:
    logits, state = rwkv7.sequence(wavy_weights(SMALL), IDS)
    torch.testing.assert_close(logits[-1], torch.tensor(OFFICIAL_LOGITS, dtype=torch.float64), rtol=0, atol=1e-8)
    spread = torch.stack([layer.wkv for layer in state]).std(correction=0)
    assert float(spread) == pytest.approx(OFFICIAL_STATE_SPREAD, rel=1e-9)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("split", [(8,), (3, 5), (1, 7), (5, 1, 2), (1,) * 8])
def test_a_sequence_is_its_steps_and_any_split_of_it(dtype: torch.dtype, split: tuple[int, ...]) -> None:
    weights = random_weights(dtype=dtype)
    ids = IDS[:8]
    logits, state = rwkv7.sequence(weights, ids)
    parts, after = [], None
    for part in ids.split(list(split)):
        if len(part) == 1:
            last, after = rwkv7.step(weights, int(part), after)
            parts.append(last.unsqueeze(0))
        else:
            several, after = rwkv7.sequence(weights, part, after)
            parts.append(several)
    assert after is not None
    torch.testing.assert_close(torch.cat(parts), logits, rtol=WITHIN[dtype], atol=WITHIN[dtype])
    assert_equal(after, state, within=WITHIN[dtype])
    assert logits.dtype == dtype


def test_a_state_given_is_left_as_it_was() -> None:
    weights = random_weights()
    _, state = rwkv7.sequence(weights, IDS[:4])
    before = rwkv7.pack(state).clone()
    rwkv7.step(weights, 3, state)
    rwkv7.sequence(weights, IDS[4:9], state)
    assert torch.equal(rwkv7.pack(state), before)


def test_a_row_does_not_depend_on_the_rest_of_the_batch() -> None:
    weights = random_weights(dtype=torch.float64)
    rows = torch.stack([IDS[:9], IDS[9:18], IDS[15:24]])
    together, state = rwkv7.sequence(weights, rows)
    for row, ids in enumerate(rows):
        alone, state_alone = rwkv7.sequence(weights, ids)
        torch.testing.assert_close(together[row], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rwkv7.pack(state)[row], rwkv7.pack(state_alone), rtol=1e-12, atol=1e-12)


def test_a_state_becomes_one_vector_and_back() -> None:
    _, state = rwkv7.sequence(random_weights(), IDS)
    packed = rwkv7.pack(state)
    assert packed.shape == (SMALL.state_floats,)
    assert torch.equal(packed[: SMALL.n_embd], state[0].att_x)
    assert torch.equal(packed[-SMALL.n_embd :], state[-1].ffn_x)
    assert_equal(rwkv7.unpack(SMALL, packed), state, within=0)


def test_the_state_stays_the_same_size_and_finite_over_thousands_of_tokens() -> None:
    spec = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=29)
    weights = random_weights(spec)
    state: State | None = None
    for _ in range(4):
        ids = torch.randint(0, 29, (500,), generator=torch.Generator().manual_seed(0))
        logits, state = rwkv7.sequence(weights, ids, state)
        packed = rwkv7.pack(state)
        assert packed.shape == (spec.state_floats,)
        assert packed.isfinite().all()
        assert logits.isfinite().all()


@pytest.mark.parametrize("n_layer", [1, 2])
def test_few_layers_are_a_model_too(n_layer: int) -> None:
    spec = ModelSpec.of_width(n_layer=n_layer, n_embd=64, vocab_size=7)
    logits, state = rwkv7.sequence(random_weights(spec), torch.tensor([1, 2, 3]))
    assert logits.shape == (3, 7)
    assert len(state) == n_layer
