"""Transposing ids, note by note, so that no velocity or duration loses its pitch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from antiphon.errors import AntiphonError
from antiphon.tokens.piano import PianoTokenizer

BeyondRange = Literal["fold", "drop"]


@dataclass(frozen=True, slots=True)
class _Note:
    """A note as written: its pitch, and the ids of its velocity and duration."""

    pitch: int
    rest: tuple[int, ...]

    def merged(self, twin: _Note) -> _Note:
        """This note and one of the same pitch as one, the longer and louder: ids rise with what they mean."""
        return _Note(self.pitch, tuple(map(max, zip(self.rest, twin.rest, strict=False))))


@dataclass(frozen=True, slots=True)
class _Chord:
    """Notes written in a row, from index `begin` up to and without `end`."""

    begin: int
    end: int
    notes: list[_Note]


def transpose_midi_tokens(
    tokens: Sequence[int],
    semitones: int,
    tokenizer: PianoTokenizer,
    *,
    beyond_range: BeyondRange = "fold",
) -> list[int]:
    """`tokens` with every pitch moved by `semitones`. Drums stay as they are.

    A note that would leave the vocabulary's pitches moves back in by octaves ("fold"), or goes with all its ids, and
    with its Position where nothing else is left there ("drop"). A chord in which a note was folded is sorted again,
    and two notes that fell on one pitch become one. Nothing else changes, so that the way back undoes it.

    Raises AntiphonError where a note would be dropped before a rest: a rest counts from the end of what sounded before
    it, so that what follows would move.
    """
    if beyond_range not in ("fold", "drop"):
        raise AntiphonError(f"{beyond_range!r} is no way to treat a note beyond the range", fix='say "fold" or "drop"')
    names = [tokenizer.id_to_token(token) for token in tokens]
    last_rest = max((index for index, name in enumerate(names) if name.startswith("Rest_")), default=-1)
    moved: list[int] = []
    for part in _parts(tokens, names):
        if isinstance(part, int):
            moved.append(part)
            continue
        shifted = [_Note(note.pitch + semitones, note.rest) for note in part.notes]
        inside = [note for note in shifted if _folded(note.pitch, tokenizer) == note.pitch]
        if len(inside) < len(shifted) and beyond_range == "fold":
            inside = _sorted([_Note(_folded(note.pitch, tokenizer), note.rest) for note in shifted])
        if len(inside) < len(shifted) and beyond_range == "drop" and part.begin < last_rest:
            raise AntiphonError("a note cannot be dropped before a rest, which counts from its end", fix="fold it")
        drums_follow = names[part.end : part.end + 1] and names[part.end].startswith("PitchDrum_")
        if not inside and not drums_follow and moved and tokenizer.id_to_token(moved[-1]).startswith("Position_"):
            moved.pop()
        for note in inside:
            moved += [tokenizer.token_to_id(f"Pitch_{note.pitch}"), *note.rest]
    return moved


def _parts(tokens: Sequence[int], names: Sequence[str]) -> Iterator[int | _Chord]:
    """`tokens` as chords, and single ids between them."""
    place = 0
    while place < len(tokens):
        if not names[place].startswith("Pitch_"):
            yield tokens[place]
            place += 1
            continue
        begin, notes = place, []
        while place < len(tokens) and names[place].startswith("Pitch_"):
            end = place + 1
            while end < len(tokens) and names[end].startswith(("Velocity_", "Duration_")):
                end += 1
            notes.append(_Note(int(names[place].removeprefix("Pitch_")), tuple(tokens[place + 1 : end])))
            place = end
        yield _Chord(begin, place, notes)


def _folded(pitch: int, tokenizer: PianoTokenizer) -> int:
    lowest, highest = tokenizer.lowest_pitch, tokenizer.highest_pitch
    if pitch < lowest:
        return lowest + (pitch - lowest) % 12
    if pitch > highest:
        return highest - (highest - pitch) % 12
    return pitch


def _sorted(notes: list[_Note]) -> list[_Note]:
    by_pitch: dict[int, _Note] = {}
    for note in notes:
        by_pitch[note.pitch] = note.merged(by_pitch[note.pitch]) if note.pitch in by_pitch else note
    return [by_pitch[pitch] for pitch in sorted(by_pitch)]
