"""Timing figures: percentiles, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: `share` 0.5 is the median, 1.0 the largest. NaN for no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def lateness(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max of `values_ms`, in milliseconds, and how many there are."""
    figures = {"p50": percentile(values_ms, 0.5), "p99": percentile(values_ms, 0.99), "max": percentile(values_ms, 1.0)}
    return {name: round(value, 3) for name, value in figures.items()} | {"count": len(values_ms)}
