"""The calls that windows make: those with four bars of context, as our vocabulary can say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from antiphon.errors import AntiphonError
from antiphon.evaluation.call import Call
from antiphon.evaluation.passage import as_written
from antiphon.evaluation.songs import song_of
from antiphon.evaluation.windows import Window, load
from antiphon.music.bar import Bar
from antiphon.tokens.vocabulary import Vocabulary

CONTEXT_BARS = 4


def calls_of(
    windows: Sequence[Window], root: Path, songs: Mapping[str, str], vocabulary: Vocabulary, *, most: int = 0
) -> list[Call]:
    """The calls of the windows with `CONTEXT_BARS` bars of context, or of `most` evenly spread ones (0 = all).

    Windows whose bars are not all of one meter, or that have no note on one side of the line, make no call: nobody
    could say what is asked for. Raises AntiphonError where none is left, and FileError as `load` does.
    """
    asked = [window for window in windows if window.context_bars == CONTEXT_BARS]
    count = len(asked) if most <= 0 else min(most, len(asked))
    calls: list[Call] = []
    for index in np.unique(np.linspace(0, len(asked) - 1, count).round().astype(np.int64)):
        window = asked[index]
        loaded = load(window, root)
        one_meter = len({bar.meter.in_quarters for bar in (*loaded.context, *loaded.target)}) == 1
        if one_meter and any(bar.notes for bar in loaded.context) and loaded.notes:
            call = Call(
                number=len(calls),
                name=f"{window.file}, bar {window.target_bar}",
                song=song_of(window.file, songs),
                prompt=as_written(loaded.context, vocabulary),
                target=as_written(loaded.target, vocabulary),
                elsewhere=_elsewhere(window, root, vocabulary),
            )
            calls.append(call)
    if not calls:
        raise AntiphonError(
            f"no window has {CONTEXT_BARS} bars of context in one meter with notes", fix="choose others"
        )
    return calls


def _elsewhere(window: Window, root: Path, vocabulary: Vocabulary) -> tuple[Bar, ...]:
    """As many bars as the target has from before the prompt, in its meter and with notes, or none."""
    if window.start_bar < window.bars:
        return ()
    before = load(replace(window, start_bar=0, context_bars=window.start_bar), root)
    meter = before.target[0].meter.in_quarters
    fits = [
        start
        for start in range(window.start_bar - window.bars + 1)
        if all(bar.meter.in_quarters == meter for bar in before.context[start : start + window.bars])
        and any(bar.notes for bar in before.context[start : start + window.bars])
    ]
    if not fits:
        return ()
    start = fits[len(fits) // 2]
    return as_written(before.context[start : start + window.bars], vocabulary)
