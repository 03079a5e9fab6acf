"""A sweep: the model's answers under many settings of its sampling, to choose those it is shipped with."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.engine.sampling import Sampling
from antiphon.evaluation.answers import AnswersReport
from antiphon.evaluation.report import Sheet
from antiphon.evaluation.systems import ModelAnswers, System
from antiphon.session.voice import Voice

TEMPERATURES = (0.9, 0.95, 1.0)
CUTS = ((0.9, 0.0), (0.95, 0.0), (0.98, 0.0), (1.0, 0.03), (1.0, 0.08))
"""(top-p, min-p): one of the two cuts the tail, not both."""

GRID = tuple(
    Sampling(temperature=temperature, top_p=top_p, min_p=min_p) for temperature in TEMPERATURES for top_p, min_p in CUTS
)


def name_of(sampling: Sampling) -> str:
    """A setting in words."""
    told = [f"temperature {sampling.temperature:g}"]
    told += [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
    told += [f"top-k {sampling.top_k}"] if sampling.top_k else []
    told += [f"min-p {sampling.min_p:g}"] if sampling.min_p else []
    return ", ".join(told)


def systems_of(voice: Voice, grid: Sequence[Sampling] = GRID) -> list[System]:
    """The model under each setting, as systems to be judged side by side."""
    return [System(name=name_of(sampling), answer=ModelAnswers(voice, sampling)) for sampling in grid]


def sweep_sheet(report: AnswersReport) -> Sheet:
    """The settings, the most human-like first. Differences smaller than the bounds are worth nothing."""
    tried = sorted(report.verdicts[1:], key=lambda verdict: verdict.gap.gap.value)
    rows = [
        (
            verdict.name,
            f"{verdict.gap.gap.value:.3f}\n{verdict.gap.gap.low:.2f} … {verdict.gap.gap.high:.2f}",
            f"{verdict.motif[0].value:+.2f}, {verdict.motif[1].value:+.2f}{'' if verdict.motif_is_human else ' !'}",
            f"{verdict.told_apart.value:.2f}",
            f"{verdict.frechet.value:.1f}",
            f"{verdict.gap.distances['in_prompt_key'].value:+.2f}",
            f"{verdict.copied_bars.value:.1%}",
        )
        for verdict in tried
    ]
    columns = ("", "gap", "bigrams, bars", "told apart", "Fréchet", "in key", "copied")
    return Sheet(f"sampling: {report.calls} calls of {report.songs} songs", columns, tuple(rows))
