"""Whether answers keep to what was asked, and how they end."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.evaluation.call import Call
from antiphon.music.bar import Bar
from antiphon.music.normalise import HIGHEST, LOWEST, placed
from antiphon.tokens.grammar import strong_steps


def obeys(call: Call, answer: Sequence[Bar]) -> bool:
    """Whether an answer, as its system gave it, is one that may be played.

    It has the bars asked for, in the call's meter, and at least one note; every note is on the piano and ends on the
    last bar line at the latest; none is struck while it sounds, so that none is left hanging.
    """
    meter = call.meter.in_quarters
    if len(answer) != call.bars or any(bar.meter.in_quarters != meter for bar in answer):
        return False
    notes = sorted(placed(answer))
    total = call.bars * meter.len_steps
    free: dict[int, int] = {}
    for note in notes:
        end = note.step + note.len_steps
        if not (LOWEST <= note.pitch <= HIGHEST and 1 <= note.velocity <= 127 and note.len_steps >= 1 and end <= total):
            return False
        if free.get(note.pitch, 0) > note.step:
            return False
        free[note.pitch] = end
    return bool(notes)


def ends_strongly(answer: Sequence[Bar]) -> bool:
    """Whether the last onset falls on a strong beat of its bar, as `tokens.grammar.strong_steps` has them."""
    sounding = [bar for bar in answer if bar.notes]
    if not sounding:
        return False
    last = sounding[-1]
    return last.notes[-1].step in strong_steps(last.meter, bars=len(answer))
