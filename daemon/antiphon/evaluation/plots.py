"""What was found about answers, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from antiphon.evaluation.answers import MOTIF_SD, AnswersReport
from antiphon.evaluation.measures import NAMES


def draw(report: AnswersReport, folder: Path) -> list[Path]:
    """Draw gap.png, distances.png and motif.png into `folder`, which is made if it is not there; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, paint in (("gap", _gaps), ("distances", _distances), ("motif", _motif)):
        path = folder / f"{name}.png"
        paint(report).savefig(path, dpi=120)
        drawn.append(path)
    return drawn


def _figure(width: float, height: float) -> Any:
    # Loading it takes a second, which nobody need wait for who wants no pictures.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _gaps(report: AnswersReport) -> Any:
    """The gap of each system with its bounds, and the band that human answers keep to each other."""
    others = sorted(report.verdicts[1:], key=lambda verdict: verdict.gap.gap.value, reverse=True)
    figure = _figure(8, 1.2 + 0.35 * len(others))
    axes = figure.add_subplot()
    floor = report.human_floor
    if np.isfinite(floor.value):
        axes.axvspan(floor.low, floor.high, color="0.9", label="human, half the songs against the other half")
    gaps = [verdict.gap.gap for verdict in others]
    values = [gap.value for gap in gaps]
    apart = [[max(0.0, gap.value - gap.low) for gap in gaps], [max(0.0, gap.high - gap.value) for gap in gaps]]
    axes.errorbar(values, range(len(others)), xerr=apart, fmt="o", color="tab:blue", capsize=3)
    axes.set_yticks(range(len(others)), [verdict.name for verdict in others])
    axes.set_xlabel("human-likeness gap (human standard deviations; 95 % of resampled songs)")
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")
    return figure


def _distances(report: AnswersReport) -> Any:
    """How far each system's mean of each measure is from the human one."""
    others = report.verdicts[1:]
    table = np.array([[verdict.gap.distances[name].value for name in NAMES] for verdict in others])
    figure = _figure(9, 2 + 0.35 * len(others))
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        colour = "white" if abs(value) > 1.4 else "black"
        axes.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(NAMES)), [name.replace("_", " ") for name in NAMES], rotation=40, ha="right")
    axes.set_yticks(range(len(others)), [verdict.name for verdict in others])
    figure.colorbar(image, ax=axes, label="human standard deviations from the human mean", extend="both")
    return figure


def _motif(report: AnswersReport) -> Any:
    """Motif reuse: develop, do not copy, do not wander."""
    figure = _figure(8, 1.4 + 0.35 * len(report.verdicts))
    axes = figure.add_subplot()
    axes.axvspan(-MOTIF_SD, MOTIF_SD, color="tab:green", alpha=0.15, label=f"within {MOTIF_SD} sd of human")
    rows = range(len(report.verdicts))
    for which, (label, mark) in enumerate((("pitch bigrams", "o"), ("bars", "s"))):
        found = [verdict.motif[which] for verdict in report.verdicts]
        values = [each.value for each in found]
        apart = [
            [max(0.0, each.value - each.low) for each in found],
            [max(0.0, each.high - each.value) for each in found],
        ]
        axes.errorbar(values, [row + 0.16 * (2 * which - 1) for row in rows], xerr=apart, fmt=mark, label=label)
    axes.set_yticks(rows, [verdict.name for verdict in report.verdicts])
    axes.invert_yaxis()
    axes.set_xlabel("what of the prompt comes back (human standard deviations from the human mean)")
    axes.legend(loc="lower right")
    return figure
