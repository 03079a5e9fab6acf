"""How an answer leans towards the call: lower logits for what is not in its key, register, density and dynamics.

The grammar says what is legal; this says what is likely, and nothing here forbids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.music.time import STEPS_PER_QUARTER
from antiphon.session.portrait import Portrait
from antiphon.tokens.grammar import AnswerGrammar
from antiphon.tokens.vocabulary import BAR, Vocabulary

Floats = NDArray[np.float32]

# What strength 1 takes off a logit. Chosen on the 26 prompts: the shares of foreign notes, of notes beyond the
# register and of bars too full or too empty come to what human continuations have, or a little below.
_FOREIGN = 1.2  # a pitch class that is not at home at all
_BEYOND = 0.2  # a semitone beyond the register and its margin
_FARTHEST = 6.0  # what pitches far beyond lose
_MARGIN = 2  # semitones beyond what was played that are the player's still
_VELOCITY_MARGIN = 8  # as much as one of 16 bins
_BEYOND_VELOCITY = 0.08  # a velocity step beyond the dynamics and their margin
_FULLER = 1.5  # a note more at once, or in one chord, than was ever played
_CROWDED = 1.0  # e times as many onsets or notes as the call would have had by now
_SILENCE = 1.0  # a wait e times as long as the longest in the call
_THIN = 0.5  # how much too many onsets the last bar is taken to have, so that it thins out
# What short notes lose on the closing beat, where a note may ring: 1.5 for the shortest, nothing from a quarter on.
_RING = np.linspace(1.5, 0.0, STEPS_PER_QUARTER, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How closely an answer keeps to the call, each 0 (as the model pleases) or more; 1 is moderate."""

    key: float = 1.0
    register: float = 1.0
    density: float = 1.0
    dynamics: float = 1.0


class Leaning:
    """The leaning of one answer: `offsets` are added to the logits before an id is drawn."""

    def __init__(self, *, vocabulary: Vocabulary, portrait: Portrait, likeness: Likeness) -> None:
        self._vocabulary = vocabulary
        self._portrait = portrait
        self._density = likeness.density
        self._fixed = np.zeros(vocabulary.size, dtype=np.float32)
        self._offsets = np.zeros(vocabulary.size, dtype=np.float32)
        pitches = self._fixed[vocabulary.pitches.first : vocabulary.pitches.end]
        pitch = vocabulary.grid.lowest + np.arange(len(pitches))
        pitches -= likeness.key * _FOREIGN * (1 - np.array(portrait.at_home)[pitch % 12])
        beyond = _beyond(pitch, portrait.lowest - _MARGIN, portrait.highest + _MARGIN)
        pitches -= likeness.register * np.minimum(_FARTHEST, _BEYOND * beyond)
        spoken = range(vocabulary.velocities.first, vocabulary.velocities.end)
        velocity = np.array([vocabulary.velocity_of(token) for token in spoken])
        beyond = _beyond(velocity, portrait.softest - _VELOCITY_MARGIN, portrait.loudest + _VELOCITY_MARGIN)
        self._fixed[vocabulary.velocities.first : vocabulary.velocities.end] -= (
            likeness.dynamics * _BEYOND_VELOCITY * beyond
        )

    def offsets(self, grammar: AnswerGrammar) -> Floats:
        """What to add to the logits, [vocabulary size], where `grammar` stands. The array is reused."""
        vocabulary, last = self._vocabulary, grammar.last_token
        if last in vocabulary.positions or last in vocabulary.pitches or grammar.bar < 0:
            return self._fixed
        offsets = self._offsets
        offsets[:] = self._fixed
        if last in vocabulary.velocities:
            if grammar.here == grammar.closing_step:
                offsets[vocabulary.durations.first : vocabulary.durations.first + len(_RING)] -= _RING
            return offsets
        if self._density:
            self._lean_to_density(grammar, offsets)
        return offsets

    def _lean_to_density(self, grammar: AnswerGrammar, offsets: Floats) -> None:
        """Favour what brings onsets and notes nearer to what the call would have had by now."""
        vocabulary, portrait = self._vocabulary, self._portrait
        ahead = 0.0
        if grammar.onsets:
            ahead = math.log((grammar.onsets + 1) / (portrait.onsets_per_step * grammar.last_onset + 2))
        closing = grammar.closing_step is not None and grammar.bar == grammar.bars - 1
        if closing:
            ahead += _THIN
        strength = self._density * _CROWDED * min(1.0, max(-1.0, ahead))
        start = grammar.bar * grammar.bar_steps
        first = max(0, grammar.step + 1)
        gap = start + first - max(grammar.last_onset, start - grammar.bar_steps)
        waits = np.arange(gap, gap + grammar.bar_steps - first + 1)
        likes = strength * np.minimum(1.0, np.maximum(-1.0, np.log(portrait.onsets_per_step * waits)))
        silence = np.log(np.maximum(1.0, waits / max(1, portrait.longest_wait)))
        if closing and grammar.bars > 1:
            silence[-1] = 0.0  # the answer may be over
        likes -= self._density * _SILENCE * silence
        positions = vocabulary.positions.first
        offsets[positions + first : positions + grammar.bar_steps] += likes[:-1]
        offsets[BAR] += likes[-1]
        if not grammar.chord:
            return
        fuller = math.log((grammar.notes + 1) / (portrait.notes_per_onset * grammar.onsets + 1))
        wider = max(0, grammar.chord + 1 - portrait.widest)
        more = max(0, grammar.sounding + 1 - portrait.most_at_once)
        lost = _CROWDED * min(1.0, max(-1.0, fuller)) + _FULLER * max(wider, more)
        offsets[vocabulary.pitches.first : vocabulary.pitches.end] -= self._density * lost


def _beyond(values: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """How far each of `values` lies outside `low`..`high`."""
    far: NDArray[np.int64] = np.maximum(0, np.maximum(low - values, values - high))
    return far
