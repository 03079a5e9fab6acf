"""Which ids mean what, as plain numbers: all that learning needs to know of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Vocabulary

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRanges:
    """Spans of ids, last ones included.

    Duration id `duration_first + i` means i + 1 steps; Position id `position_first + i` means step i of
    the bar; `meter_len_steps[i]` is the bar length of TimeSig id `meter_first + i`.
    """

    size: int
    pad: int
    bos: int
    eos: int
    bar: int
    pitch_first: int
    pitch_last: int
    velocity_first: int
    velocity_last: int
    duration_first: int
    duration_last: int
    position_first: int
    position_last: int
    tempo_first: int
    tempo_last: int
    meter_first: int
    meter_len_steps: tuple[int, ...]

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary) -> IdRanges:
        """The ranges of our REMI vocabulary."""
        return cls(
            size=vocabulary.size,
            pad=PAD,
            bos=BOS,
            eos=EOS,
            bar=BAR,
            pitch_first=vocabulary.pitches.first,
            pitch_last=vocabulary.pitches.end - 1,
            velocity_first=vocabulary.velocities.first,
            velocity_last=vocabulary.velocities.end - 1,
            duration_first=vocabulary.durations.first,
            duration_last=vocabulary.durations.end - 1,
            position_first=vocabulary.positions.first,
            position_last=vocabulary.positions.end - 1,
            tempo_first=vocabulary.tempos.first,
            tempo_last=vocabulary.tempos.end - 1,
            meter_first=vocabulary.meters.first,
            meter_len_steps=tuple(meter.len_steps for meter in vocabulary.grid.meters),
        )

    @property
    def meter_last(self) -> int:
        """The last TimeSig id."""
        return self.meter_first + len(self.meter_len_steps) - 1
