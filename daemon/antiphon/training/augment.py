"""The same music told differently: other keys, other loudness, cut as live play cuts it.

All of it works on ids that follow the grammar Bar, TimeSig, [Position, Tempo,] {Position, {Pitch,
Velocity, Duration}}; none of it changes how many ids there are. Nothing is changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.training.ids import IdRanges, Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far to go. Shifts are drawn evenly from low..high, as far as the sample's range allows.

    `cut_samples` is the share of samples that are cut at all, `cut_bars` the share of their bar lines
    at which sounding notes end; the line between a context and its completion is always one of them.
    """

    transpose_low: int = -5
    transpose_high: int = 6
    velocity_bins: int = 2
    cut_samples: float = 0.5
    cut_bars: float = 0.125

    def apply(self, ids: Ids, ranges: IdRanges, rng: np.random.Generator, *, completion: int | None = None) -> Ids:
        """A variation of `ids`, drawn from `rng`. `completion`: the index of the Bar that ends a context, if any."""
        ids = transposed(ids, ranges, _drawn_shift(ids, ranges, self.transpose_low, self.transpose_high, rng))
        ids = velocity_shifted(ids, ranges, int(rng.integers(-self.velocity_bins, self.velocity_bins + 1)))
        if rng.random() < self.cut_samples:
            lines = bar_lines(ids, ranges)[1:]
            chosen = rng.random(len(lines)) < self.cut_bars
            if completion is not None:
                chosen[np.count_nonzero(ids[:completion] == ranges.bar) - 1] = True
            ids = cut_at(ids, ranges, lines[chosen])
        return ids


def transposed(ids: Ids, ranges: IdRanges, semitones: int) -> Ids:
    """Every pitch moved by `semitones`; ValueError when one would leave the range (no note is orphaned)."""
    pitches = (ids >= ranges.pitch_first) & (ids <= ranges.pitch_last)
    moved = ids[pitches] + semitones
    if moved.size and (moved.min() < ranges.pitch_first or moved.max() > ranges.pitch_last):
        raise ValueError(f"a shift by {semitones} semitones leaves the pitch range")
    ids = ids.copy()
    ids[pitches] = moved
    return ids


def velocity_shifted(ids: Ids, ranges: IdRanges, bins: int) -> Ids:
    """Every velocity moved by `bins`, held at the softest and loudest bin."""
    velocities = (ids >= ranges.velocity_first) & (ids <= ranges.velocity_last)
    ids = ids.copy()
    ids[velocities] = np.clip(ids[velocities] + bins, ranges.velocity_first, ranges.velocity_last)
    return ids


def bar_lines(ids: Ids, ranges: IdRanges) -> npt.NDArray[np.int64]:
    """The step at which each bar begins, counted from the first Bar in `ids`."""
    return _bar_steps(ids, ranges, np.flatnonzero(ids == ranges.bar))


def onsets(ids: Ids, ranges: IdRanges) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the Pitch ids whose Duration is within `ids` too, and the step at which each begins."""
    bars = np.flatnonzero(ids == ranges.bar)
    pitches = np.flatnonzero((ids >= ranges.pitch_first) & (ids <= ranges.pitch_last))
    if not len(bars):
        return pitches[:0], pitches[:0].astype(np.int64)
    pitches = pitches[(pitches > bars[0]) & (pitches + 2 < len(ids))]
    lines = _bar_steps(ids, ranges, bars)
    positions = (ids >= ranges.position_first) & (ids <= ranges.position_last)
    last_position = np.maximum.accumulate(np.where(positions, np.arange(len(ids)), 0))
    bar_of = np.searchsorted(bars, pitches, side="right") - 1
    steps = lines[bar_of] + ids[last_position[pitches]] - ranges.position_first
    return pitches, steps


def cut_at(ids: Ids, ranges: IdRanges, lines: npt.NDArray[np.int64]) -> Ids:
    """Notes that would sound over one of `lines` (sorted steps) end there, as live play ends them."""
    if not len(lines):
        return ids
    pitches, steps = onsets(ids, ranges)
    lengths = ids[pitches + 2] - ranges.duration_first + 1
    next_line = np.searchsorted(lines, steps, side="right")
    ends = np.where(next_line < len(lines), lines[np.minimum(next_line, len(lines) - 1)], np.iinfo(np.int64).max)
    ids = ids.copy()
    ids[pitches + 2] = np.minimum(lengths, ends - steps) + ranges.duration_first - 1
    return ids


def _bar_steps(ids: Ids, ranges: IdRanges, bars: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    table = np.array(ranges.meter_len_steps, np.int64)
    # A sample may end on a Bar whose TimeSig is cut off; no note follows it, so its length matters to nobody.
    meters = ids[np.minimum(bars + 1, len(ids) - 1)] - ranges.meter_first
    lengths = table[np.clip(meters, 0, len(table) - 1)]
    return np.concatenate([np.zeros(min(1, len(bars)), np.int64), np.cumsum(lengths)[:-1]])


def _drawn_shift(ids: Ids, ranges: IdRanges, low: int, high: int, rng: np.random.Generator) -> int:
    pitches = ids[(ids >= ranges.pitch_first) & (ids <= ranges.pitch_last)]
    if pitches.size:
        low = max(low, ranges.pitch_first - int(pitches.min()))
        high = min(high, ranges.pitch_last - int(pitches.max()))
    # Room for 0 always exists, so the limits still hold it between them.
    return int(rng.integers(min(low, 0), max(high, 0) + 1))
