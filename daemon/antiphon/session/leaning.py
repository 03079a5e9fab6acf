"""How an answer leans towards the call: logits moved towards its key, register, density, dynamics and motifs.

The grammar says what is legal; this says what is likely, and nothing here forbids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.session.portrait import Portrait
from antiphon.tokens.grammar import AnswerGrammar
from antiphon.tokens.vocabulary import BAR, Vocabulary

Floats = NDArray[np.float32]

# What strength 1 takes off a logit, or adds to it. Chosen on prompts with human continuations: foreign notes, notes
# beyond the register and bars too full or too empty come to the human shares or a little below, motifs nearer to them.
# Those of key and motifs were halved for a model that keeps to both better by itself (100 windows of 100 songs).
_FOREIGN = 0.25  # a pitch class that is not at home at all
_BEYOND = 0.15  # a semitone beyond the register and its margin
_FARTHEST = 6.0  # what pitches far beyond lose
_MARGIN = 2  # semitones beyond what was played that are the player's still
_VELOCITY_MARGIN = 8  # as much as one of 16 bins
_BEYOND_VELOCITY = 0.08  # a velocity step beyond the dynamics and their margin
_FULLER = 1.5  # a note more at once, or in one chord, than was ever played
_CROWDED = 1.0  # e times as many onsets or notes as the call would have had by now
_MOVE = 0.25  # gained by a pitch that came after the last one in the call as well
_PLACE = 0.25  # gained by a pitch that was struck at this step of a bar of the call
_LENGTH = 0.25  # gained by a length that a note of the call had
_RHYTHM = 0.4  # gained by a step that every bar of the call has an onset on, over one that none has
_SILENCE = 1.0  # a wait e times as long as the longest in the call
_THIN = 0.5  # how much too many onsets the last bar is taken to have, so that it thins out
_RING = 4.0  # what the shortest note loses on the closing beat; one that sounds for half of what is left, nothing
_LAST = 2.0  # how many times more a foreign pitch class loses on the closing beat


@dataclass(frozen=True, slots=True)
class Likeness:
    """How closely an answer keeps to the call, each 0 (as the model pleases) or more; 1 is moderate."""

    key: float = 1.0
    register: float = 1.0
    density: float = 1.0
    dynamics: float = 1.0
    motifs: float = 1.0

    @classmethod
    def of(cls, strength: float) -> Likeness:
        """All of them equally strong."""
        return cls(key=strength, register=strength, density=strength, dynamics=strength, motifs=strength)


class Leaning:
    """The leaning of one answer: `offsets` are added to the logits before an id is drawn."""

    def __init__(self, *, vocabulary: Vocabulary, portrait: Portrait, likeness: Likeness) -> None:
        self._vocabulary = vocabulary
        self._portrait = portrait
        self._density = likeness.density
        self._motifs = likeness.motifs
        self._fixed = np.zeros(vocabulary.size, dtype=np.float32)
        self._offsets = np.zeros(vocabulary.size, dtype=np.float32)
        self._lean_pitches(likeness)
        self._lean_velocities(likeness)
        lengths = [length for length in portrait.lengths if length <= vocabulary.longest_steps]
        self._fixed[[vocabulary.duration_id(length) for length in lengths]] += likeness.motifs * _LENGTH
        rhythm = np.array(portrait.rhythm)
        self._rhythm = likeness.motifs * _RHYTHM * (rhythm - rhythm.mean())
        self._moves, self._places = (
            {at: np.array([vocabulary.pitch_id(pitch) for pitch in sorted(pitches)]) for at, pitches in figures.items()}
            for figures in (portrait.moves, portrait.places)
        )

    def _lean_pitches(self, likeness: Likeness) -> None:
        vocabulary, portrait = self._vocabulary, self._portrait
        pitch = np.arange(vocabulary.grid.lowest, vocabulary.grid.highest + 1)
        self._foreign = likeness.key * _FOREIGN * (1 - np.array(portrait.at_home)[pitch % 12])
        beyond = _beyond(pitch, portrait.lowest - _MARGIN, portrait.highest + _MARGIN)
        lost = self._foreign + likeness.register * np.minimum(_FARTHEST, _BEYOND * beyond)
        self._fixed[vocabulary.pitches.first : vocabulary.pitches.end] -= lost

    def _lean_velocities(self, likeness: Likeness) -> None:
        vocabulary, portrait = self._vocabulary, self._portrait
        first, end = vocabulary.velocities.first, vocabulary.velocities.end
        velocity = np.array([vocabulary.velocity_of(token) for token in range(first, end)])
        beyond = _beyond(velocity, portrait.softest - _VELOCITY_MARGIN, portrait.loudest + _VELOCITY_MARGIN)
        self._fixed[first:end] -= likeness.dynamics * _BEYOND_VELOCITY * beyond

    def offsets(self, grammar: AnswerGrammar) -> Floats:
        """What to add to the logits, [vocabulary size], where `grammar` stands. The array is reused."""
        vocabulary, last = self._vocabulary, grammar.last_token
        closing = grammar.here == grammar.closing_step
        if last in vocabulary.pitches or grammar.bar < 0:
            return self._fixed
        offsets = self._offsets
        offsets[:] = self._fixed
        if last in vocabulary.velocities:
            if closing:
                half = (grammar.total_steps - grammar.here) // 2
                short = _RING * (1 - np.arange(1, half) / half) if half else ()
                offsets[vocabulary.durations.first : vocabulary.durations.first + len(short)] -= short
            return offsets
        if closing:
            offsets[vocabulary.pitches.first : vocabulary.pitches.end] -= _LAST * self._foreign
        if self._motifs:
            self._lean_to_motifs(grammar, offsets)
        if self._density and last not in vocabulary.positions:
            self._lean_to_density(grammar, offsets)
        return offsets

    def _lean_to_motifs(self, grammar: AnswerGrammar, offsets: Floats) -> None:
        """Favour the call's moves from pitch to pitch, its pitches at this step, and its steps of the bar."""
        moves, places = self._moves.get(grammar.last_pitch), self._places.get(grammar.step)
        if moves is not None:
            offsets[moves] += self._motifs * _MOVE
        if places is not None:
            offsets[places] += self._motifs * _PLACE
        if len(self._rhythm) == grammar.bar_steps:
            positions = self._vocabulary.positions.first
            offsets[positions : positions + grammar.bar_steps] += self._rhythm

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
