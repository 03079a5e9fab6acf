"""Music to test with: random pieces and bars, and MIDI files put together byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.normalise import HIGHEST, LOWEST, MAX_LEN_STEPS, untangled
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary()
HALVES = tuple(Meter(beats, unit) for unit, most in ((1, 3), (2, 6)) for beats in range(1, most + 1))
METERS = (*VOCABULARY.grid.meters, *HALVES)
BPMS = tuple(VOCABULARY.bpm_of(VOCABULARY.tempos.at(i)) for i in range(len(VOCABULARY.tempos)))
VELOCITIES = tuple(VOCABULARY.velocity_of(VOCABULARY.velocities.at(i)) for i in range(len(VOCABULARY.velocities)))


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """Played music: any ticks, any pitches, meters and tempos that change anywhere, on a keyboard of any width."""
    meters = draw(st.lists(st.tuples(st.integers(0, 30_000), st.sampled_from(METERS)), max_size=4))
    tempos = draw(st.lists(st.tuples(st.integers(0, 30_000), st.floats(5, 999)), max_size=4))
    played = st.builds(
        Note,
        start_tick=st.integers(0, 30_000),
        pitch=st.integers(0, 127) | st.integers(58, 62),
        len_ticks=st.integers(1, 300) | st.integers(1, 20_000),
        velocity=st.integers(1, 127),
    )
    notes = tuple(sorted(draw(st.lists(played, min_size=1, max_size=40))))
    last = max(note.end_tick for note in notes)
    end_tick = draw(st.just(last) | st.integers(last, last + 20_000))
    return Piece(notes, MeterMap.of(meters), TempoMap.of(tempos), end_tick)


@st.composite
def bars(draw: st.DrawFn, *, exact: bool = False, meters: Sequence[Meter] = METERS) -> list[Bar]:
    """Normalised bars, empty ones among them and at the end. exact: as the vocabulary can say them without loss."""
    heads = draw(
        st.lists(
            st.tuples(st.sampled_from(meters), st.sampled_from(BPMS) if exact else st.floats(5, 999)),
            min_size=1,
            max_size=6,
        )
    )
    if draw(st.booleans()):
        heads = [(meter, heads[0][1]) for meter, _ in heads]
    if draw(st.booleans()):
        heads = [(heads[0][0], bpm) for _, bpm in heads]
    total = sum(meter.len_steps for meter, _ in heads)
    written = st.builds(
        BarNote,
        step=st.integers(0, total - 1) | st.integers(0, min(total - 1, 12)),
        pitch=st.integers(LOWEST, HIGHEST) | st.integers(60, 63),
        len_steps=st.integers(1, 12) | st.integers(1, MAX_LEN_STEPS),
        velocity=st.sampled_from(VELOCITIES) if exact else st.integers(1, 127),
    )
    notes = untangled(draw(st.lists(written, max_size=30)))
    if exact:
        heads = [(meter.in_quarters, bpm) for meter, bpm in heads]
    return in_bars(notes, heads)


def in_bars(notes: Sequence[BarNote], heads: Sequence[tuple[Meter, float]]) -> list[Bar]:
    """`notes` (steps from the first bar line, sorted) in bars of the given meters and tempos."""
    found: list[Bar] = []
    start = 0
    for meter, bpm in heads:
        end = start + meter.len_steps
        inside = tuple(replace(note, step=note.step - start) for note in notes if start <= note.step < end)
        found.append(Bar(meter, inside, bpm))
        start = end
    return found


def number(value: int) -> bytes:
    """`value` as a variable-length number."""
    data = bytes((value & 0x7F,))
    while value := value >> 7:
        data = bytes((value & 0x7F | 0x80,)) + data
    return data


END = b"\x00\xff\x2f\x00"


def smf(*tracks: bytes, kind: int = 1, division: int = 480, count: int | None = None) -> bytes:
    """A MIDI file of `tracks`, each the bytes of its events."""
    header = (kind, len(tracks) if count is None else count, division)
    data = b"MThd" + (6).to_bytes(4, "big") + b"".join(value.to_bytes(2, "big") for value in header)
    return data + b"".join(b"MTrk" + len(track).to_bytes(4, "big") + track for track in tracks)


def played(pitch: int, *, wait: int = 0, len_ticks: int = 480, velocity: int = 80, channel: int = 0) -> bytes:
    """A note on and off, the on `wait` ticks after what came before."""
    on, off = 0x90 | channel, 0x80 | channel
    return number(wait) + bytes((on, pitch, velocity)) + number(len_ticks) + bytes((off, pitch, 0))


def tempo(bpm: float, *, wait: int = 0) -> bytes:
    return number(wait) + b"\xff\x51\x03" + round(60e6 / bpm).to_bytes(3, "big")


def time_signature(beats: int, power: int, *, wait: int = 0) -> bytes:
    """`power`: the unit is 2 to the power of it."""
    return number(wait) + bytes((0xFF, 0x58, 4, beats, power, 24, 8))
