"""What a system's answers are worth: every system answers the same calls, and all are measured alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from antiphon.evaluation.archive import Archive
from antiphon.evaluation.call import Call
from antiphon.evaluation.copying import copied_bars, longest_matches
from antiphon.evaluation.frechet import halves_apart
from antiphon.evaluation.gap import Gap, floor_of, gap_beyond, gap_of, plain_gap
from antiphon.evaluation.measures import MOTIF, NAMES, Floats, relation
from antiphon.evaluation.obedience import ends_strongly, obeys
from antiphon.evaluation.passage import Passage, as_written, laid
from antiphon.evaluation.statistics import Draws, Equivalence, Estimate, equivalence, mean
from antiphon.evaluation.systems import HUMAN, RETRIEVAL, System
from antiphon.evaluation.two_sample import told_apart
from antiphon.music.bar import Bar
from antiphon.music.normalise import placed
from antiphon.tokens.vocabulary import Vocabulary

MOTIF_SD = 0.5
"""Motif reuse within so many human standard deviations of the human mean counts as human."""

BEST = "best of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the answers of one system are worth.

    seeds: answers to each call. gap: the human-likeness gap and its parts. gap_by_seed: the gap of each seed alone.
    beyond_retrieval: its gap less retrieval's, below 0 where it is more like humans than retrieval is. means: of each
    measure. frechet: the relational Fréchet distance to human answers to other songs. told_apart: the classifier's
    area. copied_bars: share of bars that the prompt has exactly so. longest_match: the mean over answers of the
    longest stretch that training music has too, in notes, and longest_match_95 its 95th percentile. obeys: share of
    answers within the rules. strong_ends: share whose last onset is on a strong beat. Both Fréchet distance and the
    classifier's area are means over seeds.
    """

    name: str
    seeds: int
    gap: Gap
    gap_by_seed: tuple[float, ...]
    beyond_retrieval: Estimate | None
    means: dict[str, float]
    frechet: Estimate
    told_apart: Estimate
    copied_bars: Estimate
    longest_match: Estimate | None
    longest_match_95: float | None
    obeys: float
    strong_ends: float
    notes_a_bar: float

    @property
    def motif(self) -> tuple[Estimate, Estimate]:
        """Motif reuse: pitch bigrams and bars, in human standard deviations from the human mean."""
        reuse, bars = (self.gap.distances[NAMES[index]] for index in MOTIF)
        return reuse, bars

    @property
    def motif_is_human(self) -> bool:
        """Whether both lie within `MOTIF_SD`."""
        return all(abs(each.value) <= MOTIF_SD for each in self.motif)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersReport:
    """All verdicts on the answers to `calls` calls of `songs` songs.

    human_floor: the gap between human answers to one half of the songs and those to the other. human_sd: the human
    standard deviation of each measure, in which distances are told. verdicts: the human's first. equivalences: for
    "a = b", two systems that ought to be the same, by measure whether their means are.
    """

    calls: int
    songs: int
    left_out: int
    human_floor: Estimate
    human_sd: dict[str, float]
    verdicts: tuple[Verdict, ...]
    equivalences: dict[str, dict[str, Equivalence]] = field(default_factory=dict)

    def of(self, name: str) -> Verdict:
        """The verdict on the system called `name`. Raises KeyError."""
        for verdict in self.verdicts:
            if verdict.name == name:
                return verdict
        raise KeyError(name)

    def plain(self) -> dict[str, Any]:
        """The report as JSON has it: null for what could not be told."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one system answered, measured: arrays [seeds, calls, …]; `music` is kept as it was given."""

    music: tuple[tuple[tuple[Bar, ...], ...], ...]
    passages: tuple[tuple[Passage, ...], ...]
    measures: Floats
    copied: Floats
    obeys: Floats
    strong_ends: Floats
    notes_a_bar: Floats


def answered(
    system: System,
    calls: Sequence[Call],
    vocabulary: Vocabulary,
    *,
    seeds: int,
    on_answer: Callable[[], None] = lambda: None,
) -> Answers:
    """The answers of `system` with seeds 0 to `seeds` − 1, measured.

    Before they are measured all answers are ended on their last bar line and said in the vocabulary's velocities.
    """
    music: list[tuple[tuple[Bar, ...], ...]] = []
    for seed in range(seeds):
        given = []
        for call in calls:
            given.append(system.answer(call, seed=seed))
            on_answer()
        music.append(tuple(given))
    passages = [
        tuple(_measured(call, bars, vocabulary) for call, bars in zip(calls, given, strict=True)) for given in music
    ]
    prompts = [call.heard for call in calls]
    pairs = [list(zip(prompts, row, strict=True)) for row in passages]
    return Answers(
        music=tuple(music),
        passages=tuple(passages),
        measures=np.array([[relation(prompt, answer) for prompt, answer in row] for row in pairs]),
        copied=np.array([[copied_bars(prompt, answer) for prompt, answer in row] for row in pairs]),
        obeys=np.array([[obeys(c, a) for c, a in zip(calls, given, strict=True)] for given in music], np.float64),
        strong_ends=np.array([[ends_strongly(answer) for answer in given] for given in music], np.float64),
        notes_a_bar=np.array([[len(answer) / answer.bars for answer in row] for row in passages]),
    )


def judged(
    name: str,
    answers: Answers,
    *,
    human: Answers,
    retrieval: Answers | None,
    matches: Floats | None,
    draws: Draws,
) -> Verdict:
    """The verdict on `answers`, beside the human's to the same calls.

    matches: the longest match of each answer with training music, in notes, [seeds, calls].
    """
    theirs = human.measures[0]
    mine = answers.measures.mean(axis=0)
    centre, sd = theirs.mean(axis=0), theirs.std(axis=0)
    sd = np.where(sd > 1e-6, sd, 1.0)
    seeds = len(answers.measures)
    frechets = [halves_apart((each - centre) / sd, (theirs - centre) / sd, draws) for each in answers.measures]
    areas = [told_apart(each, theirs, draws) for each in answers.measures]
    beyond = gap_beyond(mine, retrieval.measures.mean(axis=0), theirs, draws) if retrieval is not None else None
    return Verdict(
        name=name,
        seeds=seeds,
        gap=gap_of(mine, theirs, draws),
        gap_by_seed=tuple(plain_gap(each, theirs) for each in answers.measures) if seeds > 1 else (),
        beyond_retrieval=beyond,
        means=dict(zip(NAMES, mine.mean(axis=0).tolist(), strict=True)),
        frechet=_averaged(frechets),
        told_apart=_averaged(areas),
        copied_bars=mean(answers.copied.mean(axis=0), draws),
        longest_match=mean(matches.mean(axis=0), draws) if matches is not None else None,
        longest_match_95=float(np.percentile(matches, 95)) if matches is not None else None,
        obeys=float(answers.obeys.mean()),
        strong_ends=float(answers.strong_ends.mean()),
        notes_a_bar=float(answers.notes_a_bar.mean()),
    )


def best_of(answers: Answers, human: Answers) -> Answers:
    """Of the answers to each call, the one whose measures are nearest to the human mean, in human deviations.

    It is chosen with the measures that it is then judged by, so it says what choosing could reach, not what a
    system is worth: it never stands in the place of the system itself.
    """
    theirs = human.measures[0]
    sd = np.where(theirs.std(axis=0) > 1e-6, theirs.std(axis=0), 1.0)
    off = np.abs((answers.measures - theirs.mean(axis=0)) / sd).mean(axis=2)
    chosen, call = off.argmin(axis=0), np.arange(off.shape[1])
    return replace(
        answers,
        music=(tuple(answers.music[seed][number] for seed, number in zip(chosen, call, strict=True)),),
        passages=(tuple(answers.passages[seed][number] for seed, number in zip(chosen, call, strict=True)),),
        measures=answers.measures[chosen, call][None],
        copied=answers.copied[chosen, call][None],
        obeys=answers.obeys[chosen, call][None],
        strong_ends=answers.strong_ends[chosen, call][None],
        notes_a_bar=answers.notes_a_bar[chosen, call][None],
    )


def evaluate_answers(
    calls: Sequence[Call],
    systems: Sequence[System],
    vocabulary: Vocabulary,
    *,
    seeds: int = 3,
    archive: Archive | None = None,
    best: Sequence[str] = (),
    same: Sequence[tuple[str, str]] = (),
    left_out: int = 0,
    on_answer: Callable[[str], None] = lambda name: None,
) -> AnswersReport:
    """Let every system answer every call, and judge them. The first of `systems` is the human: ValueError otherwise.

    seeds: answers to each call of a system that goes by chance. archive: training music in which copies are looked
    for; without one the longest match is left out. best: names of systems of which the best of all seeds is judged
    beside. same: pairs of systems whose measures are held to be equivalent. `on_answer` is told the system of each
    answer.
    """
    if not systems or systems[0].name != HUMAN:
        raise ValueError("answers are judged beside the human ones, which come first")
    draws = Draws([call.song for call in calls])
    found = {
        system.name: answered(
            system,
            calls,
            vocabulary,
            seeds=seeds if system.chance else 1,
            on_answer=lambda name=system.name: on_answer(name),  # type: ignore[misc]
        )
        for system in systems
    }
    human, retrieval = found[HUMAN], found.get(RETRIEVAL)
    for name in best:
        if len(found[name].measures) > 1:
            found[f"{name}, {BEST} {len(found[name].measures)}"] = best_of(found[name], human)
    matches = _matches(found, archive) if archive is not None else {}
    verdicts = [
        judged(
            name,
            each,
            human=human,
            retrieval=None if name in (HUMAN, RETRIEVAL) else retrieval,
            matches=matches.get(name),
            draws=draws,
        )
        for name, each in found.items()
    ]
    return AnswersReport(
        calls=len(calls),
        songs=draws.count,
        left_out=left_out,
        human_floor=floor_of(human.measures[0], draws),
        human_sd=dict(zip(NAMES, human.measures[0].std(axis=0).tolist(), strict=True)),
        verdicts=tuple(verdicts),
        equivalences={f"{a} = {b}": _equivalences(found[a], found[b], human, draws) for a, b in same},
    )


def _measured(call: Call, answer: Sequence[Bar], vocabulary: Vocabulary) -> Passage:
    whole = laid(placed(answer), meter=call.meter, bars=call.bars, bpm=call.bpm)
    return Passage.of(as_written(whole, vocabulary))


def _equivalences(a: Answers, b: Answers, human: Answers, draws: Draws) -> dict[str, Equivalence]:
    sd = human.measures[0].std(axis=0)
    mine, other = a.measures.mean(axis=0), b.measures.mean(axis=0)
    return {name: equivalence(mine[:, k], other[:, k], draws, sd=float(sd[k])) for k, name in enumerate(NAMES)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _matches(found: Mapping[str, Answers], archive: Archive) -> dict[str, Floats]:
    """The longest matches of every system's answers, [seeds, calls], looked for all at once."""
    flat = [passage for answers in found.values() for row in answers.passages for passage in row]
    longest = longest_matches(flat, archive).astype(np.float64)
    matches: dict[str, Floats] = {}
    start = 0
    for name, answers in found.items():
        shape = answers.copied.shape
        matches[name] = longest[start : start + answers.copied.size].reshape(shape)
        start += answers.copied.size
    return matches


def _averaged(estimates: Sequence[Estimate]) -> Estimate:
    value, low, high = (
        float(np.mean([getattr(each, name) for each in estimates])) for name in ("value", "low", "high")
    )
    return Estimate(value=value, low=low, high=high)
