"""A passage: some bars of one meter as arrays of notes, the form in which prompts and answers are measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import cut, placed, untangled
from antiphon.tokens.vocabulary import Vocabulary

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """`bars` bars of `bar_steps` steps each, and their notes sorted by onset and pitch.

    step: onsets [notes], counted from the first bar line; pitch, len_steps, velocity: [notes] each.
    """

    bars: int
    bar_steps: int
    step: Ints
    pitch: Ints
    len_steps: Ints
    velocity: Ints

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> Passage:
        """The passage that `bars` are. Raises AntiphonError where there is no bar, or bars of unequal lengths."""
        lengths = {bar.meter.in_quarters.len_steps for bar in bars}
        if len(lengths) != 1:
            raise AntiphonError("a passage is of one meter", fix="choose bars without a change of meter")
        notes = sorted(placed(bars))
        step, pitch, len_steps, velocity = (
            np.array([getattr(note, name) for note in notes], np.int64)
            for name in ("step", "pitch", "len_steps", "velocity")
        )
        return cls(len(bars), lengths.pop(), step, pitch, len_steps, velocity)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def bar(self) -> Ints:
        """The bar of each note, from 0."""
        return self.step // self.bar_steps

    @property
    def total_steps(self) -> int:
        return self.bars * self.bar_steps


def laid(notes: Iterable[BarNote], *, meter: Meter, bars: int, bpm: float) -> tuple[Bar, ...]:
    """`notes`, their steps counted from the first bar line, as `bars` bars of `meter`, as the normaliser would.

    Notes that begin outside are left out, and what would ring past the last bar line ends on it.
    """
    bar_steps = meter.in_quarters.len_steps
    by_bar: list[list[BarNote]] = [[] for _ in range(bars)]
    for note in untangled(note for note in notes if 0 <= note.step < bars * bar_steps):
        by_bar[note.step // bar_steps].append(replace(note, step=note.step % bar_steps))
    return tuple(cut([Bar(meter, tuple(inside), bpm) for inside in by_bar]))


def as_written(bars: Sequence[Bar], vocabulary: Vocabulary) -> tuple[Bar, ...]:
    """`bars` as the vocabulary can say them, ended on their last bar line: velocities are those of its bins.

    All music that is compared passes here, so that no measure tells a system by its rounding.
    """
    return tuple(
        replace(bar, notes=tuple(replace(n, velocity=_binned(n.velocity, vocabulary)) for n in bar.notes))
        for bar in cut(bars)
    )


def _binned(velocity: int, vocabulary: Vocabulary) -> int:
    return vocabulary.velocity_of(vocabulary.velocity_id(velocity))
