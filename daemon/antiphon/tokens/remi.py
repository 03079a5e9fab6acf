"""REMI as miditok writes it: the definition that the fast encoder and decoder are held against.

miditok lays a bar out by its denominator (12 positions an eighth in 6/8, 12 a half note in 3/2). `QuarterRemi`
lays every bar out by quarters, so that one Position or Duration token means the same time in every meter. The
rest is stock miditok: our normaliser has already snapped, sorted and bounded what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from miditok import REMI, TokenizerConfig
from miditok.classes import Event
from miditok.utils import compute_ticks_per_bar
from symusic import Note as SymusicNote
from symusic import Score, Tempo, TimeSignature, Track

from antiphon.music.bar import Bar
from antiphon.music.time import STEPS_PER_QUARTER
from antiphon.tokens.vocabulary import Grid, Vocabulary


class QuarterRemi(REMI):  # type: ignore[misc]
    """miditok's REMI with `STEPS_PER_QUARTER` positions a quarter in every meter, one tick a position."""

    def __init__(self, tokenizer_config: TokenizerConfig | None = None, params: str | None = None) -> None:
        super().__init__(tokenizer_config, params=params)
        # miditok keeps one table of durations for each tick rate it can meet; the one at 12 ticks a beat is ours.
        own: Any = self  # miditok's attributes have no types
        own.time_division = STEPS_PER_QUARTER
        own._tpb_per_ts = dict.fromkeys(own._tpb_per_ts, STEPS_PER_QUARTER)
        for tables in (own._tpb_to_time_array, own._tpb_tokens_to_ticks, own._tpb_ticks_to_tokens):
            if STEPS_PER_QUARTER not in tables:
                raise AssertionError("the meters must include sixteenths, whose table is the one on our grid")

    def _create_base_vocabulary(self) -> list[str]:
        # miditok makes 12 positions for each beat of the meter with the most beats, whatever their length.
        longest = max(beats * 4 * STEPS_PER_QUARTER // unit for beats, unit in self.time_signatures)
        tokens: list[str] = super()._create_base_vocabulary()
        return [t for t in tokens if not t.startswith("Position_") or int(t.removeprefix("Position_")) < longest]

    def _compute_ticks_per_units(
        self, time: int, current_time_sig: Sequence[int], time_division: int
    ) -> tuple[int, int, int]:
        ticks_per_bar = compute_ticks_per_bar(TimeSignature(time, *current_time_sig), time_division)
        return ticks_per_bar, time_division, 1

    def _create_duration_event(
        self,
        note: Any,
        _program: int,
        _ticks_per_beat: np.ndarray[Any, Any],
        _tpb_idx: int,
    ) -> Event:
        duration = self._tpb_ticks_to_tokens[STEPS_PER_QUARTER][note.duration]
        return Event(type_="Duration", value=duration, time=note.start, program=_program, desc=f"{note.duration}")


def miditok_for(grid: Grid) -> QuarterRemi:
    """The miditok tokenizer whose vocabulary is `Vocabulary(grid)`, token by token."""
    meters: dict[int, list[int]] = {}
    for meter in grid.meters:
        meters.setdefault(meter.unit, []).append(meter.beats)
    return QuarterRemi(
        TokenizerConfig(
            pitch_range=(grid.lowest, grid.highest),
            beat_res={(0, grid.longest_quarters): STEPS_PER_QUARTER},
            num_velocities=grid.velocities,
            special_tokens=["PAD", "BOS", "EOS"],
            use_time_signatures=True,
            time_signature_range=meters,
            use_tempos=True,
            num_tempos=grid.tempos,
            tempo_range=(grid.slowest_bpm, grid.fastest_bpm),
            log_tempos=True,
            use_pitchdrum_tokens=False,
            use_programs=False,
            use_chords=False,
            use_rests=False,
            use_sustain_pedals=False,
            use_pitch_bends=False,
        )
    )


def score_of(bars: Sequence[Bar], vocabulary: Vocabulary) -> Any:
    """`bars` as the symusic Score that miditok encodes without a pre-processing of its own.

    One tick is one step. Every bar carries its time signature, because miditok writes a `Bar` only where something
    happens and would leave out empty ones at the end; tempos and velocities are those of the vocabulary.
    """
    score: Any = Score(STEPS_PER_QUARTER)
    track: Any = Track()
    tick = 0
    tempo: int | None = None
    for bar in bars:
        meter = bar.meter.in_quarters
        vocabulary.meter_id(bar.meter)
        score.time_signatures.append(TimeSignature(tick, meter.beats, meter.unit))
        tempo_id = vocabulary.tempo_id(bar.bpm)
        if tempo_id != tempo:
            score.tempos.append(Tempo(tick, vocabulary.bpm_of(tempo_id)))
            tempo = tempo_id
        for note in bar.notes:
            velocity = vocabulary.velocity_of(vocabulary.velocity_id(note.velocity))
            track.notes.append(SymusicNote(tick + note.step, note.len_steps, note.pitch, velocity))
        tick += meter.len_steps
    score.tracks.append(track)
    return score


def encode_with_miditok(bars: Sequence[Bar], vocabulary: Vocabulary) -> list[int]:
    """The ids that miditok yields for `bars`: no BOS, no EOS."""
    if not bars:
        return []
    tokenizer = miditok_for(vocabulary.grid)
    sequence = tokenizer.encode(score_of(bars, vocabulary), no_preprocess_score=True)
    first = sequence[0] if isinstance(sequence, list) else sequence
    return [int(token) for token in first.ids]


def miditok_parameters(grid: Grid) -> str:
    """miditok's own parameters as JSON, to lie beside the weights."""
    return json.dumps(miditok_for(grid).to_dict(), sort_keys=True, default=str)
