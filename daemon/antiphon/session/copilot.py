"""The co-pilot of one player: it hears a call, keeps the trunk, and answers on the bar line.

It lives on the event loop and is told the time; the model's work goes to the worker as jobs on a `Tree`.

An answer's life:
  waiting    nobody plays. The first onset begins a call.
  hearing    the call's bars go by; the trunk settles behind them. From a beat before the answer's bar line the branch
             is forked, fed what the trunk still lacks, and the answer's first beat is written and sent, dated.
             Each later note does that again and supersedes what is not frozen.
  answering  the rest is written well ahead and sent; the player coming back in ends it.
"""

from __future__ import annotations

import enum
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from antiphon.music.bar import BarNote
from antiphon.music.events import Due, Heard
from antiphon.music.keyboard import Keyboard
from antiphon.music.meter import BarLine
from antiphon.music.note import Note
from antiphon.music.time import TICKS_PER_STEP, snap_to_step
from antiphon.session.answer import Answer, Ask
from antiphon.session.policy import Policy
from antiphon.session.pulse import Pulse, bar, bar_at
from antiphon.session.tree import Settled, Tree, Written
from antiphon.session.trunk import Trunk
from antiphon.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)

T = TypeVar("T")

NEVER_NS = 2**63 - 1
_SLICE_TOKENS = 16  # some 5 ms of the worker, so that another player's job need not wait longer
_HORIZON_NS = 1_500_000_000  # how far ahead of the music the rest of an answer is written
_PLAN_NS = 100_000_000  # what a first plan is given beyond what the policy freezes
_HANDOVER_NS = 5_000_000  # a message due this soon may be on its way out already
_FEED_WITHIN_NS = 500_000_000  # settled ids are not urgent: a fork brings what it needs along


class Submit(Protocol):
    """Runs `job` on the worker by `deadline_ns`, then calls `then(result, now_ns)` on the event loop."""

    def __call__(self, job: Callable[[], T], *, deadline_ns: int, then: Callable[[T, int], None]) -> None: ...


class Send(Protocol):
    """Sends dated messages: they take the place of unreleased onsets dated `replaces_from_ns` or later."""

    def __call__(self, *, plan: int, replaces_from_ns: int, dues: tuple[Due, ...]) -> None: ...


class End(Protocol):
    """Drops the answer's onsets to come and ends its sounding notes at `at_ns`."""

    def __call__(self, *, at_ns: int) -> None: ...


class Phase(enum.Enum):
    """Where a co-pilot stands in its conversation."""

    WAITING = "waiting"
    HEARING = "hearing"
    ANSWERING = "answering"


@dataclass(frozen=True, slots=True)
class Onset:
    """A note-on of the player's: where it is on the pulse, and its stamp."""

    tick: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Answered:
    """How an answer came about, for the log, the journal and the tests.

    line: its first bar line; line_ns: when that sounds. onsets: those of the call, before the line; used: how many of
    them, from the first on, had shaped the first onset. plans: how often it was planned. sent_ns: when its first
    onset was first sent. first_ns: when that is due; 0 for an answer without notes. trunk_count: ids on the trunk.
    """

    number: int
    line: BarLine
    line_ns: int
    onsets: tuple[Onset, ...]
    used: int
    plans: int
    sent_ns: int
    first_ns: int
    notes: int
    yielded: bool
    trunk_count: int
    tokens: int
    spent_ns: int


@dataclass(slots=True)
class _Branch:
    """An answer as the event loop sees it: what was planned, sent and frozen. `answer` belongs to the worker."""

    number: int
    line: BarLine
    end_tick: int
    line_ns: int
    seed: int
    answer: Answer | None = None
    plan: int = 0  # the number of the newest plan; 0 before the first
    plans: int = 0
    notes: list[BarNote] = field(default_factory=list)  # as sent, steps from `line`
    until_step: int = 0  # every onset before it is written
    wanted_step: int = 0  # and is to be, now
    writing: bool = False  # a job is on its way
    dirty: bool = True  # something was heard that the newest plan does not know
    done: bool = False
    used: int = 0
    sent_ns: int = 0
    tokens: int = 0
    spent_ns: int = 0


class Copilot:
    """Answers one player. Tell it what is heard, and call `advance` when the time it asked for has come.

    channel: the MIDI channel (0..15) to answer on, asked for at each plan. on_answer: told of each answer when it is
    over. on_phase: told of each change of phase, with its tick.
    """

    def __init__(
        self,
        *,
        name: str,
        policy: Policy,
        pulse: Pulse,
        vocabulary: Vocabulary,
        tree: Tree,
        submit: Submit,
        send: Send,
        end: End,
        channel: Callable[[], int],
        on_answer: Callable[[Answered], None],
        on_phase: Callable[[Phase, int], None],
    ) -> None:
        self.name = name
        self.policy = policy
        self.pulse = pulse
        self.phase = Phase.WAITING
        self._vocabulary = vocabulary
        self._tree = tree
        self._submit = submit
        self._send = send
        self._end = end
        self._channel = channel
        self._on_answer = on_answer
        self._on_phase = on_phase
        self._numbers = itertools.count(1)
        self._plans = itertools.count(1)
        self._identities = itertools.count(1)
        self._seeds = np.random.default_rng(policy.seed)
        self._resets = 0
        self._keyboard = Keyboard()
        self._reset()

    def _reset(self) -> None:
        """Begin a new conversation."""
        self._resets += 1
        self._pulse_take = self.pulse.takes
        self._keyboard.forget_notes()
        self._heard_tick = 0
        self._trunk = Trunk(self._vocabulary)
        self._unfed: list[int] = []  # settled ids that the worker has not yet said it fed
        self._unfed_from = 0  # how many settled ids came before those
        self._last_opened = -(2**62)  # the number of the last bar opened on the trunk
        self._call: BarLine | None = None  # the first of the call's bars
        self._onsets: list[Onset] = []  # those since the call began
        self._branch: _Branch | None = None
        tree, take = self._tree, self._resets
        self._submit(lambda: tree.reset(take), deadline_ns=0, then=lambda _none, _now_ns: None)

    # What it is told

    def hear(self, heard: Heard, *, now_ns: int) -> None:
        """Take one channel message of the player's. Without a beat an onset cannot be placed, and is lost."""
        is_onset = len(heard.data) == 3 and heard.data[0] & 0xF0 == 0x90 and heard.data[2] > 0
        if not self.pulse.running:
            if not is_onset:  # keys and pedals move on without a beat
                self._trunk.add(self._keyboard.hear(heard.data, at_tick=self._heard_tick))
            return
        self._follow_take(now_ns=now_ns)
        tick = self._heard_tick = self.pulse.tick_at(heard.at_ns)
        ended = self._keyboard.hear(heard.data, at_tick=tick)
        self._trunk.add(ended)
        if is_onset:
            self._hear_onset(Onset(tick, heard.at_ns), now_ns=now_ns)
        if self._branch is not None and (is_onset or ended) and heard.at_ns < self._branch.line_ns:
            self._branch.dirty = True

    def advance(self, *, now_ns: int) -> int:
        """Do what is due by now; gives when it wants to be called again, `NEVER_NS` where only a note can wake it."""
        if not self.pulse.running:
            if self.phase is not Phase.WAITING:
                self.stop(now_ns=now_ns)
            return NEVER_NS
        self._follow_take(now_ns=now_ns)
        now_tick = self.pulse.tick_at(now_ns)
        if self.phase is Phase.HEARING:
            self._open_bars(now_tick)
        self._settle(now_tick, now_ns=now_ns)
        if self.phase is Phase.HEARING:
            self._prepare(now_tick, now_ns=now_ns)
        if self.phase is Phase.ANSWERING:
            self._go_on(now_tick, now_ns=now_ns)
        return self._next_ns(now_tick)

    def stop(self, *, now_ns: int) -> None:
        """End what sounds and forget the conversation."""
        if self._branch is not None:
            self._end(at_ns=now_ns)
        self._enter(Phase.WAITING, 0)
        self._reset()

    def _follow_take(self, *, now_ns: int) -> None:
        if self.pulse.takes != self._pulse_take:
            self.stop(now_ns=now_ns)

    # Hearing a call

    def _hear_onset(self, onset: Onset, *, now_ns: int) -> None:
        branch = self._branch
        if self.phase is Phase.ANSWERING and branch is not None:
            came_back = onset.tick - branch.line.tick >= self.policy.yield_after_ticks(branch.line.meter)
            leads_on = self.policy.is_pickup(onset.tick, bar_end_tick=branch.end_tick, meter=branch.line.meter)
            if came_back and not leads_on:
                self._yield(onset.tick, now_ns=now_ns)
        if self.phase is Phase.WAITING:
            self._begin_call(onset.tick)
        self._onsets.append(onset)

    def _begin_call(self, tick: int) -> None:
        line = bar_at(self.pulse, snap_to_step(tick) * TICKS_PER_STEP)
        if tick > line.tick and self.policy.is_pickup(tick, bar_end_tick=line.end_tick, meter=line.meter):
            self._open(line)
            line = bar(self.pulse, line.number + 1)
        self._call = line
        self._onsets = []
        self._enter(Phase.HEARING, line.tick)

    def _answer_line(self) -> BarLine:
        assert self._call is not None
        return bar(self.pulse, self._call.number + self.policy.listen_bars)

    def _open_bars(self, now_tick: int) -> None:
        """Open the call's bars that have begun; one counts as begun when an onset may already snap to its line."""
        assert self._call is not None
        answer_line = self._answer_line()
        line = self._call
        while line.number < answer_line.number and line.tick <= now_tick + TICKS_PER_STEP:
            self._open(line)
            line = bar(self.pulse, line.number + 1)

    def _open(self, line: BarLine) -> None:
        if line.number > self._last_opened:
            self._last_opened = line.number
            # An answer's bars are opened when it is over, and before its phase is.
            self._trunk.open_bar(line, bpm=self.pulse.bpm, played=self.phase is not Phase.ANSWERING)

    def _settle(self, now_tick: int, *, now_ns: int) -> None:
        self._trunk.settle(now_tick=now_tick, sounding=self._keyboard.sounding)
        ids = self._trunk.take()
        if not ids:
            return
        self._unfed += ids
        tree, settled = self._tree, self._settled()

        def then(count: int, _now_ns: int) -> None:
            if settled.take == self._resets:
                self._note_fed(count)

        deadline_ns = now_ns + _FEED_WITHIN_NS
        if self._branch is not None and self._branch.writing:  # a fork of an earlier trunk waits: it must come first
            deadline_ns = max(deadline_ns, self._branch.line_ns)
        self._submit(lambda: tree.feed(settled), deadline_ns=deadline_ns, then=then)

    def _settled(self) -> Settled:
        return Settled(self._resets, self._unfed_from, tuple(self._unfed))

    def _note_fed(self, count: int) -> None:
        fed = count - self._unfed_from
        if fed > 0:
            del self._unfed[:fed]
            self._unfed_from = count

    # Answering early

    def _prepare(self, now_tick: int, *, now_ns: int) -> None:
        line = self._answer_line()
        if self._branch is None and now_tick >= self._lead_tick(line):
            self._branch = _Branch(
                number=next(self._numbers),
                line=line,
                end_tick=line.tick + self.policy.answer_bars * line.meter.len_ticks,
                line_ns=self.pulse.ns_at(line.tick),
                seed=int(self._seeds.integers(2**63)),
            )
        branch = self._branch
        if branch is None or branch.writing:
            return
        if branch.dirty:
            self._plan(branch, now_ns=now_ns)
        elif branch.until_step < branch.wanted_step and not branch.done:
            self._write_on(branch)
        elif now_tick >= line.tick:
            self._enter(Phase.ANSWERING, line.tick)

    def _lead_tick(self, line: BarLine) -> int:
        """Where the answer at `line` is first planned: a beat before, or sooner where a beat leaves too little time."""
        in_time_ns = self.pulse.ns_at(line.tick) - self.policy.commit_ns - _PLAN_NS
        return min(line.tick - line.meter.beat_ticks, self.pulse.tick_at(in_time_ns))

    def _plan(self, branch: _Branch, *, now_ns: int) -> None:
        """Fork at the bar line with all that was heard, and write the first beat anew around what is frozen."""
        branch.line_ns = self.pulse.ns_at(branch.line.tick)
        frozen_ns = self.policy.commit_ns if branch.plans else self.policy.ahead_ns  # a first plan finds none to keep
        held_back = self._first_step_from(branch, now_ns + frozen_ns)
        given = [note for note in branch.notes if note.step < held_back]
        used = self._heard_before(branch)
        if held_back and not branch.plans:
            log.warning("%s: answer %d comes late, from step %d on", self.name, branch.number, held_back)
        tree, settled = self._tree, self._settled()
        rest = self._trunk.rest(at_tick=branch.line.tick, sounding=self._keyboard.sounding)
        ask = Ask(
            meter=branch.line.meter,
            bars=self.policy.answer_bars,
            bounds=self.policy.bounds,
            sampling=self.policy.sampling,
            seed=branch.seed,
            heard=self._trunk.heard(at_tick=branch.line.tick, sounding=self._keyboard.sounding),
            likeness=self.policy.likeness,
            closes=self.policy.closes,
            copies=self.policy.copies,
        )
        branch.wanted_step = held_back + branch.line.meter.beat_ticks // TICKS_PER_STEP

        def job() -> Written | None:
            return tree.begin(
                settled,
                rest=rest,
                ask=ask,
                given=given,
                held_back=held_back,
                until_step=branch.wanted_step,
                max_tokens=_SLICE_TOKENS,
            )

        def then(written: Written | None, now_ns: int) -> None:
            if self._branch is not branch or written is None:
                return
            self._note_fed(written.trunk_count)
            branch.answer = written.answer
            branch.plan = next(self._plans)
            # Where the model took longer than what was frozen, the plan before has sounded on: that stays.
            first = held_back
            if branch.plans:
                first = max(first, self._first_step_from(branch, now_ns + self.policy.ahead_ns + _HANDOVER_NS))
            branch.plans += 1
            branch.notes = [note for note in branch.notes if note.step < first]
            if first == 0:
                branch.used = used
            new = tuple(note for note in written.new if note.step >= first)
            written = replace(written, new=new)
            self._publish(branch, written, replaces_from_ns=self._step_ns(branch, first), now_ns=now_ns)

        branch.dirty, branch.writing = False, True
        self._submit(job, deadline_ns=branch.line_ns, then=then)

    def _write_on(self, branch: _Branch) -> None:
        tree, answer, until_step = self._tree, branch.answer, branch.wanted_step
        assert answer is not None

        def then(written: Written | None, now_ns: int) -> None:
            if self._branch is branch and written is not None:
                self._publish(branch, written, replaces_from_ns=NEVER_NS, now_ns=now_ns)

        branch.writing = True
        self._submit(
            lambda: tree.go_on(answer, until_step=until_step, max_tokens=_SLICE_TOKENS),
            deadline_ns=self._step_ns(branch, branch.until_step),
            then=then,
        )

    def _publish(self, branch: _Branch, written: Written, *, replaces_from_ns: int, now_ns: int) -> None:
        branch.writing = False
        branch.notes = [*branch.notes, *written.new]
        branch.until_step = written.until_step
        branch.done = written.done
        branch.tokens += written.tokens
        branch.spent_ns += written.spent_ns
        dues = self._dues(branch, written.new)
        if dues and not branch.sent_ns:
            branch.sent_ns = now_ns
        if dues or replaces_from_ns != NEVER_NS:
            self._send(plan=branch.plan, replaces_from_ns=replaces_from_ns, dues=dues)
        self.advance(now_ns=now_ns)

    def _dues(self, branch: _Branch, notes: Iterable[BarNote]) -> tuple[Due, ...]:
        channel = self._channel()
        dues: list[Due] = []
        for note in notes:
            identity = next(self._identities)
            on = bytes((0x90 | channel, note.pitch, note.velocity))
            off = bytes((0x80 | channel, note.pitch, 0))
            dues.append(Due(self._step_ns(branch, note.step), on, identity))
            dues.append(Due(self._step_ns(branch, note.step + note.len_steps), off, identity))
        return tuple(dues)

    def _heard_before(self, branch: _Branch) -> int:
        """How many onsets of the call lie before the answer's bar line, on the grid as the fork counts them."""
        line_step = branch.line.tick // TICKS_PER_STEP
        return sum(snap_to_step(onset.tick) < line_step for onset in self._onsets)

    def _step_ns(self, branch: _Branch, step: int) -> int:
        return self.pulse.ns_at(branch.line.tick + step * TICKS_PER_STEP)

    def _first_step_from(self, branch: _Branch, at_ns: int) -> int:
        """The first step of the answer that sounds at `at_ns` or later."""
        return max(0, -(-(self.pulse.tick_at(at_ns) - branch.line.tick) // TICKS_PER_STEP))

    # Going on with it

    def _go_on(self, now_tick: int, *, now_ns: int) -> None:
        branch = self._branch
        assert branch is not None
        if now_tick >= branch.end_tick:
            self._finish(branch)
            return
        if not branch.done and not branch.writing:
            ahead = (self.pulse.tick_at(now_ns + _HORIZON_NS) - branch.line.tick) // TICKS_PER_STEP + 1
            branch.wanted_step = max(branch.wanted_step, ahead)
            if branch.until_step < branch.wanted_step:
                self._write_on(branch)

    def _finish(self, branch: _Branch) -> None:
        self._report(branch, yielded=False)
        self._adopt(branch, bars=self.policy.answer_bars, notes=branch.notes)
        self._branch = None
        meter = branch.line.meter
        inside = [onset for onset in self._onsets if onset.tick >= branch.line.tick]
        early = [o for o in inside if self.policy.is_pickup(o.tick, bar_end_tick=branch.end_tick, meter=meter)]
        self._enter(Phase.WAITING, branch.end_tick)
        if early:  # an upbeat played into the answer's end, or its end and the next onset came together
            self._begin_call(max(branch.end_tick, early[0].tick))
            self._onsets = early

    def _yield(self, tick: int, *, now_ns: int) -> None:
        """The player came back in: fall silent, and let the conversation hold what did sound."""
        branch = self._branch
        assert branch is not None
        self._end(at_ns=now_ns)
        self._report(branch, yielded=True)
        here = (tick - branch.line.tick) // TICKS_PER_STEP
        sounded = [
            replace(note, len_steps=max(1, min(note.len_steps, here - note.step)))
            for note in branch.notes
            if note.step < here
        ]
        came_in = snap_to_step(tick) * TICKS_PER_STEP  # as the new call counts it, so that no bar falls between
        self._adopt(branch, bars=(came_in - branch.line.tick) // branch.line.meter.len_ticks, notes=sounded)
        self._branch = None
        self._enter(Phase.WAITING, tick)

    def _adopt(self, branch: _Branch, *, bars: int, notes: Iterable[BarNote]) -> None:
        """Let the conversation hold the answer's first `bars` bars, and `notes`."""
        if not self.policy.remember_answers:
            return
        for index in range(bars):
            self._open(bar(self.pulse, branch.line.number + index))
        start = branch.line.tick // TICKS_PER_STEP
        self._trunk.add(
            Note((start + n.step) * TICKS_PER_STEP, n.pitch, n.len_steps * TICKS_PER_STEP, n.velocity) for n in notes
        )

    def _report(self, branch: _Branch, *, yielded: bool) -> None:
        self._on_answer(
            Answered(
                number=branch.number,
                line=branch.line,
                line_ns=branch.line_ns,
                onsets=tuple(o for o in self._onsets if o.at_ns < branch.line_ns),
                used=branch.used,
                plans=branch.plans,
                sent_ns=branch.sent_ns,
                first_ns=self._step_ns(branch, branch.notes[0].step) if branch.notes else 0,
                notes=len(branch.notes),
                yielded=yielded,
                trunk_count=self._trunk.count,
                tokens=branch.tokens,
                spent_ns=branch.spent_ns,
            )
        )

    # When to be called again

    def _next_ns(self, now_tick: int) -> int:
        if self.phase is Phase.WAITING:
            return NEVER_NS
        if self.phase is Phase.HEARING:
            line = self._answer_line()
            moments = (self._lead_tick(line), line.tick, bar_at(self.pulse, now_tick).end_tick)
            return self.pulse.ns_at(
                min((tick for tick in moments if tick > now_tick), default=now_tick + TICKS_PER_STEP)
            )
        branch = self._branch
        assert branch is not None
        return self.pulse.ns_at(min(branch.end_tick, now_tick + branch.line.meter.beat_ticks))

    def _enter(self, phase: Phase, tick: int) -> None:
        if phase is not self.phase:
            self.phase = phase
            self._on_phase(phase, tick)
