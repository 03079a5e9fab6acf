"""The composition root: from a configuration to a running box, started in order and stopped in reverse.

One asyncio loop owns all session state; the worker thread owns the model; the ports process owns the MIDI ports. If
one of them dies the daemon stops: a half-alive instrument is worse than a silent one, and systemd starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from antiphon.config.sections import Config
from antiphon.config.sections import Player as PlayerSettings
from antiphon.engine.sampling import Sampling
from antiphon.engine.worker import Worker
from antiphon.errors import PortError
from antiphon.library.bundled import model_path
from antiphon.music.events import Due, Heard
from antiphon.music.meter import Meter
from antiphon.ports.line import Line
from antiphon.ports.messages import Down, Dropped, End, Fault, FromPorts, Panic, Plan, Released, Up, Waiting, Want
from antiphon.session.band import Band, Channel, Seat
from antiphon.session.copilot import NEVER_NS, Answered, Copilot, Phase
from antiphon.session.journal import Journal
from antiphon.session.leaning import Likeness
from antiphon.session.metronome import Click, Metronome
from antiphon.session.policy import Policy
from antiphon.session.pulse import ClockPulse, InternalPulse
from antiphon.session.tree import Tree
from antiphon.session.voice import Voice
from antiphon.tokens.grammar import Bounds

log = logging.getLogger(__name__)

T = TypeVar("T")

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Wiring:
    """The numbers by which the ports process knows our ports: two a player, then the clock's and the click's."""

    players: int

    def input(self, player: int) -> int:
        return 2 * player

    def output(self, player: int) -> int:
        return 2 * player + 1

    @property
    def clock_input(self) -> int:
        return 2 * self.players

    @property
    def clock_output(self) -> int:
        return 2 * self.players + 1

    @property
    def click_output(self) -> int:
        return 2 * self.players + 2


def wants(config: Config, players: tuple[PlayerSettings, ...]) -> tuple[Want, ...]:
    """The ports that `config` asks for."""
    wiring = Wiring(len(players))
    asked: list[Want] = []
    for index, player in enumerate(players):
        same = player.output == "same"
        asked.append(Want(port=wiring.input(index), direction="in", pattern=player.input, same_as=None))
        asked.append(
            Want(
                port=wiring.output(index),
                direction="out",
                pattern="*" if same else player.output,
                same_as=wiring.input(index) if same else None,
            )
        )
    if config.clock.source == "midi":
        asked.append(Want(port=wiring.clock_input, direction="in", pattern=config.clock.input, same_as=None))
    if config.clock.output:
        asked.append(Want(port=wiring.clock_output, direction="out", pattern=config.clock.output, same_as=None))
    if config.click.output:
        asked.append(Want(port=wiring.click_output, direction="out", pattern=config.click.output, same_as=None))
    return tuple(asked)


def policy_of(player: PlayerSettings) -> Policy:
    """How the settings of `player` have it answered."""
    sampling = player.sampling
    return Policy(
        listen_bars=player.listen_bars,
        answer_bars=player.answer_bars,
        commit_ms=player.commit_ms,
        ahead_ms=max(0, player.output_latency_ms),
        yield_after_beats=player.yield_after_beats,
        pickup_beats=player.pickup_beats,
        remember_answers=player.remember == "both",
        sampling=Sampling(
            temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=sampling.min_p
        ),
        bounds=Bounds(
            lowest=player.limits.lowest,
            highest=player.limits.highest,
            max_notes_at_once=player.limits.max_notes_at_once,
        ),
        likeness=Likeness(
            key=player.likeness.key,
            register=player.likeness.register,
            density=player.likeness.density,
            dynamics=player.likeness.dynamics,
            motifs=player.likeness.motifs,
        ),
        closes=player.limits.end_on_strong_beat,
        copies=player.limits.copy_bars,
        seed=sampling.seed,
    )


class App:
    """A running box. `async with App(config) as app: await app.ended` from ready to stopped.

    Entering starts the ports process and loads the model, and returns when both are up: the box is ready.
    """

    def __init__(self, config: Config, *, journal: Journal | None = None) -> None:
        self._config = config
        self._players = tuple(player for player in config.players if player.enabled)
        self._wiring = Wiring(len(self._players))
        self._journal = journal
        self._stack = contextlib.AsyncExitStack()
        self._wake: asyncio.TimerHandle | None = None
        self._stopping = False

    async def __aenter__(self) -> App:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.set_exception_handler(self._on_stray)
        async with contextlib.AsyncExitStack() as stack:
            # The ports process first: it must not inherit what a loaded model leaves in its parent.
            midi = self._config.midi
            self._line = await Line.start(
                api=midi.api,
                wants=wants(self._config, self._players),
                late_ms=midi.late_ms,
                loopback_path=midi.loopback_path or None,
                on_message=self._hear,
                on_death=self._fail,
            )
            stack.push_async_callback(self._line.stop)
            voices = stack.enter_context(contextlib.ExitStack())  # let go of when nothing runs on them any more
            self._worker = stack.enter_context(Worker(name="model"))
            path = model_path(self._config.model.path)
            voice = await self._worker.run(lambda: Voice.open(path))
            voices.callback(voice.model.close)
            self._band = self._seat(voice)
            stack.callback(self._stop_band)
            self._start_clock()
            # What is loaded stays: the collector need not look at it again, and a full collection stalls the loop.
            gc.collect()
            gc.freeze()
            self._stack = stack.pop_all()
        self._line.open()
        self._advance()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # Building

    def _seat(self, voice: Voice) -> Band:
        clock = self._config.clock
        meter = Meter.parse(clock.meter)
        voice.vocabulary.meter_id(meter)  # a meter that the model does not know is said now, not at the first answer
        pulse: InternalPulse | ClockPulse = (
            InternalPulse(clock.bpm, meter) if clock.source == "internal" else ClockPulse(meter)
        )
        seats = [self._seat_player(index, pulse, voice) for index in range(len(self._players))]
        click = self._config.click
        metronome = Metronome(
            pulse=pulse,
            click=Click(click.channel - 1, click.accent, click.beat, click.velocity, click.during),
            send_click=self._appender(self._wiring.click_output) if click.output else None,
            send_clock=self._appender(self._wiring.clock_output) if clock.output else None,
            answering=lambda: self._band.answering,
        )
        return Band(
            pulse,
            seats,
            metronome,
            start_on_note=clock.start == "first_note",
            clock_port=self._wiring.clock_input if clock.source == "midi" else None,
        )

    def _seat_player(self, index: int, pulse: InternalPulse | ClockPulse, voice: Voice) -> Seat:
        player = self._players[index]
        channel = Channel(None if player.channel == 0 else player.channel - 1)
        output = self._wiring.output(index)
        early_ns = player.output_latency_ms * _MS

        def send(*, plan: int, replaces_from_ns: int, dues: tuple[Due, ...]) -> None:
            if early_ns:
                dues = tuple(Due(due.at_ns - early_ns, due.data, due.note) for due in dues)
                replaces_from_ns = replaces_from_ns - (early_ns if replaces_from_ns < NEVER_NS else 0)
            self._note("plan", player=player.name, plan=plan, replaces_from_ns=replaces_from_ns, dues=len(dues))
            self._line.send(Plan(port=output, lane=index, plan=plan, replaces_from_ns=replaces_from_ns, dues=dues))

        def end(*, at_ns: int) -> None:
            self._line.send(End(port=output, lane=index, at_ns=at_ns))

        trunk = voice.timeline()
        copilot = Copilot(
            name=player.name,
            policy=policy_of(player),
            pulse=pulse,
            vocabulary=voice.vocabulary,
            tree=Tree(trunk=trunk, branch=trunk.fork(), vocabulary=voice.vocabulary),
            submit=self._submit,
            send=send,
            end=end,
            channel=channel,
            on_answer=lambda answered: self._on_answer(player.name, answered),
            on_phase=lambda phase, tick: self._on_phase(player.name, phase, tick),
        )

        def panic() -> None:
            self._line.send(Panic(port=output))

        return Seat(copilot, self._wiring.input(index), channel, panic, player.input_latency_ms * _MS)

    def _appender(self, port: int) -> Callable[[tuple[Due, ...]], None]:
        def send(dues: tuple[Due, ...]) -> None:
            if dues:
                self._line.send(Plan(port=port, lane=port, plan=0, replaces_from_ns=NEVER_NS, dues=dues))

        return send

    def _start_clock(self) -> None:
        clock, pulse = self._config.clock, self._band.pulse
        if isinstance(pulse, InternalPulse) and clock.start == "immediately":
            count_in_ns = pulse.ns_at(clock.count_in_bars * pulse.meter.len_ticks)
            pulse.start(at_ns=time.monotonic_ns() + count_in_ns)

    # Running

    def _hear(self, message: FromPorts) -> None:
        match message:
            case Heard():
                self._note("heard", at_ns=message.at_ns, port=message.port, data=message.data)
                if not self._stopping:
                    self._band.hear(message, now_ns=time.monotonic_ns())
                    self._advance()
            case Released():
                self._note(
                    "released",
                    port=message.port,
                    lane=message.lane,
                    note=message.note,
                    due_ns=message.due_ns,
                    at_ns=message.at_ns,
                    data=message.data,
                )
            case Dropped():
                log.warning("a note came %.1f ms late and was dropped", (message.at_ns - message.due_ns) / _MS)
                self._note("dropped", lane=message.lane, note=message.note, due_ns=message.due_ns, at_ns=message.at_ns)
            case Up():
                log.info("%s port %r is connected to %s", message.direction, message.name, self._role(message.port))
                self._note("up", port=message.port, direction=message.direction, name=message.name)
            case Down():
                log.info("%s port %r has gone", message.direction, message.name)
                if message.direction == "in" and not self._stopping:
                    self._band.unplug(message.port, now_ns=time.monotonic_ns())
                self._note("down", port=message.port, direction=message.direction, name=message.name)
            case Waiting():
                log.info("waiting for a port like %r for %s", message.pattern, self._role(message.port))
                self._note("waiting", port=message.port, pattern=message.pattern)
            case Fault():
                log.warning("%s", message.text)

    def _role(self, port: int) -> str:
        if port < self._wiring.clock_input:
            return f"player {self._players[port // 2].name!r}"
        return "the click" if port == self._wiring.click_output else "the clock"

    def _submit(self, job: Callable[[], T], *, deadline_ns: int, then: Callable[[T, int], None]) -> None:
        def finished(future: Future[T]) -> None:
            if not future.cancelled():
                # A closed loop means that the daemon is stopping, and nobody waits for this any more.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(deliver, future)

        def deliver(future: Future[T]) -> None:
            error = future.exception()
            if error is not None:
                self._fail(error)
                return
            if self._stopping:
                return
            then(future.result(), time.monotonic_ns())
            self._advance()

        self._worker.submit(job, deadline_ns=deadline_ns).add_done_callback(finished)

    def _advance(self) -> None:
        """Let the band do what is due, and see to it that it is asked again in time."""
        now_ns = time.monotonic_ns()
        wake_ns = self._band.advance(now_ns=now_ns)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if wake_ns < NEVER_NS:
            self._wake = self._loop.call_later(max(0.0, (wake_ns - now_ns) / 1e9), self._advance)

    def _on_answer(self, player: str, answered: Answered) -> None:
        late = [round((o.at_ns - answered.line_ns) / _MS, 1) for o in answered.onsets[answered.used :]]
        log.info(
            "%s: answer %d from bar %d: %d notes, planned %d times, first sent %.0f ms before the bar line; "
            "its first onset knew %d of %d onsets heard%s%s",
            player,
            answered.number,
            answered.line.number + 1,
            answered.notes,
            answered.plans,
            (answered.line_ns - answered.sent_ns) / _MS,
            answered.used,
            len(answered.onsets),
            f", not those at {late} ms" if late else "",
            "; the player came back in" if answered.yielded else "",
        )
        self._note(
            "answer",
            player=player,
            number=answered.number,
            bar=answered.line.number,
            line_ns=answered.line_ns,
            first_ns=answered.first_ns,
            sent_ns=answered.sent_ns,
            plans=answered.plans,
            notes=answered.notes,
            used=answered.used,
            onsets_ns=[onset.at_ns for onset in answered.onsets],
            yielded=answered.yielded,
            trunk_count=answered.trunk_count,
            tokens=answered.tokens,
            spent_ns=answered.spent_ns,
        )

    def _on_phase(self, player: str, phase: Phase, tick: int) -> None:
        pulse = self._band.pulse
        at_ns = pulse.ns_at(tick) if pulse.running else 0
        self._note("phase", player=player, phase=phase.value, tick=tick, at_ns=at_ns, bpm=pulse.bpm)

    def _note(self, kind: str, **fields: object) -> None:
        if self._journal is not None:
            self._journal.write(kind, **fields)

    # Stopping

    def _on_stray(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback of the loop: nobody awaits it, but half a box is worse than none."""
        error = context.get("exception")
        log.error("%s", context.get("message"), exc_info=error)
        if isinstance(error, BaseException):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(error if isinstance(error, Exception) else PortError(str(error)))

    def finish(self) -> None:
        """Let `ended` come to its end: somebody asked us to stop."""
        if not self.ended.done():
            self.ended.set_result(None)

    def panic(self) -> None:
        """Silence every output, and forget what was being answered."""
        self._band.panic(now_ns=time.monotonic_ns())

    def _stop_band(self) -> None:
        self._stopping = True
        if self._wake is not None:
            self._wake.cancel()
        self._band.stop(now_ns=time.monotonic_ns())


async def listen(config: Config, *, journal: Path | None, on_ready: Callable[[App], None]) -> None:
    """Run a box until `App.finish` is called or something of it dies. Raises what it died of."""
    with contextlib.ExitStack() as stack:
        book = stack.enter_context(Journal(journal)) if journal is not None else None
        async with App(config, journal=book) as app:
            on_ready(app)
            await app.ended
