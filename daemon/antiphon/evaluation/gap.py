"""The human-likeness gap: how far a system's answers relate to their prompts otherwise than humans' do.

For each of the ten measures, the distance between the system's mean and the human mean in human standard deviations;
the gap is the mean of the ten. A system that answers as humans do has a gap near 0; how near, chance decides: the gap
between human answers to two halves of the songs says how small a gap can be told from none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from antiphon.evaluation.measures import NAMES, Floats
from antiphon.evaluation.statistics import Draws, Estimate, bounds, statistic

MOST = 10.0
"""No distance counts for more: where humans hardly differ at all, a small one would outweigh all other measures."""

_N = len(NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The gap, and its parts: signed distances of the means in human standard deviations, by measure."""

    gap: Estimate
    distances: dict[str, Estimate]


def gap_of(system: Floats, human: Floats, draws: Draws) -> Gap:
    """The gap of a system. system, human: measures of the answers to the same prompts, [windows, 10] each.

    Where a system answered several times, `system` is the mean over its answers to each prompt.
    """
    columns = _columns(human, system)
    drawn, whole = _distances(draws.means(columns)), _distances(columns.mean(axis=0, keepdims=True))[0]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    distances = {
        name: Estimate(value=float(whole[k]), low=float(low[k]), high=float(high[k])) for k, name in enumerate(NAMES)
    }
    gap_low, gap_high = bounds(np.abs(drawn).mean(axis=1))
    return Gap(gap=Estimate(value=float(np.abs(whole).mean()), low=gap_low, high=gap_high), distances=distances)


def plain_gap(system: Floats, human: Floats) -> float:
    """The gap alone, without bounds."""
    return float(np.abs(_distances(_columns(human, system).mean(axis=0, keepdims=True))).mean())


def gap_beyond(system: Floats, other: Floats, human: Floats, draws: Draws) -> Estimate:
    """The gap of `system` less the gap of `other`, both on the same songs each time; below 0: nearer to humans."""
    return statistic(_columns(human, system, other), lambda means: _gap(means) - _gap(means, second=True), draws)


def floor_of(human: Floats, draws: Draws, *, splits: int = 200, seed: int = 0) -> Estimate:
    """The gap between humans and humans: answers to the songs of one half against those of the other.

    The value is the median over `splits` ways to halve the songs, with the bounds of 95 % of them.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        first = rng.permutation(draws.count) < draws.count // 2
        inside = first[draws.song_of]
        if inside.all() or not inside.any():
            continue
        apart = human[inside].mean(axis=0) - human[~inside].mean(axis=0)
        found.append(float(np.abs(_scaled(apart, human.std(axis=0))).mean()))
    if not found:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(value=float(np.median(found)), low=float(low), high=float(high))


def _columns(human: Floats, *systems: Floats) -> Floats:
    return np.concatenate([human, human**2, *systems], axis=1)


def _distances(means: Floats, *, second: bool = False) -> Floats:
    human, squares = means[:, :_N], means[:, _N : 2 * _N]
    first = (3 if second else 2) * _N
    return _scaled(means[:, first : first + _N] - human, np.sqrt(np.maximum(squares - human**2, 0)))


def _scaled(apart: Floats, sd: Floats) -> Floats:
    tiny = sd < 1e-6
    scaled = np.divide(apart, sd, out=np.zeros_like(apart), where=~tiny)
    scaled = np.where(tiny & (np.abs(apart) > 1e-6), np.sign(apart) * MOST, scaled)
    return np.clip(scaled, -MOST, MOST)


def _gap(means: Floats, *, second: bool = False) -> Floats:
    gap: Floats = np.abs(_distances(means, second=second)).mean(axis=1)
    return gap
