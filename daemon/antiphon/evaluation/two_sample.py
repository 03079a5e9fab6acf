"""The classifier two-sample test: whether a simple classifier can tell a system's answers from humans'.

Lopez-Paz and Oquab (2017), with a logistic regression on the measures. The folds are of whole songs: nothing is judged
by a classifier that has seen its song.
"""

from __future__ import annotations

import numpy as np

from antiphon.evaluation.measures import Floats
from antiphon.evaluation.statistics import Draws, Estimate, bounds

FOLDS = 5
RIDGE = 1.0
"""The strength of the L2 penalty, in units of one observation's log likelihood; scikit-learn's default too."""

RESAMPLES = 1000


def told_apart(system: Floats, human: Floats, draws: Draws, *, seed: int = 0) -> Estimate:
    """The area under the classifier's ROC curve: 0.5 where it guesses, 1 where it is always right.

    system, human: measures of the answers to the same prompts, [windows, d] each. The bounds are over songs, with the
    classifiers as they are. NaN where there are fewer songs than two.
    """
    if draws.count < 2:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    fold_of_song = np.random.default_rng(seed).permutation(draws.count) % min(FOLDS, draws.count)
    fold = fold_of_song[draws.song_of]
    scores = np.empty((2, len(fold)))
    for each in range(int(fold.max()) + 1):
        seen, judged = fold != each, fold == each
        known = np.concatenate([human[seen], system[seen]])
        labels = np.repeat([0.0, 1.0], int(seen.sum()))
        mean, sd = known.mean(axis=0), known.std(axis=0)
        sd = np.where(sd < 1e-9, 1.0, sd)
        weights = _fitted((known - mean) / sd, labels)
        for row, points in enumerate((human, system)):
            scores[row, judged] = _with_one((points[judged] - mean) / sd) @ weights
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(draws.song_of == song) for song in range(draws.count)]
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[song] for song in rng.integers(draws.count, size=draws.count)])
        drawn.append(area(scores[1, rows], scores[0, rows]))
    low, high = bounds(drawn)
    return Estimate(value=area(scores[1], scores[0]), low=low, high=high)


def area(positive: Floats, negative: Floats) -> float:
    """The chance that a positive's score is above a negative's, ties counting half (Mann and Whitney)."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).sum() / (2 * len(positive) * len(negative)))


def _fitted(points: Floats, labels: Floats) -> Floats:
    """The weights, the constant last, of the penalised logistic regression, by Newton's method."""
    x = _with_one(points)
    penalty = np.full(x.shape[1], RIDGE)
    penalty[-1] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (labels - p) - penalty * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _with_one(points: Floats) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
