"""A portrait of what was played: its key, register, density, dynamics and motifs, for an answer to keep to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.music.bar import Bar

Floats = NDArray[np.float64]

_BARS = 16  # older bars would count for a fifteenth at most
_HALF_LIFE_BARS = 4  # so that an answer follows a player who modulates, and a call outweighs the answer before it

# How well each degree of a major and of a minor key fits its tonic: Krumhansl and Kessler, Tracing the dynamic changes
# in perceived tonal organization, Psychological Review 89 (1982), the probe-tone ratings.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_MAJOR_SCALE = (1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1)
_MINOR_SCALE = (1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1)  # both sevenths
_KEENNESS = 15.0  # a key whose profile fits by 0.1 of correlation less is a quarter as likely
_AT_HOME = 1 / 24  # a pitch class that sounds half as long as the average one is the player's own, in the key or not


def _turned(row: tuple[float, ...]) -> list[list[float]]:
    """`row`, given from C on, from each of the twelve tonics on."""
    return [[row[(pitch_class - tonic) % 12] for pitch_class in range(12)] for tonic in range(12)]


_PROFILES: Floats = np.array(_turned(_MAJOR) + _turned(_MINOR))
_PROFILES -= _PROFILES.mean(axis=1, keepdims=True)
_PROFILES /= np.linalg.norm(_PROFILES, axis=1, keepdims=True)
_SCALES: Floats = np.array(_turned(_MAJOR_SCALE) + _turned(_MINOR_SCALE))


@dataclass(frozen=True, slots=True)
class Portrait:
    """What the bars before an answer were like; the nearer a bar is to it the more it counts.

    at_home: by pitch class from C, 0..1, how much it belongs: it was played, or it is in the likely key.
    lowest, highest: pitches. onsets_per_step, notes_per_onset: how dense. widest: notes of the fullest chord.
    longest_wait: the most steps from an onset to the next, or from a first bar line to the first onset.
    most_at_once: most notes that sounded together. softest, loudest: velocities. moves: by pitch the pitches that came
    next, in order of onset and pitch. places: by step of the bar the pitches struck there. lengths: of notes, in steps.
    rhythm: by step, the share of bars of the last one's meter with an onset there.
    """

    at_home: tuple[float, ...]
    lowest: int
    highest: int
    onsets_per_step: float
    notes_per_onset: float
    longest_wait: int
    widest: int
    most_at_once: int
    softest: int
    loudest: int
    moves: dict[int, frozenset[int]]
    places: dict[int, frozenset[int]]
    lengths: frozenset[int]
    rhythm: tuple[float, ...]

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> Portrait | None:
        """The portrait of the last bars of `bars`, or None where they hold no note."""
        bars = bars[-_BARS:]
        rows: list[tuple[int, int, int, int, float]] = []
        onsets, steps, start = 0.0, 0.0, 0
        for age, bar in zip(range(len(bars) - 1, -1, -1), bars, strict=True):
            weight = 0.5 ** (age / _HALF_LIFE_BARS)
            onsets += weight * len({note.step for note in bar.notes})
            steps += weight * bar.meter.in_quarters.len_steps
            rows += [(start + n.step, n.pitch, n.len_steps, n.velocity, weight) for n in bar.notes]
            start += bar.meter.in_quarters.len_steps
        if not rows:
            return None
        moves: dict[int, set[int]] = {}
        for (_, one, *_), (_, other, *_) in itertools.pairwise(rows):
            moves.setdefault(one, set()).add(other)
        places: dict[int, set[int]] = {}
        for note in (note for bar in bars for note in bar.notes):
            places.setdefault(note.step, set()).add(note.pitch)
        step, pitch, length, velocity, weight_of = np.array(rows).T
        sounding = np.bincount(pitch.astype(np.int64) % 12, length * weight_of, minlength=12)
        onset_steps, chords = np.unique(step, return_counts=True)
        begun = np.searchsorted(np.sort(step), step, side="right")  # of the notes, how many begin by each onset,
        ended = np.searchsorted(np.sort(step + length), step, side="right")  # and how many of them are over
        return cls(
            at_home=tuple(_at_home(sounding / sounding.sum()).tolist()),
            lowest=int(pitch.min()),
            highest=int(pitch.max()),
            onsets_per_step=onsets / steps,
            notes_per_onset=float(weight_of.sum()) / onsets,
            longest_wait=int(np.diff(onset_steps, prepend=0).max()),
            widest=int(chords.max()),
            most_at_once=int((begun - ended).max()),
            softest=int(velocity.min()),
            loudest=int(velocity.max()),
            moves={one: frozenset(others) for one, others in moves.items()},
            places={at: frozenset(pitches) for at, pitches in places.items()},
            lengths=frozenset(note.len_steps for bar in bars for note in bar.notes),
            rhythm=_rhythm(bars),
        )


def _rhythm(bars: Sequence[Bar]) -> tuple[float, ...]:
    alike = [bar for bar in bars if bar.meter.in_quarters == bars[-1].meter.in_quarters]
    onsets = [0] * bars[-1].meter.in_quarters.len_steps
    for bar in alike:
        for step in {note.step for note in bar.notes}:
            onsets[step] += 1
    return tuple(count / len(alike) for count in onsets)


def _at_home(shares: Floats) -> Floats:
    """By pitch class how much it belongs to music in which the pitch classes sound for `shares` [12] of the time."""
    away = shares - shares.mean()
    size = float(np.linalg.norm(away))
    fit = _PROFILES @ (away / size) if size > 0 else np.zeros(len(_PROFILES))
    likelihood = np.exp(_KEENNESS * (fit - fit.max()))
    in_key = likelihood @ _SCALES / likelihood.sum()
    home: Floats = np.maximum(in_key, np.minimum(1.0, shares / _AT_HOME))
    return home
