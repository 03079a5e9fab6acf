"""Answers from the archive: the real continuation of the training passage most like the prompt, or of any passage.

Retrieval is the baseline that a small model finds hardest to beat: all that it plays was written by a human, in the
right key, at the right pace. What it cannot do is to answer *this* prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from antiphon.errors import FileError
from antiphon.evaluation.archive import Archive
from antiphon.evaluation.call import Call
from antiphon.evaluation.measures import Floats
from antiphon.evaluation.passage import Passage, laid
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import fold

_PLACES = 24
"""Onsets are compared on so many places of a bar, whatever its length."""

_HARMONY, _RHYTHM, _DENSITY, _LENGTH, _VOICES = 2.0, 2.0, 1.0, 1.0, 0.5
"""What each distance counts for: harmony and rhythm before the rest. Set once by judgement, and not tuned since."""

Starts = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


class Shelf:
    """All passages of one meter in the archive that are followed by an answer of the length wanted, described.

    A passage is described by the time that each pitch class sounds [12], the onsets on each place of the bar
    [24], and the logarithms of its notes, of their mean duration and of how many sound together.
    """

    __slots__ = ("archive", "bars", "harmony", "plain", "rhythm", "starts")

    def __init__(self, archive: Archive, *, meter: Meter, prompt_bars: int, answer_bars: int) -> None:
        starts = archive.passages(bars=prompt_bars + answer_bars, meter=meter)
        heard = archive.notes_in(starts, bars=prompt_bars) >= 2 * prompt_bars
        answered = archive.notes_in(starts + prompt_bars, bars=answer_bars) >= answer_bars
        self.archive = archive
        self.bars = prompt_bars
        self.starts: Starts = starts[heard & answered]
        self.harmony, self.rhythm, self.plain = _described(archive, self.starts, prompt_bars)

    def nearest(self, prompt: Passage, *, count: int) -> list[tuple[int, int]]:
        """The `count` nearest passages, each of another piece: (its first bar, semitones to move it by), nearest first.

        Harmony is compared in the key that fits best of twelve; the octave is the one whose mean pitch is nearest.
        """
        harmony, rhythm, plain = describe(prompt)
        keys = np.stack([np.roll(harmony, -key) for key in range(12)])
        fits = self.harmony @ keys.T.astype(np.float32)  # [passages, 12]: by how much each must move up to fit
        apart = _HARMONY * (1 - fits.max(axis=1)) + _RHYTHM * (1 - self.rhythm @ rhythm.astype(np.float32))
        apart += np.abs(self.plain - plain.astype(np.float32)) @ np.array([_DENSITY, _LENGTH, _VOICES], np.float32)
        found: list[tuple[int, int]] = []
        pieces: set[int] = set()
        for index in np.argsort(apart, kind="stable"):
            first_bar = int(self.starts[index])
            piece = int(self.archive.piece[first_bar])
            if piece not in pieces:
                pieces.add(piece)
                found.append((first_bar, self.moved_by(first_bar, int(fits[index].argmax()), prompt)))
            if len(found) == count:
                break
        return found

    def moved_by(self, first_bar: int, up: int, prompt: Passage) -> int:
        """Semitones to move the passage by: `up`, and the octaves that bring it nearest to the prompt."""
        inside = slice(self.archive.first_note[first_bar], self.archive.first_note[first_bar + self.bars])
        wanted = float(prompt.pitch.mean() - self.archive.pitch[inside].mean())
        return up + 12 * round((wanted - up) / 12)


class Retrieval:
    """The continuation of the training passage nearest to the prompt, moved into its key, octave and loudness.

    Seed 0 takes the nearest, seed 1 the next of another piece, and so on.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._shelves: dict[tuple[Meter, int, int], Shelf] = {}

    def __call__(self, call: Call, *, seed: int) -> tuple[Bar, ...]:
        found = self.shelf(call).nearest(call.heard, count=seed + 1)
        first_bar, up = found[min(seed, len(found) - 1)]
        return self._continued(call, first_bar, up)

    def other_song(self, call: Call, *, seed: int) -> tuple[Bar, ...]:
        """The continuation of a passage drawn blindly, moved as retrieval moves it."""
        shelf = self.shelf(call)
        rng = np.random.default_rng([seed, call.number, 2])
        index = int(rng.integers(len(shelf.starts)))
        harmony, _, _ = describe(call.heard)
        fits = [float(shelf.harmony[index] @ np.roll(harmony, -key)) for key in range(12)]
        first_bar = int(shelf.starts[index])
        return self._continued(call, first_bar, shelf.moved_by(first_bar, int(np.argmax(fits)), call.heard))

    def shelf(self, call: Call) -> Shelf:
        """The passages that can answer `call`; FileError where the archive has none in its meter."""
        key = (call.meter.in_quarters, len(call.prompt), call.bars)
        if key not in self._shelves:
            self._shelves[key] = Shelf(self._archive, meter=key[0], prompt_bars=key[1], answer_bars=key[2])
        if not len(self._shelves[key].starts):
            raise FileError(f"the training corpus has no passage in {call.meter}", fix="leave such windows out")
        return self._shelves[key]

    def knows(self, call: Call) -> bool:
        """Whether the archive has a passage in the call's meter."""
        try:
            return bool(self.shelf(call))
        except FileError:
            return False

    def _continued(self, call: Call, first_bar: int, up: int) -> tuple[Bar, ...]:
        archive, bars = self._archive, len(call.prompt)
        heard = slice(archive.first_note[first_bar], archive.first_note[first_bar + bars])
        louder = round(float(call.heard.velocity.mean() - archive.velocity[heard].mean()))
        return laid(
            _moved(archive.notes(first_bar + bars, bars=call.bars), up=up, louder=louder),
            meter=call.meter,
            bars=call.bars,
            bpm=call.bpm,
        )


def _moved(notes: Sequence[BarNote], *, up: int, louder: int) -> list[BarNote]:
    return [replace(n, pitch=fold(n.pitch + up), velocity=min(127, max(1, n.velocity + louder))) for n in notes]


def describe(prompt: Passage) -> tuple[Floats, Floats, Floats]:
    """What a shelf says of each of its passages, of one prompt: harmony [12], rhythm [24], and three numbers."""
    harmony = np.bincount(prompt.pitch % 12, prompt.len_steps, 12).astype(np.float64)
    onsets = np.unique(prompt.step)
    places = onsets % prompt.bar_steps * _PLACES // prompt.bar_steps
    rhythm = np.bincount(places, minlength=_PLACES).astype(np.float64)
    long = float(prompt.len_steps.sum())
    plain = np.log([len(prompt) / prompt.bars, long / len(prompt), long / prompt.total_steps])
    return _unit(harmony), _unit(rhythm), plain


def _described(archive: Archive, starts: Starts, bars: int) -> tuple[Floats32, Floats32, Floats32]:
    """`describe` of every passage at once, by sums over bars: [passages, 12], [passages, 24], [passages, 3]."""
    count = len(archive.piece)
    lengths = archive.len_steps.astype(np.float64)
    harmony = (
        np.bincount(archive.bar * 12 + archive.pitch % 12, lengths, count * 12).reshape(count, 12).astype(np.float64)
    )
    fresh = np.ones(len(archive.bar), np.bool_)  # the first note of each onset
    fresh[1:] = (archive.bar[1:] != archive.bar[:-1]) | (archive.step[1:] != archive.step[:-1])
    place = archive.step.astype(np.int64) * _PLACES // archive.bar_steps[archive.bar]
    at = (archive.bar.astype(np.int64) * _PLACES + np.minimum(place, _PLACES - 1))[fresh]
    rhythm = np.bincount(at, minlength=count * _PLACES).reshape(count, _PLACES).astype(np.float64)
    long = np.bincount(archive.bar, lengths, count).astype(np.float64)
    notes = archive.notes_in(starts, bars=bars)
    sounding = _summed(long[:, None], starts, bars)[:, 0]
    plain = np.log(
        np.stack([notes / bars, sounding / notes, sounding / (bars * archive.bar_steps[starts])], axis=1)
        if len(starts)
        else np.ones((0, 3))
    )
    return (
        _unit(_summed(harmony, starts, bars)).astype(np.float32),
        _unit(_summed(rhythm, starts, bars)).astype(np.float32),
        plain.astype(np.float32),
    )


def _summed(per_bar: Floats, starts: Starts, bars: int) -> Floats:
    so_far = np.concatenate([np.zeros((1, per_bar.shape[1])), per_bar.cumsum(axis=0)])
    summed: Floats = so_far[starts + bars] - so_far[starts]
    return summed


def _unit(values: Floats) -> Floats:
    length = np.sqrt((values**2).sum(axis=-1, keepdims=True))
    return values / np.where(length > 0, length, 1.0)
