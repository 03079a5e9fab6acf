"""Likelihoods side by side: nats per note at each length of context, and how sure the differences are.

The main table is of the targets that were judged at every length of context, so that its columns speak of the same
bars; a second one is of every window there is. Songs are drawn again, never windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from antiphon.evaluation.likelihood import Scored
from antiphon.evaluation.statistics import Draws, Estimate, Paired, holm, paired_ratio, ratio_of_sums
from antiphon.evaluation.windows import Window

MODEL = "model"
"""The system that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What every system made of one window. notes: those of the target, the same for all."""

    window: Window
    song: str
    notes: int
    systems: Mapping[str, Scored]

    def plain(self) -> dict[str, Any]:
        """The window as it stands in a file, with its systems."""
        systems = {
            name: {"nats": scored.nats, "notes": self.notes, "tokens": scored.tokens}
            for name, scored in self.systems.items()
        }
        return self.window.plain() | {"systems": systems}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """All systems after one length of context.

    systems: nats per note. against: the model's nats per note less each other system's, over the same targets.
    longer: the model's nats per note less its own after the shortest context, over the same targets; None there.
    """

    context_bars: int
    targets: int
    songs: int
    notes: int
    systems: Mapping[str, Estimate]
    against: Mapping[str, Paired]
    longer: Paired | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """complete: over the targets that have every length of context. every: over all windows of each length."""

    complete: tuple[Column, ...]
    every: tuple[Column, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON: a list of columns each. `p_holm` is adjusted for all differences of the list."""
        return {"complete": _plain(self.complete), "every": _plain(self.every)}


def compare(measured: Sequence[Measured], *, seed: int = 0) -> Comparison:
    """The comparison of windows that were all judged by the same systems, the model among them.

    A window that is there twice counts once. Raises ValueError where all targets of a column are without a note.
    """
    by_context: dict[int, dict[_Target, Measured]] = {}
    for one in measured:
        window = one.window
        target = (one.song, window.file, window.target_bar, window.bars)
        by_context.setdefault(window.context_bars, {})[target] = one
    contexts = sorted(by_context)
    shared = sorted(set.intersection(*(set(by_context[context]) for context in contexts)))
    complete: list[Column] = []
    if shared:
        shortest = [by_context[contexts[0]][target] for target in shared]
        for context in contexts:
            rows = [by_context[context][target] for target in shared]
            complete.append(_column(context, rows, seed, None if context == contexts[0] else shortest))
    every = (_column(context, [rows[target] for target in sorted(rows)], seed) for context, rows in by_context.items())
    return Comparison(
        complete=tuple(complete),
        every=tuple(sorted(every, key=lambda column: column.context_bars)),
    )


_Target = tuple[str, str, int, int]


def _column(context: int, rows: Sequence[Measured], seed: int, shortest: Sequence[Measured] | None = None) -> Column:
    draws = Draws([row.song for row in rows], seed=seed)
    notes = [row.notes for row in rows]
    names = list(rows[0].systems)
    nats = {name: [row.systems[name].nats for row in rows] for name in names}
    longer = None
    if shortest is not None:
        longer = paired_ratio(nats[MODEL], [row.systems[MODEL].nats for row in shortest], notes, draws)
    return Column(
        context_bars=context,
        targets=len(rows),
        songs=draws.count,
        notes=sum(notes),
        systems={name: ratio_of_sums(nats[name], notes, draws) for name in names},
        against={name: paired_ratio(nats[MODEL], nats[name], notes, draws) for name in names if name != MODEL},
        longer=longer,
    )


def _plain(columns: Sequence[Column]) -> list[dict[str, Any]]:
    told = [asdict(column) for column in columns]
    differences = [one for column in told for one in (*column["against"].values(), column["longer"]) if one]
    for one, adjusted in zip(differences, holm([one["p"] for one in differences]), strict=True):
        one["p_holm"] = adjusted
    return told
