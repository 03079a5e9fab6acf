"""Closing most ways to move on does not make chords fuller."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.session.moving_on import keep_moving_on, moves_of
from antiphon.tokens.vocabulary import BAR, Vocabulary

VOCABULARY = Vocabulary()
MOVES = moves_of(VOCABULARY)
PITCHES = np.arange(VOCABULARY.pitches.first, VOCABULARY.pitches.end)


def shares(logits: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """How likely it is, among what `mask` allows, to move on and to add a pitch."""
    weights = np.where(mask, np.exp(logits - logits.max()), 0.0)
    weights /= weights.sum()
    return float(weights[MOVES].sum()), float(weights[PITCHES].sum())


@pytest.mark.parametrize("open_moves", [[BAR], [BAR, VOCABULARY.position_id(40)], [VOCABULARY.position_id(3)]])
@pytest.mark.parametrize("leaning", [0.0, 1.0])
def test_what_closed_moves_would_have_had_goes_to_the_open_ones(open_moves: list[int], leaning: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=VOCABULARY.size).astype(np.float32) * 3
    before = (rng.normal(size=VOCABULARY.size) * leaning).astype(np.float32)
    everything = np.zeros(VOCABULARY.size, np.bool_)
    everything[MOVES] = everything[PITCHES] = True
    mask = everything.copy()
    mask[MOVES] = False
    mask[open_moves] = True
    offsets = before.copy()
    keep_moving_on(offsets, logits=logits, mask=mask, moves=MOVES)
    assert shares(logits + offsets, mask) == pytest.approx(shares(logits + before, everything), rel=1e-4)
    # Among themselves the open moves stand as they stood, and pitches are not touched.
    gained = (offsets - before)[open_moves]
    assert gained == pytest.approx(np.full(len(open_moves), gained[0]), rel=1e-4)
    assert (offsets[PITCHES] == before[PITCHES]).all()


@pytest.mark.parametrize("allowed", ["all", "none"])
def test_nothing_changes_where_all_or_no_moves_are_open(allowed: str) -> None:
    offsets = np.zeros(VOCABULARY.size, np.float32)
    mask = np.full(VOCABULARY.size, allowed == "all", np.bool_)
    mask[PITCHES] = True
    keep_moving_on(offsets, logits=np.zeros(VOCABULARY.size, np.float32), mask=mask, moves=MOVES)
    assert not offsets.any()
