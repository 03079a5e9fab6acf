"""The one normaliser: played notes to bars on the grid, the same live, offline and in training.

Whatever reaches a model has passed here, so that equal music has equal tokens wherever it came from:

- onsets and ends snap to the nearest step; a note is at least one step and at most `MAX_LEN_STEPS` long;
- notes are ordered by onset and pitch; the same pitch twice at one step becomes one note, the longer and louder;
- a pitch struck again while it sounds ends where it is struck again;
- pitches outside the piano fold in by octaves;
- an empty bar is a bar; a bar's meter and tempo are those at its bar line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.music.time import STEPS_PER_QUARTER, TICKS_PER_QUARTER, TICKS_PER_STEP, snap_to_step

MAX_LEN_STEPS = 8 * STEPS_PER_QUARTER
"""The longest note that the model can write: two bars of 4/4."""

LOWEST, HIGHEST = 21, 108
"""The piano's range, A0 to C8."""

MAX_BARS = 100_000
"""Longer pieces are refused: a hostile file can promise 2^28 ticks in five bytes."""

OVERHANG_TICKS = TICKS_PER_QUARTER // 2
"""A last note that rings this far past a bar line does not open another bar."""


def fold(pitch: int) -> int:
    """`pitch`, moved by octaves into the piano's range."""
    while pitch < LOWEST:
        pitch += 12
    while pitch > HIGHEST:
        pitch -= 12
    return pitch


def snapped(note: Note) -> BarNote:
    """`note` on the grid, its step counted from the start of the piece."""
    step = snap_to_step(note.start_tick)
    len_steps = max(1, min(MAX_LEN_STEPS, snap_to_step(note.end_tick) - step))
    return BarNote(step, fold(note.pitch), len_steps, note.velocity)


def untangled(notes: Iterable[BarNote]) -> list[BarNote]:
    """`notes` sorted, with no (step, pitch) twice and no note sounding into the next of its pitch."""
    by_place: dict[tuple[int, int], BarNote] = {}
    for note in notes:
        twin = by_place.get((note.step, note.pitch), note)
        by_place[note.step, note.pitch] = replace(
            note, len_steps=max(note.len_steps, twin.len_steps), velocity=max(note.velocity, twin.velocity)
        )
    ordered = [by_place[place] for place in sorted(by_place)]
    last_of_pitch: dict[int, int] = {}
    for index, note in enumerate(ordered):
        before = last_of_pitch.get(note.pitch)
        if before is not None and ordered[before].step + ordered[before].len_steps > note.step:
            ordered[before] = replace(ordered[before], len_steps=note.step - ordered[before].step)
        last_of_pitch[note.pitch] = index
    return ordered


def whole_bars(piece: Piece) -> int:
    """How many bars `piece` fills: through its last sounding note, and through silence that ends on a bar line."""
    if not piece.notes and not piece.end_tick:
        return 0
    sounding = 0
    if piece.notes:
        last_onset = snap_to_step(max(note.start_tick for note in piece.notes)) * TICKS_PER_STEP
        last_end = snap_to_step(max(note.end_tick for note in piece.notes)) * TICKS_PER_STEP
        sounding = 1 + piece.meters.bar_at(max(last_onset, last_end - OVERHANG_TICKS - 1)).number
    end_tick = snap_to_step(piece.end_tick) * TICKS_PER_STEP
    end = piece.meters.bar_at(end_tick)
    return max(sounding, end.number) if end.tick == end_tick else sounding


def bars_of(piece: Piece) -> list[Bar]:
    """`piece` as normalised bars, from bar 0 on.

    Raises AntiphonError if the piece is longer than `MAX_BARS` or a bar line lies off the grid.
    """
    count = whole_bars(piece)
    if count > MAX_BARS:
        raise AntiphonError(f"{count} bars are more than {MAX_BARS}", fix="cut the piece into shorter ones")
    if not count:
        return []
    notes = untangled(snapped(note) for note in piece.notes)
    bars: list[Bar] = []
    next_note = 0
    start_step = 0
    for line in piece.meters.bars(until_tick=piece.meters.bar(count).tick):
        end_step = start_step + line.meter.len_steps
        held: list[BarNote] = []
        while next_note < len(notes) and notes[next_note].step < end_step:
            held.append(replace(notes[next_note], step=notes[next_note].step - start_step))
            next_note += 1
        bars.append(Bar(line.meter, tuple(held), piece.tempos.bpm_at(line.tick)))
        start_step = end_step
    return bars


def placed(bars: Sequence[Bar]) -> list[BarNote]:
    """The notes of `bars` in a row, their steps counted from the first bar line."""
    notes: list[BarNote] = []
    start_step = 0
    for bar in bars:
        notes += [replace(note, step=start_step + note.step) for note in bar.notes]
        start_step += bar.meter.len_steps
    return notes


def cut(bars: Sequence[Bar]) -> list[Bar]:
    """`bars` with every note that would sound past the last bar line ended on it, as live play cuts a context."""
    end_step = sum(bar.meter.len_steps for bar in bars)
    cut_bars: list[Bar] = []
    start_step = 0
    for bar in bars:
        room = end_step - start_step
        cut_notes = tuple(replace(n, len_steps=min(n.len_steps, room - n.step)) for n in bar.notes)
        cut_bars.append(replace(bar, notes=cut_notes))
        start_step += bar.meter.len_steps
    return cut_bars


def notes_of(bars: Sequence[Bar], *, start_tick: int = 0) -> tuple[Note, ...]:
    """The notes of `bars` in ticks, the first bar line at `start_tick`."""
    return _in_ticks(placed(bars), start_tick=start_tick)


def piece_of(bars: Sequence[Bar]) -> Piece:
    """`bars` as a piece that begins with the first of them and ends on the last bar line.

    A note that would sound into the next of its pitch ends there.
    """
    meters: list[tuple[int, Meter]] = []
    tempos: list[tuple[int, float]] = []
    tick = 0
    for bar in bars:
        meters.append((tick, bar.meter))
        if not tempos or bar.bpm != tempos[-1][1]:
            tempos.append((tick, bar.bpm))
        tick += bar.meter.len_ticks
    return Piece(_in_ticks(untangled(placed(bars))), MeterMap.of(meters), TempoMap.of(tempos), tick)


def _in_ticks(notes: Iterable[BarNote], *, start_tick: int = 0) -> tuple[Note, ...]:
    return tuple(
        Note(start_tick + n.step * TICKS_PER_STEP, n.pitch, n.len_steps * TICKS_PER_STEP, n.velocity) for n in notes
    )
