"""Which port a want means, under the names that ALSA and JACK really give."""

from __future__ import annotations

import pytest

from antiphon.ports.matching import Plugged, connect, device_of, is_keyboard, matches, name_of
from antiphon.ports.messages import Direction, Want

ALSA_KEYS = "Test Keys 25:Test Keys 25 MIDI 1 24:0"
ALSA_KEYS_AGAIN = "Test Keys 25:Test Keys 25 MIDI 1 28:0"
ALSA_THROUGH = "Midi Through:Midi Through Port-0 14:0"


@pytest.mark.parametrize(
    ("pattern", "raw", "does"),
    [
        ("keys*", "keys:out", True),
        ("KEYS*", "keys:out", True),
        ("keys", "keys:out", True),
        ("out", "keys:out", True),
        ("keys:out", "keys:out", True),
        ("*midi 1", ALSA_KEYS, True),
        ("test keys 25", ALSA_KEYS, True),
        ("*24:0", ALSA_KEYS, False),
        ("key?", "keys:out", True),
        ("key", "keys:out", False),
        ("pad*", "keys:out", False),
        ("a2j:Nord [24] (capture): Nord MIDI 1", "a2j:Nord [24] (capture): Nord MIDI 1", True),
        ("*nord*", "a2j:Nord [24] (capture): Nord MIDI 1", True),
        ("", "keys:out", False),
    ],
)
def test_a_pattern_is_matched_by_full_name_client_and_port(pattern: str, raw: str, does: bool) -> None:
    assert matches(pattern, raw) is does


def test_an_alsa_port_keeps_its_name_under_another_address() -> None:
    assert name_of(ALSA_KEYS) == name_of(ALSA_KEYS_AGAIN) == "Test Keys 25:Test Keys 25 MIDI 1"


@pytest.mark.parametrize(
    ("raw", "is_one"),
    [
        ("keys:out", True),
        (ALSA_KEYS, True),
        ("a2j:Nord [24] (capture): Nord MIDI 1", True),
        (ALSA_THROUGH, False),
        ("System:Announce 0:1", False),
        ("system:midi_capture_1", False),
        ("antiphon:in", False),
        ("antiphon-01:out", False),
    ],
)
def test_a_star_takes_what_can_be_played_on(raw: str, is_one: bool) -> None:
    assert is_keyboard(raw) is is_one


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("keys:out", "keys:in", True),
        ("keys-01:out", "keys:in", True),
        ("keys-in:midi", "keys-out:midi", True),
        ("Keys Output:x", "Keys Input:y", True),
        ("keys-1:out", "keys-2:in", False),
        ("keys:out", "pads:in", False),
        (ALSA_KEYS, "Test Keys 25:Test Keys 25 MIDI 2 24:1", True),
        (ALSA_KEYS, ALSA_KEYS_AGAIN, False),
        ("system:midi_capture_1", "system:midi_playback_1", True),
        ("system:midi_capture_1", "system:midi_playback_2", False),
        ("a2j:Nord [24] (capture): Nord MIDI 1", "a2j:Nord [24] (playback): Nord MIDI 1", True),
        ("a2j:Nord [24] (capture): Nord MIDI 1", "a2j:Pads [28] (playback): Pads MIDI 1", False),
        ("out:out", "in:in", False),
    ],
)
def test_what_makes_two_ports_one_device(one: str, other: str, same: bool) -> None:
    assert (device_of(one) == device_of(other)) is same


KEYS_AND_PADS = Plugged(
    inputs=("keys:out", "pads:out", "antiphon:in", "system:midi_capture_1"),
    outputs=("pads:in", "keys-01:in", "synth:in", "antiphon-01:out"),
)


def want(port: int, direction: Direction, pattern: str = "*", same_as: int | None = None) -> Want:
    return Want(port=port, direction=direction, pattern=pattern, same_as=same_as)


def test_an_input_for_every_keyboard_and_the_devices_it_may_answer_to() -> None:
    links = connect([want(1, "out", same_as=0), want(0, "in")], KEYS_AND_PADS, {})
    assert links[0, "in"] == ("keys:out", "pads:out")
    assert links[1, "out"] == ("pads:in", "keys-01:in")


def test_an_output_answers_only_to_the_device_of_its_input() -> None:
    links = connect([want(0, "in", "pads*"), want(1, "out", same_as=0)], KEYS_AND_PADS, {})
    assert links == {(0, "in"): ("pads:out",), (1, "out"): ("pads:in",)}


def test_an_output_without_such_a_device_waits() -> None:
    plugged = Plugged(inputs=("keys:out",), outputs=("synth:in",))
    assert connect([want(0, "in"), want(1, "out", same_as=0)], plugged, {})[1, "out"] == ()


def test_several_wants_may_share_a_port() -> None:
    links = connect([want(0, "in", "keys*"), want(2, "in", "*"), want(4, "in", "out")], KEYS_AND_PADS, {})
    assert links[0, "in"] == ("keys:out",)
    assert "keys:out" in links[2, "in"]
    assert links[4, "in"] == ("keys:out",)


def test_a_want_keeps_the_port_it_has_when_another_match_appears_before_it() -> None:
    plugged = Plugged(inputs=("keys-a:out", "keys-b:out"), outputs=())
    links = connect([want(0, "in", "keys*")], plugged, {(0, "in"): ("keys-b:out",)})
    assert links[0, "in"] == ("keys-b:out",)


def test_a_pattern_that_names_the_system_or_a_through_port_gets_it() -> None:
    plugged = Plugged(inputs=("system:midi_capture_1", ALSA_THROUGH), outputs=())
    assert connect([want(0, "in", "system:*")], plugged, {})[0, "in"] == ("system:midi_capture_1",)
    assert connect([want(0, "in", "midi through")], plugged, {})[0, "in"] == (ALSA_THROUGH,)


def test_our_own_ports_are_never_wanted() -> None:
    plugged = Plugged(inputs=("antiphon:in",), outputs=("antiphon:out",))
    assert connect([want(0, "in", "antiphon*"), want(1, "out", "*out")], plugged, {}) == {(0, "in"): (), (1, "out"): ()}
