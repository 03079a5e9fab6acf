"""An answer keeps to its call and ends, and does so live as it does offline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.music.meter import BarLine, Meter, MeterMap
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.music.time import TICKS_PER_STEP
from antiphon.session.answer import Ask
from antiphon.session.leaning import Likeness
from antiphon.session.offline import Continuation, continue_piece
from antiphon.session.policy import Policy
from antiphon.session.pulse import InternalPulse
from antiphon.session.voice import Voice
from antiphon.tokens.grammar import Bounds
from antiphon.tokens.vocabulary import Vocabulary
from tests.session.stage import Stage

S = 1_000_000_000
BEAT = 960
BAR = 4 * BEAT
FREE = Likeness.of(0)
SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
# Two bars of a scale of C major in eighths, up and down; the last beat of each is a rest.
CALL = [Note(bar * BAR + i * 480, SCALE[:: 1 - 2 * bar][i], 440, 80) for bar in (0, 1) for i in range(6)]


def piece(notes: list[Note], *, bars: int) -> Piece:
    return Piece(tuple(notes), MeterMap((BarLine(0, 0, Meter(4, 4)),)), TempoMap(((0, 120.0),)), bars * BAR)


def answers(model: LoadedModel, ask: Ask, *, seeds: int = 30) -> list[Continuation]:
    voice = Voice(model, Vocabulary())
    call = piece(CALL, bars=2)
    return [continue_piece(call, voice=voice, ask=replace(ask, seed=seed), context_bars=4) for seed in range(seeds)]


def onset_sets(notes: tuple[Note, ...] | list[Note], *, first_tick: int, bars: int) -> list[set[tuple[int, int]]]:
    return [
        {(n.start_tick - start, n.pitch) for n in notes if start <= n.start_tick < start + BAR}
        for start in range(first_tick, first_tick + bars * BAR, BAR)
    ]


@pytest.mark.parametrize("seed", [3, 8])
def test_a_live_answer_is_the_offline_answer_to_the_same_call(model: LoadedModel, seed: int) -> None:
    policy = Policy(listen_bars=2, answer_bars=2, seed=seed)
    on = Stage(model=model, policy=policy, pulse=InternalPulse(120.0, Meter(4, 4)))
    on.play_notes(CALL, from_ns=2 * S)
    on.run(until_ns=2 * S + 8 * S + 1)
    ask = Ask(Meter(4, 4), 2, seed=int(np.random.default_rng(seed).integers(2**63)))  # a session's first
    offline = continue_piece(piece(CALL, bars=2), voice=Voice(model, Vocabulary()), ask=ask, context_bars=64)
    begun = [due for due in on.released if due.data[0] & 0xF0 == 0x90]
    live = [(round((due.at_ns - 2 * S) / S * 2 * BEAT), due.data[1], due.data[2]) for due in begun]
    assert sorted(live) == sorted((n.start_tick, n.pitch, n.velocity) for n in offline.notes)


def test_the_players_bars_alone_are_answered_and_not_the_answers(model: LoadedModel) -> None:
    policy = Policy(listen_bars=2, answer_bars=2, seed=1)
    on = Stage(model=model, policy=policy, pulse=InternalPulse(120.0, Meter(4, 4)))
    again = [replace(note, start_tick=note.start_tick + 4 * BAR) for note in CALL]
    on.play_notes([*CALL, *again], from_ns=2 * S)
    on.run(until_ns=2 * S + 12 * S)
    heard = on.copilot._trunk.heard(at_tick=6 * BAR, sounding=())
    pitches = [[note.pitch for note in bar.notes] for bar in heard]
    assert pitches == [list(SCALE[:6]), list(SCALE[:1:-1])] * 2


def test_likeness_brings_an_answer_nearer_to_its_call(model: LoadedModel) -> None:
    def foreign_and_far(likeness: Likeness) -> tuple[float, float, float]:
        notes = [n for a in answers(model, Ask(Meter(4, 4), 2, likeness=likeness)) for n in a.notes]
        foreign = np.mean([n.pitch % 12 in (1, 3, 6, 8, 10) for n in notes])
        far = np.mean([not 58 <= n.pitch <= 74 for n in notes])
        louder = np.mean([not 70 <= n.velocity <= 90 for n in notes])
        return float(foreign), float(far), float(louder)

    free, near = foreign_and_far(FREE), foreign_and_far(Likeness())
    nearer = foreign_and_far(Likeness(key=3, register=3, dynamics=3))
    for one, two, three in zip(free, near, nearer, strict=True):
        assert one > two > three


def test_density_follows_the_call(model: LoadedModel) -> None:
    def notes(density: float) -> float:
        made = answers(model, Ask(Meter(4, 4), 4, closes=False, likeness=replace(FREE, density=density)))
        return float(np.mean([abs(np.log(len(a.notes) / 24)) for a in made]))

    assert notes(2.0) < notes(0.0)


def test_the_last_onset_is_on_a_strong_beat_of_the_last_bar_unless_it_may_be_anywhere(model: LoadedModel) -> None:
    def last_steps(closes: bool) -> set[int]:
        made = answers(model, Ask(Meter(4, 4), 2, closes=closes))
        return {(max(n.start_tick for n in a.notes) - a.line.tick) // TICKS_PER_STEP - 48 for a in made}

    assert last_steps(True) <= {0, 24}
    assert not last_steps(False) <= {0, 24}


def test_no_bar_of_the_call_comes_again_unless_it_may(model: LoadedModel) -> None:
    long_notes = piece([Note(0, 60, BAR, 80), Note(BAR, 61, BAR, 80)], bars=2)
    heard = onset_sets(list(long_notes.notes), first_tick=0, bars=2)
    ask = Ask(Meter(4, 4), 2, bounds=Bounds(lowest=60, highest=61, max_notes_at_once=2), likeness=FREE)
    voice = Voice(model, Vocabulary())

    def copied(copies: bool) -> int:
        asks = [replace(ask, copies=copies, seed=seed) for seed in range(40)]
        made = [continue_piece(long_notes, voice=voice, ask=each, context_bars=4) for each in asks]
        return sum(bar in heard for a in made for bar in onset_sets(a.notes, first_tick=2 * BAR, bars=2))

    assert copied(True) > 0
    assert copied(False) == 0
