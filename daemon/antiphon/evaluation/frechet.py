"""The Fréchet distance between two clouds of points, each taken for a normal distribution."""

from __future__ import annotations

import numpy as np

from antiphon.evaluation.measures import Floats
from antiphon.evaluation.statistics import Draws, Estimate


def frechet(a: Floats, b: Floats) -> float:
    """|μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½) of points [n, d] and [m, d], n and m 2 or more (Dowson and Landau 1982).

    Biased upwards in small samples, so compare only distances between samples of the same sizes.
    """
    apart = a.mean(axis=0) - b.mean(axis=0)
    sa, sb = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = _root(sa)
    # tr (Σa Σb)^½ = tr (Σa^½ Σb Σa^½)^½, and that matrix is symmetric.
    crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ sb @ root), 0)).sum()
    return max(0.0, float(apart @ apart + np.trace(sa) + np.trace(sb) - 2 * crossed))


def halves_apart(system: Floats, human: Floats, draws: Draws, *, splits: int = 200, seed: int = 0) -> Estimate:
    """The distance between a system's answers to one half of the songs and human answers to the other half.

    system, human: measures [windows, d] of answers to the same prompts, in human standard deviations about the human
    mean. Each of `splits` ways to halve the songs gives one distance between samples of equal size that share no song;
    the value is their mean, the bounds hold 95 % of them. With `system` = `human` this is the distance between real and
    real: no system can be told from humans below it. NaN where a half has fewer than two windows.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        first = rng.permutation(draws.count) < draws.count // 2
        here, there = np.flatnonzero(first[draws.song_of]), np.flatnonzero(~first[draws.song_of])
        size = min(len(here), len(there))
        if size >= 2:
            found.append(frechet(system[rng.permutation(here)[:size]], human[rng.permutation(there)[:size]]))
    if not found:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(value=float(np.mean(found)), low=float(low), high=float(high))


def _root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root
