"""The units of musical time: ticks for what is played, steps of the grid for what is written."""

from __future__ import annotations

TICKS_PER_QUARTER = 960
"""Resolution of un-quantized time. 960 is what DAWs use, and 12, 16 and 24 divide it."""

STEPS_PER_QUARTER = 12
"""Resolution of the grid: 12 steps a quarter hold both sixteenths (3 steps) and triplet eighths (4)."""

TICKS_PER_STEP = TICKS_PER_QUARTER // STEPS_PER_QUARTER

NS_PER_MINUTE = 60_000_000_000


def snap_to_step(ticks: int) -> int:
    """The grid step nearest to `ticks`; the upper one when both are equally near.

    An onset in the last half step before a bar line so belongs to the next downbeat.
    """
    return (2 * ticks + TICKS_PER_STEP) // (2 * TICKS_PER_STEP)


def rescale(ticks: int, *, from_per_quarter: int, to_per_quarter: int = TICKS_PER_QUARTER) -> int:
    """`ticks` of one resolution in another, rounded to the nearest, halves up."""
    return (2 * ticks * to_per_quarter + from_per_quarter) // (2 * from_per_quarter)
