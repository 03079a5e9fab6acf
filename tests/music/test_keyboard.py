"""Keys and pedal to notes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.music.keyboard import Held, Keyboard
from antiphon.music.note import Note


def heard(*messages: tuple[int, str]) -> tuple[Keyboard, list[Note]]:
    """A keyboard that heard `messages`, (tick, hexadecimal bytes), and the notes that ended."""
    keyboard = Keyboard()
    return keyboard, [n for tick, text in messages for n in keyboard.hear(bytes.fromhex(text), at_tick=tick)]


def spans(notes: Iterable[Note]) -> list[tuple[int, int, int]]:
    return sorted((note.pitch, note.start_tick, note.end_tick) for note in notes)


def test_a_note_lasts_from_on_to_off() -> None:
    keyboard, notes = heard((10, "903c50"), (490, "803c40"))
    assert notes == [Note(start_tick=10, pitch=60, len_ticks=480, velocity=80)]
    assert keyboard.sounding == ()


def test_a_note_on_of_velocity_0_is_an_off() -> None:
    assert spans(heard((0, "903c50"), (100, "903c00"))[1]) == [(60, 0, 100)]


def test_an_off_without_an_on_is_nothing() -> None:
    keyboard, notes = heard((0, "803c00"), (5, "903c00"))
    assert notes == []
    assert keyboard.sounding == ()


def test_a_note_ended_at_its_own_tick_is_one_tick_long() -> None:
    assert spans(heard((7, "903c50"), (7, "803c00"))[1]) == [(60, 7, 8)]


def test_a_pitch_struck_again_ends_where_it_is_struck() -> None:
    keyboard, notes = heard((0, "903c50"), (100, "903c60"))
    assert spans(notes) == [(60, 0, 100)]
    assert keyboard.sounding == (Held(100, 60, 0x60),)


def test_the_pedal_holds_what_the_key_has_left() -> None:
    keyboard, notes = heard((0, "b0407f"), (10, "903c50"), (20, "803c00"), (30, "904050"))
    assert notes == []
    assert keyboard.sounding == (Held(10, 60, 80, key_down=False), Held(30, 64, 80))
    assert spans(keyboard.hear(bytes.fromhex("b04000"), at_tick=50)) == [(60, 10, 50)]
    assert list(keyboard.sounding) == [Held(30, 64, 80)]


@pytest.mark.parametrize(("half", "ended"), [("b04040", []), ("b0403f", [(60, 0, 10)])])
def test_the_pedal_is_down_from_64_on(half: str, ended: list[tuple[int, int, int]]) -> None:
    assert spans(heard((0, half), (0, "903c50"), (10, "803c00"))[1]) == ended


def test_half_a_pedal_still_holds_and_less_lets_go() -> None:
    messages = [(0, "b0407f"), (0, "903c50"), (10, "803c00"), (20, "b04040"), (30, "b0403f")]
    assert spans(heard(*messages)[1]) == [(60, 0, 30)]


def test_a_pitch_struck_again_under_the_pedal_ends_where_it_is_struck() -> None:
    messages = [(0, "b0407f"), (0, "903c50"), (10, "803c00"), (20, "903c50"), (30, "803c00"), (40, "b04000")]
    assert spans(heard(*messages)[1]) == [(60, 0, 20), (60, 20, 40)]


def test_all_notes_off_is_held_by_the_pedal() -> None:
    assert spans(heard((0, "903c50"), (9, "b07b00"))[1]) == [(60, 0, 9)]
    keyboard, notes = heard((0, "b0407f"), (0, "903c50"), (9, "b07b00"))
    assert notes == []
    assert spans(keyboard.hear(bytes.fromhex("b04000"), at_tick=12)) == [(60, 0, 12)]


def test_all_sound_off_is_not_held_by_the_pedal() -> None:
    messages = [(0, "b0407f"), (0, "903c50"), (0, "904050"), (5, "804000"), (9, "b07800")]
    assert spans(heard(*messages)[1]) == [(60, 0, 9), (64, 0, 9)]


def test_reset_all_controllers_lifts_the_pedal() -> None:
    messages = [(0, "b0407f"), (0, "903c50"), (0, "904050"), (5, "804000"), (9, "b07900")]
    assert spans(heard(*messages)[1]) == [(64, 0, 9)]


def test_channels_have_keys_and_pedals_of_their_own() -> None:
    messages = [
        (0, "b0407f"),  # the pedal of channel 1
        (0, "903c50"),
        (0, "913c60"),  # the same pitch on channel 2
        (10, "803c00"),
        (20, "813c00"),
        (30, "b17800"),  # channel 2 falls silent
        (40, "b04000"),
    ]
    assert spans(heard(*messages)[1]) == [(60, 0, 20), (60, 0, 40)]


@pytest.mark.parametrize(
    "text", ["", "90", "903c", "f8", "fe", "e00040", "d040", "c005", "a03c40", "f03c40f7", "b00140"]
)
def test_what_is_no_note_pedal_or_all_off_is_passed_over(text: str) -> None:
    keyboard, notes = heard((0, "903c50"), (5, text))
    assert notes == []
    assert keyboard.sounding == (Held(0, 60, 80),)


@pytest.mark.parametrize("text", ["908050", "903cff", "ffffff", "3c5000", "b0ff00"])
def test_garbled_messages_are_passed_over(text: str) -> None:
    assert heard((0, text))[0].sounding == ()


def test_everything_ends_when_the_port_goes() -> None:
    keyboard, _ = heard((0, "b0407f"), (0, "903c50"), (3, "914050"))
    assert spans(keyboard.end_all(at_tick=10)) == [(60, 0, 10), (64, 3, 10)]
    assert keyboard.sounding == ()
    assert keyboard.hear(bytes.fromhex("903c50"), at_tick=20) == []
    assert spans(keyboard.hear(bytes.fromhex("803c00"), at_tick=25)) == [(60, 20, 25)], "the pedal is up again"


@given(messages=st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=4)), max_size=60))
def test_every_note_struck_ends_once_whatever_comes(messages: list[tuple[int, bytes]]) -> None:
    keyboard = Keyboard()
    tick, struck, ended = 0, 0, []
    for wait, data in messages:
        tick += wait
        # Most random bytes are no message: every other one is made a note or a controller.
        kinds = (0x90, 0x80, 0xB0)
        message = bytes((kinds[wait % 3] | wait % 2, *(byte & 0x7F for byte in data[1:3]))) if wait % 5 else data
        if len(message) >= 3 and message[0] & 0xF0 == 0x90 and message[1] < 128 and 0 < message[2] < 128:
            struck += 1
        ended += keyboard.hear(message, at_tick=tick)
    ended += keyboard.end_all(at_tick=tick)
    assert len(ended) == struck
    assert all(note.len_ticks >= 1 and note.start_tick <= tick for note in ended)
