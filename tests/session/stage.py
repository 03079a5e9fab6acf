"""A stage for one player with a clock turned by hand: real co-pilot, real model, jobs run at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.music.events import Due, Heard
from antiphon.music.note import Note
from antiphon.session.band import Band, Channel, Seat
from antiphon.session.copilot import NEVER_NS, Answered, Copilot, Phase
from antiphon.session.metronome import Click, Metronome
from antiphon.session.policy import Policy
from antiphon.session.pulse import ClockPulse, InternalPulse
from antiphon.session.tree import Tree
from antiphon.tokens.vocabulary import Vocabulary

T = TypeVar("T")


@dataclass
class Stage:
    """Plays to one co-pilot. `job_ns` is how long each job of the model takes on this clock."""

    model: LoadedModel
    policy: Policy
    pulse: InternalPulse | ClockPulse
    job_ns: int = 0
    now_ns: int = 1_000_000_000
    answers: list[Answered] = field(default_factory=list)
    phases: list[tuple[Phase, int]] = field(default_factory=list)
    sent: list[tuple[int, int, int]] = field(default_factory=list)  # (now_ns, plan, replaces_from_ns)
    ended: list[int] = field(default_factory=list)
    released: list[Due] = field(default_factory=list)
    panics: list[int] = field(default_factory=list)

    def forget(self) -> None:
        """Drop what was noted so far, so that a long session is not measured by its notes."""
        for notes in (self.answers, self.phases, self.sent, self.ended, self.released):
            notes.clear()
        self._begun.clear()

    def __post_init__(self) -> None:
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._dues: dict[int, list[Due]] = {}
        self._begun: set[int] = set()
        vocabulary = Vocabulary()
        trunk = Timeline(self.model)
        self.tree = Tree(trunk=trunk, branch=trunk.fork(), vocabulary=vocabulary)
        self.copilot = Copilot(
            name="player",
            policy=self.policy,
            pulse=self.pulse,
            vocabulary=vocabulary,
            tree=self.tree,
            submit=self._submit,
            send=self._send,
            end=self._end,
            channel=lambda: 0,
            on_answer=self.answers.append,
            on_phase=lambda phase, tick: self.phases.append((phase, tick)),
        )
        silent = Metronome(self.pulse, Click(), None, None, lambda: False)
        self.band = Band(
            self.pulse, [Seat(self.copilot, 0, Channel(), lambda: self.panics.append(self.now_ns))], silent
        )

    def play(self, data: bytes, *, at_ns: int) -> None:
        """Let a message arrive at `at_ns`."""
        self._at(at_ns, lambda: self.band.hear(Heard(at_ns, 0, data), now_ns=self.now_ns))

    def play_notes(self, notes: Iterable[Note], *, from_ns: int) -> None:
        """Let `notes` be played, their ticks counted from `from_ns` in the pulse's tempo."""
        ns_per_tick = 60e9 / (self.pulse.bpm * 960)
        for note in notes:
            on_ns = from_ns + round(note.start_tick * ns_per_tick)
            off_ns = from_ns + round(note.end_tick * ns_per_tick)
            self.play(bytes((0x90, note.pitch, note.velocity)), at_ns=on_ns)
            self.play(bytes((0x80, note.pitch, 0)), at_ns=off_ns)

    def run(self, *, until_ns: int) -> None:
        """Turn the clock to `until_ns`, doing everything on the way in order."""
        wake_ns = self.band.advance(now_ns=self.now_ns)
        while True:
            next_ns = min(wake_ns, self._agenda[0][0] if self._agenda else NEVER_NS)
            if next_ns > until_ns:
                break
            self.now_ns = max(self.now_ns, next_ns)
            while self._agenda and self._agenda[0][0] <= self.now_ns:
                heapq.heappop(self._agenda)[2]()
            self._release()
            wake_ns = max(self.band.advance(now_ns=self.now_ns), self.now_ns + 1)
        self.now_ns = until_ns
        self._release()

    def _at(self, at_ns: int, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (at_ns, self._count, do))

    def _submit(self, job: Callable[[], T], *, deadline_ns: int, then: Callable[[T, int], None]) -> None:
        result = job()
        self._at(self.now_ns + self.job_ns, lambda: then(result, self.now_ns))

    def _send(self, *, plan: int, replaces_from_ns: int, dues: tuple[Due, ...]) -> None:
        self._release()
        self.sent.append((self.now_ns, plan, replaces_from_ns))
        for note in [n for n, d in self._dues.items() if n not in self._begun and d[0].at_ns >= replaces_from_ns]:
            del self._dues[note]
        for due in dues:
            self._dues.setdefault(due.note, []).append(due)

    def _end(self, *, at_ns: int) -> None:
        self._release()
        self.ended.append(at_ns)
        for note, dues in list(self._dues.items()):
            if note in self._begun:
                self.released.append(Due(max(at_ns, self.now_ns), dues[-1].data, note))
            del self._dues[note]

    def _release(self) -> None:
        now = [due for dues in self._dues.values() for due in dues if due.at_ns <= self.now_ns]
        for due in sorted(now, key=lambda due: (due.at_ns, due.data[0])):
            self.released.append(due)
            self._begun.add(due.note)
            self._dues[due.note].remove(due)
            if not self._dues[due.note]:
                del self._dues[due.note]
