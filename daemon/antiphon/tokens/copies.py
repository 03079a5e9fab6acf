"""The bars that an answer must not repeat, as a tree of onsets: following a bar costs one step a note.

Two bars are copies where the same pitches are struck at the same steps, however long or loud. Empty bars are none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon.music.bar import Bar

Onset = tuple[int, int]
"""A step of the bar, and a pitch."""


@dataclass(slots=True, eq=False)
class Place:
    """Where a bar stands after some onsets: the places that one more onset leads to, and whether a bar ends here.

    depth: how many onsets lead here.
    """

    depth: int = 0
    ends: bool = False
    onward: dict[Onset, Place] = field(default_factory=dict)


def tree_of(bars: Iterable[Bar]) -> Place:
    """The place before the first onset of every bar of `bars`. It is not to be changed, so that clones may share it."""
    root = Place()
    for bar in bars:
        place = root
        for note in bar.notes:
            onset = (note.step, note.pitch)
            onward = place.onward.get(onset)
            if onward is None:
                onward = place.onward[onset] = Place(place.depth + 1)
            place = onward
        place.ends = place.ends or bool(bar.notes)
    return root
