"""Whether to move on or to add to the chord is the model's choice, even where most ways to move on are closed.

After a note the model either adds one to the chord or moves on: to a later position, the next bar, the end. Where the
grammar forbids many of the moves, as on an answer's closing beat, leaving them out would hand what the model gave them
to the pitches, and a lone bass note would grow a chord that nobody meant. So it goes to the moves that are left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from antiphon.tokens.vocabulary import BAR, EOS, Vocabulary

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def moves_of(vocabulary: Vocabulary) -> NDArray[np.intp]:
    """The ids that move on, [positions + 2]."""
    return np.array([EOS, BAR, *range(vocabulary.positions.first, vocabulary.positions.end)], dtype=np.intp)


def keep_moving_on(offsets: Floats, *, logits: Floats, mask: Mask, moves: NDArray[np.intp]) -> None:
    """Raise `offsets` [V] of the moves in `mask` [V] so that together they are as likely as all `moves` were.

    Nothing changes where all of them, or none, are allowed. Calls for a place where a note has just ended.
    """
    allowed = mask[moves]
    if allowed.all() or not allowed.any():
        return
    leaning = logits[moves] + offsets[moves]
    weights = np.exp(leaning - leaning.max())
    left = weights[allowed].sum()
    if left > 0:
        offsets[moves[allowed]] += np.log(weights.sum() / left)
