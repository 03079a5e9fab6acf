"""PianoMuse's ids: stock REMI as miditok writes it, with rests and numbered bars.

What miditok does, this does: a meter that its table lacks becomes 4/4, a bar that lies wholly within a rest has no
Bar token, and the sustain pedal is not heard.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from miditok import REMI, TokenizerConfig, TokSequence
from symusic import Score, Track

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import read_piece, write_whole


def _remi(max_bars: int | None) -> Any:
    return REMI(
        TokenizerConfig(
            beat_res={(0, 4): 8, (4, 12): 4},
            num_velocities=32,
            use_chords=False,
            use_programs=False,
            use_rests=True,
            use_tempos=True,
            num_tempos=32,
            tempo_range=(40, 250),
            use_time_signatures=True,
        ),
        max_bar_embedding=max_bars,
    )


class PianoMuseScheme:
    """Stock REMI whose bars are numbered, Bar_0 up to Bar_(max_bars - 1)."""

    def __init__(self, *, max_bars: int) -> None:
        if max_bars < 1:
            raise AntiphonError(f"a vocabulary of {max_bars} bars is none")
        self._max_bars = max_bars
        self._tokenizer = _remi(max_bars)
        # miditok 3.1 reads only Bar_None as a bar line, so ids are written by a twin without numbers.
        self._unnumbered = _remi(None)
        self.ids: dict[str, int] = dict(self._tokenizer.vocab)

    def read(self, path: str | os.PathLike[str]) -> list[int]:
        """The ids of the file's pitched tracks, merged into one, without BOS or EOS."""
        read_piece(path)  # refuses what is damaged or hostile before symusic sees it
        where = os.fspath(path)
        score: Any = Score(where)
        merged: Any = Track()
        for track in score.tracks:
            if not track.is_drum:
                merged.notes.extend(track.notes)
        merged.notes.sort(key=lambda note: (note.start, note.pitch, note.duration))
        score.tracks = [merged]
        try:
            sequence = self._tokenizer.encode(score)
        except KeyError as error:
            raise FileError(
                f"the vocabulary lacks {error}: it numbers {self._max_bars} bars",
                where=where,
                fix="split the piece, or give max_bar_embedding more",
            ) from error
        return [int(token) for token in sequence[0].ids]

    def write(self, ids: Sequence[int], path: str | os.PathLike[str]) -> None:
        """One piano track. Special tokens are left out."""
        tokens = ["Bar_None" if name.startswith("Bar_") else name for name in map(self._tokenizer.__getitem__, ids)]
        music = TokSequence(tokens=[token for token in tokens if not token.endswith("_None") or token == "Bar_None"])
        self._unnumbered.complete_sequence(music)
        score: Any = self._unnumbered.decode([music])
        write_whole(path, score.dumps_midi())

    def with_metadata(self, context: Sequence[int], *, tempo: int | None, time_signature: int | None) -> list[int]:
        """`context` after the tempo and time signature ids that are given."""
        return [token for token in (tempo, time_signature) if token is not None] + list(context)
