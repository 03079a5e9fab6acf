"""Piano rolls: what was heard and answered, as text for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from antiphon.music.meter import Meter
from antiphon.music.note import Note
from antiphon.music.time import TICKS_PER_QUARTER

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_CELL_TICKS = TICKS_PER_QUARTER // 4
_BLANK_ROWS = 2  # a wide leap without notes is drawn as one dotted row


@dataclass(frozen=True, slots=True)
class System:
    """A row of bars: a title, the number of its first bar (from 1), and its notes in ticks from that bar's line."""

    title: str
    first_bar: int
    bars: int
    notes: tuple[Note, ...]
    mark: str


def pitch_name(pitch: int) -> str:
    """The name of a pitch, such as C4 for 60."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def as_text(system: System, meter: Meter) -> list[str]:
    """`system` as lines of text: a column for each sixteenth, a line at each bar, a dot at each beat.

    An onset is drawn full, what sounds on after it half.
    """
    cells = meter.len_ticks // _CELL_TICKS
    beat = max(1, meter.beat_ticks // _CELL_TICKS)
    width = cells * system.bars
    rows: dict[int, list[str]] = {}
    for note in sorted(system.notes):
        row = rows.setdefault(note.pitch, [" " if i % beat else "·" for i in range(width)])
        first = min(width - 1, round(note.start_tick / _CELL_TICKS))
        last = max(first + 1, min(width, round(note.end_tick / _CELL_TICKS)))
        row[first:last] = [system.mark, *("▒" * (last - first - 1))]
    numbers = [f"{system.first_bar + i}".ljust(cells) for i in range(system.bars)]
    lines = [f"{system.title}", "     │" + "│".join(numbers) + "│"]
    above: int | None = None
    for pitch in sorted(rows, reverse=True):
        if above is not None and above - pitch > _BLANK_ROWS + 1:
            lines.append("     ┊" + "┊".join(" " * cells for _ in range(system.bars)) + "┊")
        row = rows[pitch]
        bars = ["".join(row[i * cells : (i + 1) * cells]) for i in range(system.bars)]
        lines.append(f"{pitch_name(pitch):>4} │" + "│".join(bars) + "│")
        above = pitch
    if not rows:
        lines.append("     │" + "│".join(" " * cells for _ in range(system.bars)) + "│  (silence)")
    return lines


def as_picture(systems: Sequence[System], meter: Meter, path: Path, *, title: str) -> None:
    """Draw `systems` one after another into the PNG file `path`, bar lines and beats marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(12, 4.5), dpi=110)
    bar_ticks = meter.len_ticks
    for index, system in enumerate(systems):
        start = (system.first_bar - 1) * bar_ticks
        colour = ("#4477aa", "#ee6677", "#228833", "#ccbb44")[index % 4]
        for note in system.notes:
            at = (start + note.start_tick) / bar_ticks + 1
            axes.barh(
                note.pitch,
                note.len_ticks / bar_ticks,
                left=at,
                height=0.85,
                align="center",
                color=colour,
                alpha=0.35 + 0.65 * note.velocity / 127,
                edgecolor=colour,
                linewidth=0.6,
            )
        axes.plot([], [], color=colour, linewidth=6, label=system.title)
    last_bar = max(system.first_bar + system.bars for system in systems)
    first_bar = min(system.first_bar for system in systems)
    for bar in range(first_bar, last_bar + 1):
        axes.axvline(bar, color="#333333", linewidth=1.0, zorder=0)
        for beat in range(1, bar_ticks // meter.beat_ticks):
            axes.axvline(bar + beat * meter.beat_ticks / bar_ticks, color="#cccccc", linewidth=0.6, zorder=0)
    axes.set_xlim(first_bar, last_bar)
    axes.set_xticks(range(first_bar, last_bar))
    pitches = [note.pitch for system in systems for note in system.notes] or [60]
    lowest, highest = min(pitches) - 2, max(pitches) + 2
    octaves = [pitch for pitch in range(lowest, highest + 1) if pitch % 12 in (0, 4, 7)]
    axes.set_yticks(octaves, [pitch_name(pitch) for pitch in octaves])
    axes.set_ylim(lowest, highest)
    axes.set_xlabel("bar")
    axes.set_title(title)
    axes.legend(loc="upper left", fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
