"""What waits to be released and what sounds: the ports process without ports, on whatever clock it is handed.

Owns the waiting messages of all lanes, the routes from port numbers to outputs, and the held set. It writes
nothing itself: `release(now_ns)` and its neighbours hand back what is to be written now, in order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from antiphon.music.events import Due
from antiphon.ports.messages import EVERY_PORT, Dropped, End, Panic, Plan
from antiphon.ports.midi import SYSTEM, SYSTEM_REALTIME, is_note_off, is_note_on, silence, sustain_off
from antiphon.ports.sounding import Held, Sounding

_FIRST: Final = 0  # clock, start, stop: nothing may delay them
_OFF: Final = 1  # before the ons of the same moment, so that a repeated note is struck anew
_PLAIN: Final = 2
_OFF_AFTER: Final = 3  # the off of a note that begins at this very moment

_Lane: TypeAlias = tuple[int, int]  # port, lane
_Identity: TypeAlias = tuple[int, int, int]  # port, lane, note


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A message to be written now to the output of this name."""

    output: str
    port: int
    lane: int
    plan: int
    note: int
    due_ns: int
    data: bytes


class _Waiting:
    """A message that waits. Orders by moment, then rank, then arrival; one that was dropped stays in the heap."""

    __slots__ = ("at_ns", "data", "dropped", "lane", "note", "order", "plan", "port", "rank")

    def __init__(self, *, port: int, lane: int, plan: int, due: Due, rank: int, order: int) -> None:
        self.port = port
        self.lane = lane
        self.plan = plan
        self.at_ns = due.at_ns
        self.data = due.data
        self.note = due.note
        self.rank = rank
        self.order = order
        self.dropped = False

    def __lt__(self, other: _Waiting) -> bool:
        return (self.at_ns, self.rank, self.order) < (other.at_ns, other.rank, other.order)

    @property
    def identity(self) -> _Identity:
        return self.port, self.lane, self.note


class Scheduler:
    """The release core.

    late_ns: a note-on later than this is dropped with its off; everything else is written however late.
    """

    def __init__(self, *, late_ns: int) -> None:
        self.sounding: Sounding[str] = Sounding()
        self._late_ns = late_ns
        self._heap: list[_Waiting] = []
        self._lanes: dict[_Lane, dict[int, _Waiting]] = {}
        self._ons: dict[_Identity, _Waiting] = {}
        self._offs: dict[_Identity, _Waiting] = {}
        self._routes: dict[int, str] = {}
        self._owed: dict[str, list[Held[str]]] = {}
        self._channels: dict[str, set[int]] = {}
        self._order = 0

    @property
    def next_due_ns(self) -> int | None:
        """When `release` has something to do next; None when nothing waits."""
        while self._heap and self._heap[0].dropped:
            heapq.heappop(self._heap)
        return self._heap[0].at_ns if self._heap else None

    # --- where messages go ---

    def route(self, port: int, output: str | None, *, now_ns: int) -> list[Write]:
        """Let `port` lead to this output from now on (None: nowhere); ends what it has sounding elsewhere."""
        before = self._routes.get(port)
        if before == output:
            return []
        writes = list(self._cut(lambda held: held.port == port and held.place == before, now_ns=now_ns))
        if output is None:
            self._routes.pop(port, None)
        else:
            self._routes[port] = output
        return writes

    def lost(self, output: str) -> None:
        """The output vanished: its notes cannot be ended now and are owed until it returns."""
        for held in self.sounding:
            if held.place == output:
                self._forget(held)
                self._owed.setdefault(output, []).append(held)
        self.sounding.forget_pedals(output)
        self._routes = {port: name for port, name in self._routes.items() if name != output}

    def opened(self, output: str, *, now_ns: int) -> list[Write]:
        """The output is there (again): the offs of the notes that sounded when it vanished."""
        return [_off(held, due_ns=now_ns) for held in self._owed.pop(output, [])]

    # --- what the daemon says ---

    def plan(self, plan: Plan) -> None:
        lane = (plan.port, plan.lane)
        self._supersede(lane, plan.replaces_from_ns)
        offs = []
        for due in plan.dues:
            if is_note_off(due.data):
                offs.append(due)
                continue
            rank = _FIRST if due.data[0] >= SYSTEM_REALTIME else _PLAIN
            waiting = self._wait(lane, plan.plan, due, rank)
            if is_note_on(due.data):
                self._discard(self._ons.get(waiting.identity))
                self._ons[waiting.identity] = waiting
        for due in offs:
            self._wait_off(lane, plan.plan, due)

    def end(self, end: End) -> None:
        lane = (end.port, end.lane)
        sounding = [held for held in self.sounding if (held.port, held.lane) == lane]
        until = {held.identity: self._offs.get(held.identity) for held in sounding}
        kept = {off.order for off in until.values() if off is not None and off.at_ns <= end.at_ns}
        for waiting in tuple(self._lanes.get(lane, {}).values()):
            if waiting.order not in kept:
                self._discard(waiting)
        for held in sounding:
            if held.identity not in self._offs:
                self._wait_off(lane, held.plan, Due(at_ns=end.at_ns, data=held.off, note=held.note))
        for channel in self.sounding.pedals(*lane):
            self._wait(lane, 0, Due(at_ns=end.at_ns, data=sustain_off(channel)), _OFF)

    def panic(self, panic: Panic, *, now_ns: int) -> list[Write]:
        """The offs of all that sounds, then pedal up, notes off and sound off on every channel that was used."""
        every = panic.port == EVERY_PORT
        for lane in tuple(self._lanes):
            if every or lane[0] == panic.port:
                for waiting in tuple(self._lanes[lane].values()):
                    self._discard(waiting)
        writes = list(self._cut(lambda held: every or held.port == panic.port, now_ns=now_ns))
        for port, output in tuple(self._routes.items()):
            if every or port == panic.port:
                writes += self._silence(port, output, now_ns=now_ns)
        return writes

    # --- on time ---

    def release(self, now_ns: int) -> tuple[list[Write | Dropped], int | None]:
        """What is due by now, in order, and when the next is."""
        actions: list[Write | Dropped] = []
        while (due_ns := self.next_due_ns) is not None and due_ns <= now_ns:
            waiting = heapq.heappop(self._heap)
            self._remove(waiting)
            actions += self._release(waiting, now_ns)
        return actions, self.next_due_ns

    def _release(self, waiting: _Waiting, now_ns: int) -> Iterator[Write | Dropped]:
        if is_note_off(waiting.data):
            held = self.sounding.of(waiting.identity)
            if held is not None:
                self._forget(held)
                yield self._write(waiting, held.place)
            return
        output = self._routes.get(waiting.port)
        if not is_note_on(waiting.data):
            if output is not None:
                if waiting.data[0] < SYSTEM:
                    self._channels_of(output).add(waiting.data[0] & 15)
                self.sounding.pedal(output, waiting.port, waiting.lane, waiting.data)
                yield self._write(waiting, output)
            return
        if self.sounding.of(waiting.identity) is not None:
            return  # a plan that came late repeats a note that was released meanwhile: it sounds already
        if output is None or now_ns - waiting.at_ns > self._late_ns:
            self._discard(self._offs.get(waiting.identity))
            yield Dropped(
                port=waiting.port,
                lane=waiting.lane,
                plan=waiting.plan,
                note=waiting.note,
                due_ns=waiting.at_ns,
                at_ns=now_ns,
            )
            return
        channel, pitch = waiting.data[0] & 15, waiting.data[1]
        before = self.sounding.at(output, channel, pitch)
        if before is not None:
            self._forget(before)
            yield _off(before, due_ns=waiting.at_ns)
        self.sounding.begin(
            Held(
                place=output,
                channel=channel,
                pitch=pitch,
                port=waiting.port,
                lane=waiting.lane,
                plan=waiting.plan,
                note=waiting.note,
            )
        )
        self._channels_of(output).add(channel)
        yield self._write(waiting, output)

    # --- the waiting ---

    def _supersede(self, lane: _Lane, from_ns: int) -> None:
        for waiting in tuple(self._lanes.get(lane, {}).values()):
            if waiting.at_ns < from_ns or is_note_off(waiting.data):
                continue
            self._discard(waiting)
            if is_note_on(waiting.data) and self.sounding.of(waiting.identity) is None:
                self._discard(self._offs.get(waiting.identity))

    def _wait_off(self, lane: _Lane, plan: int, due: Due) -> None:
        identity = (*lane, due.note)
        on = self._ons.get(identity)
        if on is None and self.sounding.of(identity) is None:
            return  # its on was dropped, or has been ended: nothing to end
        self._discard(self._offs.get(identity))
        rank = _OFF
        if on is not None and due.at_ns <= on.at_ns:
            due, rank = Due(at_ns=on.at_ns, data=due.data, note=due.note), _OFF_AFTER
        self._offs[identity] = self._wait(lane, plan, due, rank)

    def _wait(self, lane: _Lane, plan: int, due: Due, rank: int) -> _Waiting:
        self._order += 1
        waiting = _Waiting(port=lane[0], lane=lane[1], plan=plan, due=due, rank=rank, order=self._order)
        heapq.heappush(self._heap, waiting)
        self._lanes.setdefault(lane, {})[waiting.order] = waiting
        return waiting

    def _discard(self, waiting: _Waiting | None) -> None:
        if waiting is not None:
            waiting.dropped = True
            self._remove(waiting)

    def _remove(self, waiting: _Waiting) -> None:
        lane = self._lanes.get((waiting.port, waiting.lane))
        if lane is not None:
            lane.pop(waiting.order, None)
            if not lane:
                del self._lanes[waiting.port, waiting.lane]
        for index in (self._ons, self._offs):
            if index.get(waiting.identity) is waiting:
                del index[waiting.identity]

    # --- the sounding ---

    def _cut(self, chosen: Callable[[Held[str]], bool], *, now_ns: int) -> Iterator[Write]:
        for held in self.sounding:
            if chosen(held):
                self._forget(held)
                yield _off(held, due_ns=now_ns)

    def _forget(self, held: Held[str]) -> None:
        self.sounding.end(held)
        self._discard(self._offs.get(held.identity))

    def _silence(self, port: int, output: str, *, now_ns: int) -> Iterator[Write]:
        self.sounding.forget_pedals(output)
        for channel in sorted(self._channels_of(output)):
            for data in silence(channel):
                yield Write(output=output, port=port, lane=0, plan=0, note=0, due_ns=now_ns, data=data)

    def _channels_of(self, output: str) -> set[int]:
        return self._channels.setdefault(output, set())

    def _write(self, waiting: _Waiting, output: str) -> Write:
        return Write(
            output=output,
            port=waiting.port,
            lane=waiting.lane,
            plan=waiting.plan,
            note=waiting.note,
            due_ns=waiting.at_ns,
            data=waiting.data,
        )


def _off(held: Held[str], *, due_ns: int) -> Write:
    return Write(
        output=held.place,
        port=held.port,
        lane=held.lane,
        plan=held.plan,
        note=held.note,
        due_ns=due_ns,
        data=held.off,
    )
