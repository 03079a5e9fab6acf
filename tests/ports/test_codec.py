"""Both ends of the line understand each other, and a broken packet is an error in words, never a crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.music.events import Due, Heard
from antiphon.ports.codec import MAX_PACKET, PacketError, decode, encode
from antiphon.ports.messages import (
    APPEND,
    Down,
    Dropped,
    End,
    Fault,
    Message,
    Panic,
    Plan,
    Quit,
    Ready,
    Released,
    Up,
    Waiting,
    Want,
)

ports = st.integers(-1, 2**31 - 1)
lanes = st.integers(0, 2**31 - 1)
moments = st.integers(-(2**63), 2**63 - 1)
notes = st.integers(1, 2**63 - 1)
directions = st.sampled_from(("in", "out"))
texts = st.text(max_size=200)
sevens = st.integers(0, 127)
channels = st.integers(0, 15)

note_data = st.builds(
    lambda kind, channel, a, b: bytes((kind | channel, a, b)), st.sampled_from((0x80, 0x90)), channels, sevens, sevens
)
other_data = st.one_of(
    st.builds(
        lambda kind, channel, a, b: bytes((kind | channel, a, b)),
        st.sampled_from((0xA0, 0xB0, 0xE0)),
        channels,
        sevens,
        sevens,
    ),
    st.builds(lambda kind, channel, a: bytes((kind | channel, a)), st.sampled_from((0xC0, 0xD0)), channels, sevens),
    st.sampled_from((b"\xf8", b"\xfa", b"\xfb", b"\xfc", b"\xf2\x01\x02")),
)
dues = st.one_of(
    st.builds(Due, at_ns=moments, data=note_data, note=notes), st.builds(Due, at_ns=moments, data=other_data)
)
released = {"port": ports, "lane": lanes, "plan": moments, "note": moments, "due_ns": moments, "at_ns": moments}
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Want, port=ports, direction=directions, pattern=texts, same_as=st.none() | ports),
    st.builds(
        Plan,
        port=ports,
        lane=lanes,
        plan=moments,
        replaces_from_ns=moments,
        dues=st.lists(dues, max_size=20).map(tuple),
    ),
    st.builds(End, port=ports, lane=lanes, at_ns=moments),
    st.builds(Panic, port=ports),
    st.builds(Quit),
    st.builds(Ready, api=texts, priority=st.integers(0, 99), locked=st.booleans()),
    st.builds(Up, port=ports, direction=directions, name=texts),
    st.builds(Down, port=ports, direction=directions, name=texts),
    st.builds(Waiting, port=ports, direction=directions, pattern=texts),
    st.builds(Heard, at_ns=moments, port=ports, data=st.binary(max_size=300)),
    st.builds(Released, data=st.binary(max_size=300), **released),
    st.builds(Dropped, **released),
    st.builds(Fault, text=texts),
)


@given(messages)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_packet_cut_short_or_made_longer_is_refused(message: Message, data: st.DataObject) -> None:
    packet = encode(message)
    with pytest.raises(PacketError):
        decode(packet[: data.draw(st.integers(0, len(packet) - 1))])
    with pytest.raises(PacketError):
        decode(packet + b"\0")


def read(packet: bytes) -> Message | None:
    """The packet's message; None where it is refused in the proper way. Any other exception is a defect."""
    try:
        return decode(packet)
    except PacketError:
        return None


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_refused(packet: bytes) -> None:
    message = read(packet)
    assert message is None or decode(encode(message)) == message


@given(messages, st.data())
def test_a_flipped_byte_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    packet = bytearray(encode(message))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    assert read(bytes(packet)) != message


def a_plan(*dues: Due) -> Plan:
    return Plan(port=0, lane=0, plan=1, replaces_from_ns=APPEND, dues=dues)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"", 0),
        (b"\x90\x3c", 1),
        (b"\x3c\x40\x00", 1),
        (b"\x90\x3c\xf8", 1),
        (b"\x90\x3c\x40\x00", 1),
        (b"\xf0\x01\xf7", 0),
        (b"\x90\x3c\x40", 0),
        (b"\x80\x3c\x40", 0),
        (b"\x90\x3c\x40", -1),
        (b"\xb0\x40\x7f", 1),
    ],
)
def test_a_due_that_is_no_whole_message_or_has_a_wrong_identity_is_refused(data: bytes, note: int) -> None:
    with pytest.raises(PacketError):
        encode(a_plan(Due(at_ns=1, data=data, note=note)))


def test_a_plan_too_large_for_a_packet_says_so() -> None:
    clock = Due(at_ns=1, data=b"\xf8")
    with pytest.raises(PacketError, match="send it in parts"):
        encode(a_plan(*[clock] * (MAX_PACKET // 19 + 1)))
    assert decode(encode(a_plan(*[clock] * 3000))) == a_plan(*[clock] * 3000)


def test_a_number_too_large_for_its_field_says_so() -> None:
    with pytest.raises(PacketError, match="End"):
        encode(End(port=2**31, lane=0, at_ns=0))
