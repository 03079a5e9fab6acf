"""A phrase to demonstrate with: the first four bars of Beethoven's Ode to Joy (1824, public domain), in D."""

from __future__ import annotations

from antiphon.music.note import Note
from antiphon.music.time import TICKS_PER_QUARTER as Q

NAME = "Ode to Joy, bars 1-4 (L. van Beethoven, 1824)"

_MELODY = (
    *((66, Q), (66, Q), (67, Q), (69, Q)),
    *((69, Q), (67, Q), (66, Q), (64, Q)),
    *((62, Q), (62, Q), (64, Q), (66, Q)),
    *((66, 3 * Q // 2), (64, Q // 2), (64, 2 * Q)),
)
_BASS = (
    *((50, 2 * Q), (57, 2 * Q)),
    *((57, 2 * Q), (52, 2 * Q)),
    *((50, 2 * Q), (57, Q), (50, Q)),
    *((45, 2 * Q), (57, 2 * Q)),
)
_DETACHED_TICKS = 60  # a finger leaves a key a little before the next one goes down


def phrase() -> tuple[Note, ...]:
    """Its notes, from tick 0."""
    notes: list[Note] = []
    for voice, velocity in ((_MELODY, 84), (_BASS, 66)):
        tick = 0
        for pitch, len_ticks in voice:
            notes.append(Note(tick, pitch, len_ticks - _DETACHED_TICKS, velocity + (6 if tick % (4 * Q) == 0 else 0)))
            tick += len_ticks
    return tuple(sorted(notes))
