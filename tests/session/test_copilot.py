"""The co-pilot on a clock turned by hand: answers on the bar line, superseding, yielding, and a trunk that is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.music.meter import BarLine, Meter, MeterMap
from antiphon.music.normalise import bars_of
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.session.copilot import Phase
from antiphon.session.policy import Policy
from antiphon.session.pulse import InternalPulse
from antiphon.session.tree import Settled, Written
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import BOS, Vocabulary
from tests.session.stage import Stage

S = 1_000_000_000
BEAT = 960
ONE_BAR = Policy(listen_bars=1, answer_bars=1, seed=1)


def stage(model: LoadedModel, policy: Policy = ONE_BAR, *, bpm: float = 120.0, meter: str = "4/4") -> Stage:
    return Stage(model=model, policy=policy, pulse=InternalPulse(bpm, Meter.parse(meter)))


def quarters(bar: int, *, count: int = 4, pitch: int = 60, bar_ticks: int = 4 * BEAT) -> list[Note]:
    return [Note(bar * bar_ticks + i * BEAT, pitch + i, BEAT - 40, 80) for i in range(count)]


def onsets(on: Stage) -> list[int]:
    return [due.at_ns for due in on.released if due.data[0] & 0xF0 == 0x90]


def test_the_first_onset_is_due_exactly_on_the_next_bar_line(model: LoadedModel) -> None:
    on = stage(model)
    on.play_notes(quarters(0), from_ns=2 * S)
    on.run(until_ns=6 * S)
    assert onsets(on)[0] == 4 * S
    assert all(4 * S <= at_ns < 6 * S for at_ns in onsets(on))


@pytest.mark.parametrize(("meter", "bar_beats"), [("4/4", 4), ("3/4", 3), ("6/8", 3), ("2/2", 4), ("5/4", 5)])
def test_every_answer_of_a_long_exchange_begins_on_its_bar_line(model: LoadedModel, meter: str, bar_beats: int) -> None:
    on = stage(model, bpm=240.0, meter=meter)
    bar_ns = bar_beats * S // 4
    for exchange in range(10):
        on.play_notes(quarters(2 * exchange, count=bar_beats, bar_ticks=bar_beats * BEAT), from_ns=2 * S)
    on.run(until_ns=2 * S + 20 * bar_ns)
    firsts = [answer.first_ns for answer in on.answers]
    assert firsts == [2 * S + (2 * exchange + 1) * bar_ns for exchange in range(10)]
    assert set(firsts) <= set(onsets(on))


def test_every_note_on_that_sounds_has_one_note_off(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=2, seed=3))
    for bar in (0, 3):
        on.play_notes(quarters(bar), from_ns=2 * S)
    on.play_notes([Note(7 * 4 * BEAT + BEAT, 70, BEAT, 90)], from_ns=2 * S)  # comes back in during the second answer
    on.run(until_ns=30 * S)
    begun = [due.note for due in on.released if due.data[0] & 0xF0 == 0x90]
    ended = [due.note for due in on.released if due.data[0] & 0xF0 == 0x80]
    assert len(begun) > 4
    assert sorted(begun) == sorted(ended)


def test_a_note_before_the_bar_line_supersedes_the_plan_and_shapes_the_first_onset(model: LoadedModel) -> None:
    on = stage(model)
    late = Note(4 * BEAT - 240, 67, 120, 80)  # a sixteenth before the bar line: 125 ms
    on.play_notes([*quarters(0), late], from_ns=2 * S)
    on.run(until_ns=6 * S)
    (answer,) = on.answers
    assert answer.used == len(answer.onsets) == 5
    assert answer.plans > 1
    assert onsets(on)[0] == 4 * S


def test_a_note_inside_commit_ms_leaves_the_first_onset_alone_and_changes_what_follows(model: LoadedModel) -> None:
    def answered(*extra: Note) -> list[tuple[int, bytes]]:
        on = stage(model, Policy(listen_bars=1, answer_bars=1, seed=5, commit_ms=60))
        on.play_notes([*quarters(0), *extra], from_ns=2 * S)
        on.run(until_ns=6 * S)
        return [(due.at_ns, due.data) for due in on.released if due.data[0] & 0xF0 == 0x90]

    plain = answered()
    within = answered(Note(4 * BEAT - 60, 67, 30, 80))  # 31 ms before the bar line
    first = [note for note in plain if note[0] == 4 * S]
    assert [note for note in within if note[0] == 4 * S] == first
    assert within != plain


def test_the_log_of_an_answer_tells_which_onsets_its_first_onset_knew(model: LoadedModel) -> None:
    on = stage(model)
    on.play_notes([*quarters(0), Note(4 * BEAT - 60, 67, 30, 80)], from_ns=2 * S)
    on.run(until_ns=6 * S)
    (answer,) = on.answers
    committed = sum(onset.at_ns <= answer.line_ns - 60_000_000 for onset in answer.onsets)
    assert (len(answer.onsets), committed, answer.used) == (5, 4, 4)


def test_a_plan_goes_out_before_the_bar_line_even_when_the_model_is_slow(model: LoadedModel) -> None:
    on = Stage(model=model, policy=ONE_BAR, pulse=InternalPulse(240.0, Meter(4, 4)), job_ns=40_000_000)
    on.play_notes(quarters(0), from_ns=2 * S)
    on.run(until_ns=4 * S)
    (answer,) = on.answers
    assert answer.sent_ns < answer.line_ns == answer.first_ns


@pytest.mark.parametrize("commit_ms", [300, 600, 1000])
def test_freezing_early_costs_no_first_onset(model: LoadedModel, commit_ms: int) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=1, seed=1, commit_ms=commit_ms), bpm=240.0)
    on.play_notes(quarters(0), from_ns=2 * S)
    on.run(until_ns=4 * S)
    assert onsets(on)[0] == 3 * S


def test_a_beat_shorter_than_what_is_frozen_costs_no_first_onset(model: LoadedModel) -> None:
    on = stage(model, bpm=400.0, meter="5/16")
    on.play_notes(quarters(0, count=1), from_ns=2 * S)
    on.run(until_ns=3 * S)
    (answer, *_) = on.answers
    assert answer.first_ns == answer.line_ns


def test_what_goes_out_ahead_is_planned_and_frozen_ahead(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=1, seed=1, ahead_ms=300), bpm=240.0)
    on.play_notes([*quarters(0), Note(4 * BEAT - 800, 67, 100, 80)], from_ns=2 * S)  # 208 ms before the bar line
    on.run(until_ns=4 * S)
    replacing = [(now_ns, from_ns) for now_ns, _, from_ns in on.sent if from_ns < 2**62]
    assert replacing[0][1] == 3 * S
    assert all(from_ns - now_ns >= 300_000_000 for now_ns, from_ns in replacing)


def test_a_plan_that_comes_late_leaves_what_has_sounded(model: LoadedModel) -> None:
    on = Stage(model=model, policy=ONE_BAR, pulse=InternalPulse(120.0, Meter(4, 4)), job_ns=75_000_000)
    on.play_notes([*quarters(0), Note(4 * BEAT - 130, 67, 100, 80)], from_ns=2 * S)  # 68 ms before the bar line
    on.run(until_ns=6 * S + S // 2)
    (answer,) = on.answers
    assert answer.plans > 1
    assert all(from_ns > now_ns for now_ns, _, from_ns in on.sent)
    assert len(onsets(on)) == answer.notes
    assert onsets(on)[0] == answer.first_ns == 4 * S


def trunk_logits(on: Stage) -> np.ndarray:
    return on.tree.trunk.logits.copy()


def offline_logits(on: Stage, notes: list[Note], *, bars: int, bpm: float, meter: Meter) -> np.ndarray:
    piece = Piece(
        tuple(sorted(notes)), MeterMap((BarLine(0, 0, meter),)), TempoMap(((0, bpm),)), bars * meter.len_ticks
    )
    timeline = Timeline(on.model)
    timeline.feed([BOS, *encode(bars_of(piece)[:bars], Vocabulary())])
    return timeline.logits


def test_the_trunk_equals_an_offline_encoding_of_what_was_played(model: LoadedModel) -> None:
    # Chords, a note held over a bar line, a short note under it, an onset just before the bar line.
    played = [
        Note(0, 48, 5 * BEAT, 70),
        Note(3, 60, 900, 80),
        Note(7, 64, 900, 80),
        Note(BEAT, 67, 300, 60),
        Note(2 * BEAT + 310, 67, 200, 66),
        Note(4 * BEAT - 20, 72, 700, 90),
        Note(6 * BEAT, 71, 1900, 91),
    ]
    on = stage(model, Policy(listen_bars=3, answer_bars=1, remember_answers=False, seed=2))
    on.play_notes(played, from_ns=2 * S)
    on.run(until_ns=2 * S + 6 * S + S // 2)
    assert on.phases[-1][0] is Phase.ANSWERING
    np.testing.assert_array_equal(trunk_logits(on), offline_logits(on, played, bars=3, bpm=120.0, meter=Meter(4, 4)))


def test_the_trunk_hears_the_sustain_pedal(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=2, answer_bars=1, remember_answers=False, seed=2))
    at = 2 * S
    on.play(bytes((0x90, 60, 80)), at_ns=at)
    on.play(bytes((0xB0, 64, 127)), at_ns=at + S // 4)
    on.play(bytes((0x80, 60, 0)), at_ns=at + S // 2)
    on.play(bytes((0x90, 64, 80)), at_ns=at + S)
    on.play(bytes((0x80, 64, 0)), at_ns=at + S + S // 4)
    on.play(bytes((0xB0, 64, 0)), at_ns=at + 3 * S)
    on.run(until_ns=at + 4 * S + S // 2)
    pedalled = [Note(0, 60, 6 * BEAT, 80), Note(2 * BEAT, 64, 4 * BEAT, 80)]
    np.testing.assert_array_equal(trunk_logits(on), offline_logits(on, pedalled, bars=2, bpm=120.0, meter=Meter(4, 4)))


def test_the_trunk_never_runs_ahead_of_a_fork_that_waits_for_it(model: LoadedModel) -> None:
    waiting: list[tuple[int, Callable[[], object], Callable[[object, int], None]]] = []
    forks: list[tuple[int, int]] = []
    on = stage(model, bpm=40.0)  # a beat is longer than settled ids may take to be fed
    begin = on.tree.begin

    def submit(job: Callable[[], object], *, deadline_ns: int, then: Callable[[object, int], None]) -> None:
        waiting.append((deadline_ns, job, then))
        if len(waiting) == 1:
            on._at(on.now_ns + 30_000_000, work)

    def work() -> None:  # the worker was busy: what came meanwhile is done in order of its deadlines
        jobs = sorted(waiting, key=lambda entry: entry[0])
        waiting.clear()
        for _, job, then in jobs:
            then(job(), on.now_ns)

    def watched(settled: Settled, **rest: Any) -> Written | None:
        forks.append((on.tree.feed(settled), settled.start + len(settled.ids)))
        return begin(settled, **rest)

    on.copilot._submit = submit  # type: ignore[assignment]
    on.tree.begin = watched  # type: ignore[method-assign]
    on.play_notes([Note(i * 60, 60 + i % 12, 50, 80) for i in range(64)], from_ns=2 * S)
    on.run(until_ns=8 * S + S // 2)
    assert len(forks) > 5
    assert all(fed == end for fed, end in forks)


def test_a_pedal_pressed_before_the_first_note_holds_it(model: LoadedModel) -> None:
    on = stage(model)
    on.play(bytes((0xB0, 64, 127)), at_ns=2 * S - S // 4)
    on.play_notes([Note(0, 60, 480, 80)], from_ns=2 * S)
    on.run(until_ns=3 * S)
    assert [held.pitch for held in on.copilot._keyboard.sounding] == [60]


def test_a_pedal_lifted_while_the_beat_rests_is_up(model: LoadedModel) -> None:
    on = stage(model)
    on.play_notes([Note(0, 60, 960, 80)], from_ns=2 * S)
    on.play(bytes((0xB0, 64, 127)), at_ns=2 * S + 1000)
    on.play(bytes((0xB0, 64, 0)), at_ns=15 * S)
    on.play_notes([Note(0, 62, 480, 80)], from_ns=20 * S)
    on.run(until_ns=21 * S)
    assert not on.copilot._keyboard.sounding


def test_a_remembered_answer_lies_on_the_trunk_as_it_sounded(model: LoadedModel) -> None:
    on = stage(model)
    first = quarters(0)
    second = quarters(2, pitch=50)
    on.play_notes([*first, *second], from_ns=2 * S)
    on.run(until_ns=2 * S + 3 * 2 * S + S // 2)
    tick = on.pulse.tick_at
    begun: dict[int, tuple[int, bytes]] = {}
    answered: list[Note] = []
    for due in on.released:
        at = tick(due.at_ns + 1)
        if due.data[0] & 0xF0 == 0x90:
            begun[due.note] = (at, due.data)
        elif begun[due.note][0] < 2 * 4 * BEAT:
            start, data = begun[due.note]
            answered.append(Note(start, data[1], at - start, data[2]))
    expected = offline_logits(on, [*first, *answered, *second], bars=3, bpm=120.0, meter=Meter(4, 4))
    np.testing.assert_array_equal(trunk_logits(on), expected)


def test_a_note_soon_after_the_answer_began_ends_the_phrase_and_not_the_answer(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=2, seed=4))
    on.play_notes([*quarters(0), Note(4 * BEAT + 400, 62, 100, 70)], from_ns=2 * S)
    on.run(until_ns=9 * S)
    assert [answer.yielded for answer in on.answers] == [False]


def test_the_player_coming_back_in_ends_the_answer_and_begins_a_call(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=4, seed=4))
    on.play_notes([*quarters(0), *quarters(2)], from_ns=2 * S)
    on.run(until_ns=2 * S + 3 * 2 * S + S)
    first, *_ = on.answers
    assert first.yielded
    assert on.ended == [2 * S + 2 * 2 * S]
    assert on.phases[-1] == (Phase.ANSWERING, 3 * 4 * BEAT)


@pytest.mark.parametrize("off", [-300, -20, 0, 20])
def test_no_bar_falls_between_an_answer_and_the_call_that_ends_it(model: LoadedModel, off: int) -> None:
    opened: list[int] = []
    on = stage(model, Policy(listen_bars=1, answer_bars=4, seed=4))
    open_bar = on.copilot._open

    def watched(line: BarLine) -> None:
        opened.append(line.number)
        open_bar(line)

    on.copilot._open = watched  # type: ignore[method-assign]
    on.play_notes([*quarters(0), Note(8 * BEAT + off, 70, 400, 80)], from_ns=2 * S)
    on.run(until_ns=2 * S + 5 * S)
    assert sorted(set(opened)) == [0, 1, 2]


def test_a_long_upbeat_does_not_make_a_call_of_what_was_answered(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=1, seed=1, pickup_beats=8.0))
    on.play_notes(quarters(0), from_ns=2 * S)
    on.run(until_ns=30 * S)
    assert len(on.answers) == 1


def test_an_upbeat_into_the_players_turn_belongs_to_the_call(model: LoadedModel) -> None:
    on = stage(model)
    upbeat = Note(8 * BEAT - BEAT // 2, 55, BEAT // 2 - 20, 80)
    on.play_notes([*quarters(0), upbeat, *quarters(2)], from_ns=2 * S)
    on.run(until_ns=2 * S + 4 * 2 * S)
    assert [answer.line.number for answer in on.answers] == [1, 3]
    assert not any(answer.yielded for answer in on.answers)


def test_silence_after_an_answer_is_not_answered(model: LoadedModel) -> None:
    on = stage(model)
    on.play_notes(quarters(0), from_ns=2 * S)
    on.run(until_ns=60 * S)
    assert len(on.answers) == 1


def test_after_a_rest_the_next_first_note_gives_the_downbeat(model: LoadedModel) -> None:
    on = stage(model)
    on.play_notes(quarters(0), from_ns=2 * S)
    on.play_notes(quarters(0), from_ns=20 * S + 123_456_789)
    on.run(until_ns=30 * S)
    assert [answer.first_ns for answer in on.answers] == [4 * S, 22 * S + 123_456_789]


def test_the_same_seed_gives_the_same_session(model: LoadedModel) -> None:
    def session(seed: int) -> list[tuple[int, bytes]]:
        on = stage(model, Policy(listen_bars=1, answer_bars=1, seed=seed))
        for exchange in range(3):
            on.play_notes(quarters(2 * exchange), from_ns=2 * S)
        on.run(until_ns=20 * S)
        return [(due.at_ns, due.data) for due in on.released]

    assert session(11) == session(11)
    assert session(11) != session(12)


def test_a_panic_button_on_the_keyboard_silences_the_answer(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=8, seed=4))
    on.play_notes(quarters(0), from_ns=2 * S)
    on.play(bytes((0xB0, 120, 0)), at_ns=5 * S)
    on.run(until_ns=12 * S)
    assert on.panics == on.ended == [5 * S]
    assert max(due.at_ns for due in on.released) == 5 * S
    assert on.phases[-1][0] is Phase.WAITING


def test_all_notes_off_which_some_keyboards_send_with_the_last_key_ends_no_answer(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=1, answer_bars=2, seed=4))
    on.play_notes(quarters(0), from_ns=2 * S)
    on.play(bytes((0xB0, 123, 0)), at_ns=4 * S + S // 4)
    on.run(until_ns=9 * S)
    assert [answer.yielded for answer in on.answers] == [False]
    assert not on.panics


def test_a_keyboard_that_is_unplugged_holds_no_note(model: LoadedModel) -> None:
    on = stage(model, Policy(listen_bars=2, answer_bars=1, remember_answers=False, seed=2))
    on.play(bytes((0x90, 60, 80)), at_ns=2 * S)
    on.play(bytes((0xB0, 64, 127)), at_ns=2 * S + 1)
    on.run(until_ns=4 * S)
    on.band.unplug(0, now_ns=4 * S)
    on.run(until_ns=2 * S + 4 * S + S // 2)
    held = [Note(0, 60, 4 * BEAT, 80)]
    np.testing.assert_array_equal(trunk_logits(on), offline_logits(on, held, bars=2, bpm=120.0, meter=Meter(4, 4)))
