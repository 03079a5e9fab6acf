"""Answers that take no learning: what anyone could program in an hour. A model must be unlike every one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from antiphon.evaluation.call import Call
from antiphon.evaluation.measures import scale_of
from antiphon.evaluation.passage import laid
from antiphon.music.bar import Bar, BarNote
from antiphon.music.time import STEPS_PER_QUARTER

_SIXTEENTH = STEPS_PER_QUARTER // 4


def human(call: Call, *, seed: int) -> tuple[Bar, ...]:
    """What the composer wrote."""
    return call.target


def elsewhere(call: Call, *, seed: int) -> tuple[Bar, ...]:
    """Bars from another place of the same song; the target itself where the song has no other place."""
    return call.elsewhere or call.target


def repeat_prompt(call: Call, *, seed: int) -> tuple[Bar, ...]:
    """The prompt again, from its first bar, for as many bars as are asked for."""
    return tuple(call.prompt[bar % len(call.prompt)] for bar in range(call.bars))


def repeat_last_bar(call: Call, *, seed: int) -> tuple[Bar, ...]:
    """The last bar of the prompt that has notes, over and over."""
    last = next(bar for bar in reversed(call.prompt) if bar.notes)
    inside = tuple(replace(n, len_steps=min(n.len_steps, bar_steps(last) - n.step)) for n in last.notes)
    return (replace(last, notes=inside),) * call.bars


def random_in_scale(call: Call, *, seed: int) -> tuple[Bar, ...]:
    """As many notes as the prompt has, anywhere on its sixteenths, at any pitch of its key and range.

    Durations and velocities are drawn from the prompt's.
    """
    rng = np.random.default_rng([seed, call.number, 1])
    prompt = call.heard
    scale = scale_of(prompt)
    low, high = int(prompt.pitch.min()), int(prompt.pitch.max())
    pitches = [p for p in range(low, high + 1) if p % 12 in scale] or [low]
    places = -(-call.bars * bar_steps(call.prompt[0]) // _SIXTEENTH)
    count = max(1, round(len(prompt) * call.bars / prompt.bars))
    chosen = rng.choice(places * len(pitches), size=min(count, places * len(pitches)), replace=False)
    notes = [
        BarNote(
            int(place) // len(pitches) * _SIXTEENTH,
            pitches[int(place) % len(pitches)],
            int(rng.choice(prompt.len_steps)),
            int(rng.choice(prompt.velocity)),
        )
        for place in chosen
    ]
    return laid(notes, meter=call.meter, bars=call.bars, bpm=call.bpm)


def bar_steps(bar: Bar) -> int:
    """The length of `bar` in steps."""
    return bar.meter.in_quarters.len_steps
