"""What was found about answers, as tables for people: the same cells for the terminal and for a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from antiphon.evaluation.answers import MOTIF_SD, AnswersReport, Verdict
from antiphon.evaluation.measures import MEASURES, NAMES
from antiphon.evaluation.statistics import EQUIVALENCE_SD, Equivalence, Estimate


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: a title, the names of its columns (the first one's cells name the rows), and its rows of cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sheets(report: AnswersReport) -> list[Sheet]:
    """The verdicts, then the distances that the gaps are made of, then what was held to be equivalent."""
    pairs = [equivalence_sheet(pair, found) for pair, found in report.equivalences.items()]
    return [verdict_sheet(report), distance_sheet(report), *pairs]


def verdict_sheet(report: AnswersReport) -> Sheet:
    """A row for each system, in the order in which they were given."""
    columns = (
        "",
        "gap",
        "gap − retrieval",
        "bigrams, bars",
        "Fréchet",
        "told apart",
        "copied",
        "match",
        "obeys",
        "strong",
    )
    rows = [_verdict_row(verdict) for verdict in report.verdicts]
    title = f"answers to {report.calls} calls of {report.songs} songs"
    return Sheet(title, columns, tuple(rows))


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    match = (
        "" if verdict.longest_match is None else f"{verdict.longest_match.value:.1f}, {verdict.longest_match_95:.0f}"
    )
    return (
        verdict.name if verdict.seeds == 1 else f"{verdict.name} ({verdict.seeds} seeds)",
        _told(verdict.gap.gap),
        "" if verdict.beyond_retrieval is None else _told(verdict.beyond_retrieval, signed=True),
        f"{verdict.motif[0].value:+.2f}, {verdict.motif[1].value:+.2f}{'' if verdict.motif_is_human else ' !'}",
        f"{verdict.frechet.value:.1f}",
        f"{verdict.told_apart.value:.2f}",
        f"{verdict.copied_bars.value:.1%}",
        match,
        f"{verdict.obeys:.0%}",
        f"{verdict.strong_ends:.0%}",
    )


def distance_sheet(report: AnswersReport) -> Sheet:
    """What humans do, then a row for each other system: how far its means are from that."""
    human, *others = report.verdicts
    rows = [
        ("human mean", *(f"{human.means[name]:.2f}" for name in NAMES)),
        ("human sd", *(f"{report.human_sd[name]:.2f}" for name in NAMES)),
        *((each.name, *(f"{each.gap.distances[name].value:+.2f}" for name in NAMES)) for each in others),
    ]
    columns = ("", *(name.replace("_", " ") for name in NAMES))
    return Sheet("distance of the means, in human standard deviations", columns, tuple(rows))


def equivalence_sheet(pair: str, found: Mapping[str, Equivalence]) -> Sheet:
    """A row for each measure: the difference between two systems that are held to be the same, in human deviations."""
    rows = []
    for name, each in found.items():
        sd = each.margin / EQUIVALENCE_SD or 1.0
        value, low, high = (bound / sd for bound in (each.difference.value, each.difference.low, each.difference.high))
        holds = "yes" if each.holds else "no"
        rows.append((name.replace("_", " "), f"{value:+.3f}", f"{low:+.3f} … {high:+.3f}", f"{each.p:.4f}", holds))
    columns = ("", "difference, in human sd", "90 % interval", "p", f"within ±{EQUIVALENCE_SD} sd")
    return Sheet(pair, columns, tuple(rows))


def gates(report: AnswersReport, name: str) -> list[tuple[str, bool]]:
    """What is asked of a model's answers, and whether those of the system `name` do it. Raises KeyError."""
    verdict, human = report.of(name), report.verdicts[0]
    asked = []
    if verdict.beyond_retrieval is not None:
        asked.append(
            ("gap below retrieval's, the interval of the difference clear of 0", verdict.beyond_retrieval.high < 0)
        )
    asked.append((f"motif reuse within ±{MOTIF_SD} sd of human", verdict.motif_is_human))
    asked.append(
        ("no more bars copied from the prompt than humans copy", verdict.copied_bars.value <= human.copied_bars.high)
    )
    if verdict.longest_match is not None and human.longest_match is not None:
        within = verdict.longest_match.value <= human.longest_match.high
        asked.append(("longest match with training music no longer than between human pieces", within))
    asked.append(("every answer within the rules", verdict.obeys == 1.0))
    return asked


def markdown(report: AnswersReport, tables: Sequence[Sheet], told: Mapping[str, object], names: Sequence[str]) -> str:
    """The report as a page. told: how it was made, a line each. names: the systems that gates are asked of."""
    floor = report.human_floor
    lines = ["# Answers", "", *(f"- {key}: {value}" for key, value in told.items()), ""]
    for sheet in tables:
        lines += [f"## {sheet.title}", "", *_markdown_rows(sheet), ""]
    lines += [
        f"Human answers to the songs of one half and to those of the other have a gap of {floor.value:.3f} "
        f"[{floor.low:.3f}, {floor.high:.3f}] between them.",
        "",
    ]
    for name in names:
        lines += [f"## {name}", ""]
        lines += [f"- {'yes' if met else '**no**'}: {asked}" for asked, met in gates(report, name)]
        by_seed = report.of(name).gap_by_seed
        if by_seed:
            lines.append(f"- gap of each seed alone: {', '.join(f'{gap:.3f}' for gap in by_seed)}")
        lines.append("")
    return "\n".join([*lines, *_LEGEND, *_measures()]) + "\n"


_LEGEND = (
    "## What the columns say",
    "",
    "- **gap**: the human-likeness gap, the mean over ten measures of |system mean − human mean| / human standard "
    "deviation, with the bounds of 95 % of resampled song collections; **gap − retrieval**: paired by song.",
    f"- **bigrams, bars**: motif reuse in human standard deviations from the human mean; ! beyond ±{MOTIF_SD}.",
    "- **Fréchet**: relational distance to human answers to other songs; the human row is real against real.",
    "- **told apart**: area under the curve of a logistic regression on the ten measures, folds of whole songs; 0.5 is "
    "a guess.",
    "- **copied**: bars that the prompt has exactly so. **match**: notes of the longest stretch that training music "
    "has too, in any key; mean and 95th percentile of the answers.",
    "- **obeys**: answers within the rules. **strong**: answers whose last onset is on a strong beat.",
    "",
    "## The measures",
    "",
)


def _measures() -> list[str]:
    said = [(measure.__name__, (measure.__doc__ or "").split("\n")[0]) for measure in MEASURES]
    return [f"- **{name.replace('_', ' ')}**: {first}" for name, first in said]


def _markdown_rows(sheet: Sheet) -> list[str]:
    rows = [sheet.columns, ("---", *("---:" for _ in sheet.columns[1:])), *sheet.rows]
    return [f"| {' | '.join(row)} |".replace("\n", " ") for row in rows]


def _told(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.3f}\n{estimate.low:{sign}.2f} … {estimate.high:{sign}.2f}"
