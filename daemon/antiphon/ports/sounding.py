"""What sounds right now: the held notes and pedals of every place that plays.

The ports process keeps one set by output name, which is the truth; the daemon keeps a mirror by port number,
fed from the acknowledgements, so that it can end the notes should the ports process be killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from antiphon.ports.midi import is_sustain, note_off

Place = TypeVar("Place", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Generic[Place]):
    """A note that sounds: where, and whose it is."""

    place: Place
    channel: int
    pitch: int
    port: int
    lane: int
    plan: int
    note: int

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.port, self.lane, self.note

    @property
    def off(self) -> bytes:
        return note_off(self.channel, self.pitch)


class Sounding(Generic[Place]):
    """The held set. One note at most per place, channel and pitch, and one per identity."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[Place, int, int], Held[Place]] = {}
        self._by_identity: dict[tuple[int, int, int], Held[Place]] = {}
        self._pedals: dict[tuple[Place, int], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Held[Place]]:
        return iter(tuple(self._by_key.values()))

    def at(self, place: Place, channel: int, pitch: int) -> Held[Place] | None:
        return self._by_key.get((place, channel, pitch))

    def of(self, identity: tuple[int, int, int]) -> Held[Place] | None:
        """The sounding note of (port, lane, note)."""
        return self._by_identity.get(identity)

    def begin(self, held: Held[Place]) -> None:
        self._by_key[held.place, held.channel, held.pitch] = held
        self._by_identity[held.identity] = held

    def end(self, held: Held[Place]) -> None:
        self._by_key.pop((held.place, held.channel, held.pitch), None)
        self._by_identity.pop(held.identity, None)

    def pedal(self, place: Place, port: int, lane: int, data: bytes) -> None:
        """Notice a sustain pedal message; others are none of its business."""
        if not is_sustain(data):
            return
        if data[2] == 0:
            self._pedals.pop((place, data[0] & 15), None)
            return
        self._pedals[place, data[0] & 15] = (port, lane)

    def pedals(self, port: int, lane: int) -> list[int]:
        """The channels on which this lane holds a pedal down."""
        return [channel for (_, channel), owner in self._pedals.items() if owner == (port, lane)]

    def forget_pedals(self, place: Place) -> None:
        for key in [key for key in self._pedals if key[0] == place]:
            del self._pedals[key]
