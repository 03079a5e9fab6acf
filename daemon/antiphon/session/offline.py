"""Answers without a clock: a piece from a file, continued from its next bar line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from antiphon.music.meter import BarLine
from antiphon.music.midi_file import Part
from antiphon.music.normalise import bars_of, cut
from antiphon.music.note import Note, Piece
from antiphon.music.time import TICKS_PER_STEP
from antiphon.session.answer import Answer, Ask
from antiphon.session.voice import Voice
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import BOS


@dataclass(frozen=True, slots=True)
class Continuation:
    """An answer to a piece: where it begins and ends, its notes in the piece's ticks, and what it took.

    context_bars: the bars that the model was given. seconds: from the first token fed to the last one sampled.
    """

    line: BarLine
    end_tick: int
    notes: tuple[Note, ...]
    context_bars: int
    tokens: int
    nats_per_note: float
    seconds: float


def continue_piece(piece: Piece, *, voice: Voice, ask: Ask, context_bars: int) -> Continuation:
    """Answer `piece` from its next bar line on, in its meter there, having heard its last `context_bars` bars.

    `ask.meter` is replaced by that meter, and `ask.heard` by those bars. Raises AntiphonError for bars that the model
    does not know.
    """
    bars = bars_of(piece)
    line = piece.meters.bar(len(bars))
    context = cut(bars[-context_bars:])
    began = time.perf_counter()
    timeline = voice.timeline()
    timeline.feed([BOS, *encode(context, voice.vocabulary)])
    answer = Answer(timeline, voice.vocabulary, replace(ask, meter=line.meter, heard=tuple(context)))
    answer.write_all()
    seconds = time.perf_counter() - began
    notes = tuple(
        Note(line.tick + n.step * TICKS_PER_STEP, n.pitch, n.len_steps * TICKS_PER_STEP, n.velocity)
        for n in answer.notes
    )
    end_tick = line.tick + ask.bars * line.meter.len_ticks
    return Continuation(line, end_tick, notes, len(context), answer.tokens, answer.nats_per_note, seconds)


def parts_of(piece: Piece, answer: Continuation) -> tuple[Part, Part]:
    """The prompt, ended at the answer's bar line, and the answer, as two tracks."""
    prompt = _unstacked(
        replace(note, len_ticks=min(note.len_ticks, answer.line.tick - note.start_tick))
        for note in piece.notes
        if note.start_tick < answer.line.tick
    )
    return Part("Prompt", prompt, channel=0), Part("Answer", answer.notes, channel=1)


def moved(notes: Iterable[Note], *, by_ticks: int) -> tuple[Note, ...]:
    """`notes`, `by_ticks` later."""
    return tuple(replace(note, start_tick=note.start_tick + by_ticks) for note in notes)


def _unstacked(notes: Iterable[Note]) -> list[Note]:
    """`notes` such that one channel can play them: a pitch struck while it sounds ends where it is struck again."""
    by_pitch: dict[int, Note] = {}
    done: list[Note] = []
    for note in sorted(notes):
        before = by_pitch.get(note.pitch)
        if before is not None and before.start_tick == note.start_tick:
            note = replace(note, len_ticks=max(note.len_ticks, before.len_ticks))
        elif before is not None:
            done.append(replace(before, len_ticks=min(before.len_ticks, note.start_tick - before.start_tick)))
        by_pitch[note.pitch] = note
    return sorted([*done, *by_pitch.values()])
