"""Systems that answer, and what is said of them: every baseline, and a model that knows nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.small_calls import VOCABULARY, bars_of, calls, small_corpus

from antiphon.engine.sampling import Sampling
from antiphon.evaluation.answers import answered, best_of, evaluate_answers
from antiphon.evaluation.archive import Archive
from antiphon.evaluation.call import Call
from antiphon.evaluation.float_voice import float_voice
from antiphon.evaluation.measures import NAMES
from antiphon.evaluation.obedience import ends_strongly, obeys
from antiphon.evaluation.passage import Passage, as_written
from antiphon.evaluation.plots import draw
from antiphon.evaluation.report import gates, markdown, sheets
from antiphon.evaluation.retrieval import Retrieval
from antiphon.evaluation.sweep import GRID, name_of, sweep_sheet, systems_of
from antiphon.evaluation.systems import HUMAN, MODEL, RETRIEVAL, ModelAnswers, System, simple_systems, trained_systems
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import COMMON_TIME, Meter
from antiphon.session.voice import Voice
from tests.small_model import small_checkpoint, write_small_model

CALLS = calls()


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Voice:
    return Voice.open(write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


@pytest.fixture(scope="module")
def systems(voice: Voice) -> list[System]:
    corpus = small_corpus()
    trained = trained_systems(corpus, Retrieval(Archive.of(corpus, VOCABULARY)), VOCABULARY)
    return [*simple_systems(), *trained, System(name=MODEL, answer=ModelAnswers(voice, Sampling()))]


def test_every_system_gives_what_was_asked_for_and_the_same_again(systems: list[System]) -> None:
    assert systems[0].name == HUMAN
    assert len({system.name for system in systems}) == len(systems) == 11
    for system in systems:
        for call in CALLS[:3]:
            answer = system.answer(call, seed=1)
            assert obeys(call, answer), system.name
            assert answer == system.answer(call, seed=1)
        if not system.chance:
            assert system.answer(CALLS[0], seed=1) == system.answer(CALLS[0], seed=2)


def test_chance_differs_by_seed_and_by_call(systems: list[System]) -> None:
    by_name = {system.name: system for system in systems}
    for name in (MODEL, "random in the scale", RETRIEVAL, "n-gram, order 3"):
        answer = by_name[name].answer
        again = replace(CALLS[0], number=99)
        assert answer(CALLS[0], seed=0) != answer(CALLS[0], seed=1), name
        assert (answer(CALLS[0], seed=0) != answer(again, seed=0)) == (name != RETRIEVAL)


def test_repeats_are_repeats(systems: list[System]) -> None:
    by_name = {system.name: system for system in systems}
    call = CALLS[0]
    assert by_name["repeat the prompt"].answer(call, seed=0) == call.prompt
    silent_end = replace(call, prompt=(*call.prompt[:3], replace(call.prompt[3], notes=())))
    repeated = by_name["repeat the last bar"].answer(silent_end, seed=0)
    onsets = [[(n.step, n.pitch) for n in bar.notes] for bar in repeated]
    assert onsets == [[(n.step, n.pitch) for n in call.prompt[2].notes]] * 4
    assert obeys(silent_end, repeated)
    assert by_name["same song elsewhere"].answer(replace(call, elsewhere=()), seed=0) == call.target


def test_random_notes_keep_to_scale_range_and_number(systems: list[System]) -> None:
    answer = next(system for system in systems if system.name == "random in the scale").answer
    for call in CALLS:
        found, prompt = Passage.of(answer(call, seed=3)), call.heard
        assert prompt.pitch.min() <= found.pitch.min()
        assert found.pitch.max() <= prompt.pitch.max()
        assert len(found) == len(prompt)


def bad_answers() -> list[tuple[str, tuple[Bar, ...]]]:
    def bars(*notes: BarNote) -> tuple[Bar, ...]:
        return (*(Bar(COMMON_TIME) for _ in range(3)), Bar(COMMON_TIME, notes))

    return [
        ("too few bars", bars(BarNote(0, 60, 12, 64))[1:]),
        ("no note", bars()),
        ("rings past the end", bars(BarNote(36, 60, 13, 64))),
        ("struck while it sounds", bars(BarNote(0, 60, 24, 64), BarNote(12, 60, 12, 64))),
        ("off the piano", bars(BarNote(0, 20, 12, 64))),
        ("another meter", tuple(Bar(Meter(3, 4), (BarNote(0, 60, 12, 64),)) for _ in range(4))),
    ]


@pytest.mark.parametrize(("why", "answer"), bad_answers(), ids=[why for why, _ in bad_answers()])
def test_an_answer_that_breaks_a_rule_is_seen_to(why: str, answer: tuple[Bar, ...]) -> None:
    assert not obeys(CALLS[0], answer)


def test_an_answer_may_end_on_its_last_bar_line_and_strike_a_pitch_again_when_it_has_ended() -> None:
    last = (BarNote(0, 60, 12, 64), BarNote(12, 60, 36, 64))
    assert obeys(CALLS[0], (*(Bar(COMMON_TIME) for _ in range(3)), Bar(COMMON_TIME, last)))


@pytest.mark.parametrize(
    ("meter", "step", "strong"),
    [
        ("4/4", 0, True),
        ("4/4", 24, True),
        ("4/4", 12, False),
        ("3/4", 12, False),
        ("6/8", 18, True),
        ("6/8", 24, False),
        ("2/4", 12, False),
        ("2/2", 24, True),
        ("12/8", 36, True),
    ],
)
def test_an_answer_ends_strongly_where_the_grammar_would_let_it_close(meter: str, step: int, strong: bool) -> None:
    parsed = Meter.parse(meter)
    answer = bars_of([(0, 60), (parsed.len_steps + step, 60)], bars=3, meter=parsed)
    assert ends_strongly(answer) == strong
    assert not ends_strongly(bars_of([], bars=2))


def test_all_music_is_compared_in_the_velocities_of_the_vocabulary_and_ended_on_its_line() -> None:
    written = as_written(bars_of([(180, 60, 12, 77)]), VOCABULARY)
    loud = (*written[:3], Bar(COMMON_TIME, (BarNote(36, 60, 96, 77),)))
    note = as_written(loud, VOCABULARY)[3].notes[0]
    assert (note.len_steps, note.velocity) == (12, VOCABULARY.velocity_of(VOCABULARY.velocity_id(77)))


def test_a_report_says_of_each_system_what_it_is_worth(systems: list[System], tmp_path: Path) -> None:
    told: list[str] = []
    archive = Archive.of(small_corpus(), VOCABULARY)
    report = evaluate_answers(
        CALLS,
        systems,
        VOCABULARY,
        seeds=2,
        archive=archive,
        best=[MODEL],
        same=[(MODEL, HUMAN)],
        on_answer=told.append,
    )
    assert (report.calls, report.songs) == (8, 4)
    assert len(told) == 8 * sum(2 if system.chance else 1 for system in systems)
    human, model = report.of(HUMAN), report.of(MODEL)
    assert human.gap.gap.value == 0
    assert model.seeds == len(model.gap_by_seed) == 2
    assert report.of("repeat the prompt").copied_bars.value == 1
    assert report.of("repeat the prompt").gap.gap.value > report.of("same song elsewhere").gap.gap.value
    # What retrieval plays stands in the training music, as far as it was not changed to fit.
    retrieved, random = (report.of(name).longest_match for name in (RETRIEVAL, "random in the scale"))
    assert retrieved is not None
    assert random is not None
    assert retrieved.value > 2 * random.value
    best = report.of(f"{MODEL}, best of 2")
    assert best.gap.gap.value != model.gap.gap.value
    assert model.beyond_retrieval is not None
    assert model.beyond_retrieval.value == pytest.approx(model.gap.gap.value - report.of(RETRIEVAL).gap.gap.value)
    assert all(verdict.obeys == 1 for verdict in report.verdicts)
    assert not report.equivalences["model = human"]["register_shift"].holds

    plain = json.loads(json.dumps(report.plain(), allow_nan=False))
    assert [verdict["name"] for verdict in plain["verdicts"]] == [verdict.name for verdict in report.verdicts]
    page = markdown(report, sheets(report), {"model": "small"}, [MODEL])
    for words in (*(verdict.name for verdict in report.verdicts), "motif reuse within", "- **groove similarity**: How"):
        assert words in page
    assert len(gates(report, MODEL)) == 5
    for path in draw(report, tmp_path / "plots"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["distances.png", "gap.png", "motif.png"]


def test_the_best_of_several_is_the_nearest_to_the_human_mean(voice: Voice) -> None:
    human = answered(simple_systems()[0], CALLS, VOCABULARY, seeds=1)
    model = answered(System(name=MODEL, answer=ModelAnswers(voice, Sampling())), CALLS, VOCABULARY, seeds=3)
    best = best_of(model, human)
    centre, sd = human.measures[0].mean(axis=0), human.measures[0].std(axis=0)
    off = [
        np.abs((seed - centre) / np.where(sd > 1e-6, sd, 1)).mean(axis=1)
        for seed in (*model.measures, best.measures[0])
    ]
    assert off[-1] == pytest.approx(np.min(off[:3], axis=0))
    assert all(best.music[0][n] in {given[n] for given in model.music} for n in range(len(CALLS)))


def test_answers_without_humans_or_training_music(systems: list[System]) -> None:
    with pytest.raises(ValueError, match="human ones"):
        evaluate_answers(CALLS, systems[1:], VOCABULARY)
    report = evaluate_answers(CALLS[:2], systems[:2], VOCABULARY)  # one song: no half of it to compare with another
    assert report.of(HUMAN).longest_match is None
    assert report.of(HUMAN).beyond_retrieval is None
    assert report.plain()["human_floor"]["value"] is None
    assert set(report.human_sd) == set(NAMES)


def test_float_weights_play_as_int8_ones_do_but_not_the_same(voice: Voice) -> None:
    precise = float_voice(voice, small_checkpoint())
    ids = [1, *range(3, 40)]
    ours, theirs = voice.timeline(), precise.timeline()
    ours.feed(ids)
    theirs.feed(ids[:10])
    theirs.feed(ids[10:])
    apart = np.abs(ours.logits - theirs.logits).max()
    assert 0 < apart < 0.1 * np.abs(ours.logits).max()
    short = replace(CALLS[0], prompt=CALLS[0].prompt[:1], target=CALLS[0].target[:1])
    assert obeys(short, ModelAnswers(precise, Sampling())(short, seed=0))


def test_a_sweep_sets_the_settings_side_by_side(voice: Voice) -> None:
    tried = systems_of(voice, GRID[:2])
    report = evaluate_answers(CALLS, [simple_systems()[0], *tried], VOCABULARY, seeds=1)
    sheet = sweep_sheet(report)
    assert {row[0] for row in sheet.rows} == {name_of(sampling) for sampling in GRID[:2]}
    gaps = [float(row[1].split()[0]) for row in sheet.rows]
    assert gaps == sorted(gaps)
    assert len({name_of(sampling) for sampling in GRID}) == len(GRID)


def test_a_call_knows_its_meter_and_length() -> None:
    call: Call = CALLS[0]
    assert (call.meter, call.bars, len(call.heard)) == (COMMON_TIME, 4, sum(len(bar.notes) for bar in call.prompt))
