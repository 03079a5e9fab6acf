"""How an answer relates to its prompt, in ten numbers: the measures that the human-likeness gap is made of.

None of them is good when it is high or low. Humans have their own spread in each, and an answer is like a human's
when its numbers are: someone who copies the prompt has too much overlap, someone who wanders off has too little.
All are symmetric under transposing prompt and answer together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from antiphon.evaluation.passage import Ints, Passage

Floats = npt.NDArray[np.float64]

# The key profiles of Krumhansl and Kessler (1982): how well each pitch class fits a key on C, major and minor.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
_MINOR_SCALE = (0, 2, 3, 5, 7, 8, 10, 11)
"""Natural minor with the raised seventh, which the music of the last four centuries has beside the natural one."""

_LENGTHS = np.array([1, 2, 3, 4, 6, 8, 9, 12, 18, 24, 36, 48, 72, 96])
"""Classes of durations in steps (12 a quarter): a note is of the class nearest to it in the logarithm."""


def scale_of(passage: Passage) -> frozenset[int]:
    """The pitch classes of the passage's key.

    The key is the one of 24 whose profile correlates best with the time that each pitch class sounds (Krumhansl 1990).
    """
    sounding = np.bincount(passage.pitch % 12, passage.len_steps, 12).astype(np.float64)
    best, scale = -np.inf, frozenset(range(12))
    for profile, steps in ((_MAJOR, _MAJOR_SCALE), (_MINOR, _MINOR_SCALE)):
        for tonic in range(12):
            fit = _correlation(sounding, np.roll(profile, tonic))
            if fit > best:
                best, scale = fit, frozenset((tonic + step) % 12 for step in steps)
    return scale


def pitch_class_overlap(prompt: Passage, answer: Passage) -> float:
    """Overlap of the two histograms of pitch classes, 0..1 (Yang and Lerch 2020; notes count alike)."""
    return _overlap(prompt.pitch % 12, answer.pitch % 12, 12)


def in_prompt_key(prompt: Passage, answer: Passage) -> float:
    """Share of the answer's notes whose pitch class belongs to the prompt's key (`scale_of`), 0..1."""
    return float(np.isin(answer.pitch % 12, list(scale_of(prompt))).mean())


def groove_similarity(prompt: Passage, answer: Passage) -> float:
    """How alike bars of the prompt and bars of the answer place their onsets, 0..1, over all pairs of them.

    After Wu and Yang (2020): 1 − the share of a bar's positions at which one has an onset and the other has not. Bars
    are laid on a grid of sixteenths here, since nearly all of the twelve steps of a quarter are empty in any bar.
    """
    mine, other = _onsets(prompt), _onsets(answer)
    return float(1 - (mine[:, None, :] != other[None, :, :]).mean())


def density_ratio(prompt: Passage, answer: Passage) -> float:
    """|ln| of how many times as many notes a bar the answer has as the prompt."""
    return abs(float(np.log((len(answer) / answer.bars) / (len(prompt) / prompt.bars))))


def bar_jaccard(prompt: Passage, answer: Passage) -> float:
    """How much of a bar comes back, 0..1: mean over the answer's bars of the likest prompt bar's Jaccard index.

    A bar is the set of its (onset, pitch). Bars without a note are left out.
    """
    theirs = bar_sets(prompt)
    return float(np.mean([max(len(a & p) / len(a | p) for p in theirs) for a in bar_sets(answer)]))


def bigram_reuse(prompt: Passage, answer: Passage) -> float:
    """Share of the answer's pairs of neighbouring pitches that the prompt has too, 0..1; 0 where it has no pair.

    Neighbours follow each other in order of onset, then pitch, so that chords and figures count as melodies do.
    """
    mine, other = _bigrams(prompt.pitch), _bigrams(answer.pitch)
    return float(np.isin(other, mine).mean()) if len(other) else 0.0


def register_shift(prompt: Passage, answer: Passage) -> float:
    """Distance between the mean pitches, in semitones."""
    return abs(float(answer.pitch.mean() - prompt.pitch.mean()))


def velocity_distance(prompt: Passage, answer: Passage) -> float:
    """How far velocities would have to move for the two to have the same ones (Wasserstein-1), in MIDI's units."""
    counts = [np.bincount(p.velocity, minlength=128).cumsum() / len(p) for p in (prompt, answer)]
    return float(np.abs(counts[0] - counts[1]).sum())


def duration_overlap(prompt: Passage, answer: Passage) -> float:
    """Overlap of the two histograms of durations, 0..1, in classes from a step to two bars of 4/4."""
    classes = [np.abs(np.log(p.len_steps[:, None] / _LENGTHS)).argmin(axis=1) for p in (prompt, answer)]
    return _overlap(classes[0], classes[1], len(_LENGTHS))


def polyphony_ratio(prompt: Passage, answer: Passage) -> float:
    """|ln| of how many times as many notes sound together in the answer as in the prompt, where any do."""
    return abs(float(np.log(_voices(answer) / _voices(prompt))))


MEASURES: tuple[Callable[[Passage, Passage], float], ...] = (
    pitch_class_overlap,
    in_prompt_key,
    groove_similarity,
    density_ratio,
    bar_jaccard,
    bigram_reuse,
    register_shift,
    velocity_distance,
    duration_overlap,
    polyphony_ratio,
)
NAMES = tuple(measure.__name__ for measure in MEASURES)
MOTIF = (NAMES.index("bigram_reuse"), NAMES.index("bar_jaccard"))
"""The measures of motif reuse."""


def relation(prompt: Passage, answer: Passage) -> Floats:
    """The ten measures, in the order of `NAMES`. Both must be of one meter and hold notes: ValueError otherwise."""
    if not len(prompt) or not len(answer):
        raise ValueError("nothing can be said of a passage without notes")
    if prompt.bar_steps != answer.bar_steps:
        raise ValueError("prompt and answer are of different meters")
    return np.array([measure(prompt, answer) for measure in MEASURES])


def bar_sets(passage: Passage) -> list[frozenset[tuple[int, int]]]:
    """Each bar that has notes as the set of its (position, pitch)."""
    sets: dict[int, set[tuple[int, int]]] = {}
    for bar, step, pitch in zip(passage.bar.tolist(), passage.step.tolist(), passage.pitch.tolist(), strict=True):
        sets.setdefault(bar, set()).add((step - bar * passage.bar_steps, pitch))
    return [frozenset(sets[bar]) for bar in sorted(sets)]


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def _overlap(a: Ints, b: Ints, size: int) -> float:
    shares = [np.bincount(values, minlength=size) / len(values) for values in (a, b)]
    return float(np.minimum(shares[0], shares[1]).sum())


def _onsets(passage: Passage) -> npt.NDArray[np.bool_]:
    places = -(-passage.bar_steps // 3)
    grid = np.zeros((passage.bars, places), np.bool_)
    grid[passage.bar, passage.step % passage.bar_steps // 3] = True
    return grid


def _bigrams(pitch: Ints) -> Ints:
    return pitch[:-1] * 128 + pitch[1:]


def _voices(passage: Passage) -> float:
    change = np.zeros(passage.total_steps + 1, np.int64)
    np.add.at(change, passage.step, 1)
    np.add.at(change, np.minimum(passage.step + passage.len_steps, passage.total_steps), -1)
    sounding = change[:-1].cumsum()
    return float(sounding[sounding > 0].mean())
