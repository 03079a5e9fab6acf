"""PianoTokenizer: MIDI files to ids and back under one face, whichever vocabulary a model was trained on.

Two presets: "antiphon" is this project's own vocabulary, "pianomuse" the stock REMI of PianoMuse models.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, Protocol

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import Part, read_piece, write_parts
from antiphon.music.normalise import bars_of, piece_of
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary

Preset = Literal["antiphon", "pianomuse"]

_STRUCTURE = ("Bar_", "Position_", "Rest_", "TimeSig_", "Tempo_")


class Scheme(Protocol):
    """What a preset supplies. ids: every token by its miditok name."""

    ids: dict[str, int]

    def read(self, path: str | os.PathLike[str]) -> list[int]:
        """The ids of a MIDI file. Raises FileError."""
        ...

    def write(self, ids: Sequence[int], path: str | os.PathLike[str]) -> None:
        """Write the music of `ids` as a MIDI file. Raises AntiphonError."""
        ...

    def with_metadata(self, context: Sequence[int], *, tempo: int | None, time_signature: int | None) -> list[int]:
        """`context`, which begins with a bar, told in which tempo and meter it begins."""
        ...


class PianoTokenizer:
    """MIDI files to ids and back.

    vocab_size: how many rows the model's embedding has; at least the vocabulary's size, and otherwise without effect.
    max_bar_embedding: "pianomuse" only: how many bars the vocabulary numbers, and so how long a piece may be.
    lowest_pitch, highest_pitch: what the vocabulary can write, MIDI numbers, both included.
    """

    def __init__(self, *, vocab_size: int = 65536, max_bar_embedding: int = 300, preset: Preset = "pianomuse") -> None:
        self.preset = preset
        self.vocab_size = vocab_size
        self._scheme = _scheme(preset, max_bar_embedding)
        self._names = {token: name for name, token in self._scheme.ids.items()}
        pitches = [int(name.removeprefix("Pitch_")) for name in self._scheme.ids if name.startswith("Pitch_")]
        self.lowest_pitch, self.highest_pitch = min(pitches), max(pitches)
        if vocab_size < self.get_vocab_size():
            raise AntiphonError(
                f"a model of {vocab_size} rows is too small for the {preset} vocabulary of {self.get_vocab_size()}",
                fix="choose the preset that the model was trained on",
            )

    def get_vocab_size(self) -> int:
        """How many ids have a meaning; the model may have more rows."""
        return len(self._names)

    def token_to_id(self, token: str) -> int:
        """The id of a token such as "Pitch_60". Raises AntiphonError for one that the vocabulary lacks."""
        try:
            return self._scheme.ids[token]
        except KeyError:
            raise AntiphonError(f"the {self.preset} vocabulary has no token {token!r}") from None

    def id_to_token(self, id: int) -> str:
        """The token that `id` stands for. Raises AntiphonError for one outside the vocabulary."""
        try:
            return self._names[id]
        except KeyError:
            raise AntiphonError(f"id {id} is outside the {self.preset} vocabulary of {len(self._names)}") from None

    def is_structural_token(self, id: int) -> bool:
        """Whether `id` says where or in what time (Bar, Position, Rest, TimeSig, Tempo), rather than what sounds."""
        return self.id_to_token(id).startswith(_STRUCTURE)

    def find_bar_indices(self, ids: Sequence[int]) -> list[int]:
        """The indices at which bars begin in `ids`."""
        return [index for index, token in enumerate(ids) if self.id_to_token(token).startswith("Bar_")]

    def extract_metadata_tokens(self, ids: Sequence[int], up_to_index: int) -> dict[str, int | None]:
        """The last tempo and time signature ids before `up_to_index`, as {"tempo", "time_signature"}; None if none."""
        return {
            "tempo": self._last(ids, "Tempo_", before=up_to_index),
            "time_signature": self._last(ids, "TimeSig_", before=up_to_index),
        }

    def with_metadata(self, context: Sequence[int], metadata: dict[str, int | None]) -> list[int]:
        """`context`, which begins with a bar, told in which tempo and meter (see above) it begins."""
        return self._scheme.with_metadata(context, tempo=metadata["tempo"], time_signature=metadata["time_signature"])

    def tokenize_midi(self, path: str | os.PathLike[str]) -> list[int]:
        """The ids of a MIDI file, all its pitched tracks merged. Raises FileError or AntiphonError."""
        return self._scheme.read(path)

    def detokenize(self, ids: Sequence[int], path: str | os.PathLike[str]) -> None:
        """Write the music of `ids` as a Standard MIDI File, whole or not at all. Raises AntiphonError."""
        for token in ids:
            self.id_to_token(token)
        self._scheme.write(ids, path)

    def _last(self, ids: Sequence[int], kind: str, *, before: int) -> int | None:
        places = range(min(before, len(ids)) - 1, -1, -1)
        return next((ids[place] for place in places if self.id_to_token(ids[place]).startswith(kind)), None)


def _scheme(preset: Preset, max_bar_embedding: int) -> Scheme:
    if preset == "antiphon":
        return AntiphonScheme(Vocabulary())
    if preset == "pianomuse":
        from antiphon.tokens.pianomuse import PianoMuseScheme  # miditok takes seconds to load

        return PianoMuseScheme(max_bars=max_bar_embedding)
    raise AntiphonError(f"{preset!r} is no preset", fix='say "antiphon" or "pianomuse"')


class AntiphonScheme:
    """Our own vocabulary, encoder and decoder."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids = vocabulary.ids

    def read(self, path: str | os.PathLike[str]) -> list[int]:
        """The ids of the file's normalised bars, without BOS or EOS."""
        piece = read_piece(path)
        try:
            return encode(bars_of(piece), self.vocabulary)
        except AntiphonError as error:
            raise FileError(error.message, where=os.fspath(path), fix=error.fix) from error

    def write(self, ids: Sequence[int], path: str | os.PathLike[str]) -> None:
        """One piano track; a last note may ring past the last bar line. Raises AntiphonError if `ids` hold no bar."""
        bars = decode(ids, self.vocabulary)
        if not bars:
            raise AntiphonError("there is no bar in these ids", fix="give whole bars, from a Bar token on")
        piece = piece_of(bars)
        write_parts(
            path,
            parts=[Part(name="Piano", notes=piece.notes)],
            meters=piece.meters,
            tempos=piece.tempos,
            end_tick=piece.end_tick,
        )

    def with_metadata(self, context: Sequence[int], *, tempo: int | None, time_signature: int | None) -> list[int]:
        """`context` as if a piece began with it: bars carry their meter, the first one gets the tempo."""
        vocabulary = self.vocabulary
        told = list(context)
        if len(told) < 2 or told[1] not in vocabulary.meters:
            raise AntiphonError("a context begins with Bar and TimeSig", fix="cut it where a bar begins")
        at_start = told[2:3] == [vocabulary.position_id(0)]
        has_tempo = at_start and len(told) > 3 and told[3] in vocabulary.tempos
        if tempo is None or has_tempo:
            return told
        return [*told[:2], vocabulary.position_id(0), tempo, *told[3 if at_start else 2 :]]
