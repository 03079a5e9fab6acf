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
    1.77871868, 3.267740095, 2.690889409, 0.41285283, -2.12619017, -3.321051311, -2.41633689, 0.01599075,
    2.438209005, 3.318986444, 2.101493734, -0.444567696, -2.709572501, -3.261579923, -1.751609718, 0.865731803,
    2.935755872, 3.149788959, 1.3725189, -1.27246047, -3.112987677, -2.985477586, -0.970542341, 1.657971796,
    3.238312706, 2.771385573, 0.552382703, -2.015837664, -3.309641257,
]  # fmt: skip
OFFICIAL_STATE_SPREAD = 0.19661723516905286

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
