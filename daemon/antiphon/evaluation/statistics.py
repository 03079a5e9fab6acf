"""How sure a number is: songs, not windows, are drawn again, because windows of one song say the same thing.

A statistic is computed on `resamples` collections of songs, each drawn with replacement from the ones there are (the
cluster bootstrap: Davison and Hinkley 1997, section 3.8), and its interval is that of the percentiles. All systems
that are compared through one `Draws` are drawn alike, so that their differences are paired by song.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
EQUIVALENCE_SD = 0.3
"""Two systems whose difference lies within this many standard deviations are called equivalent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number, and the bounds between which it lies with the confidence asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """What two one-sided tests found: the difference with its 90 % interval, the margin, and p of the worse test.

    `holds` where the interval lies within ± margin, which is where p < 0.05.
    """

    difference: Estimate
    margin: float
    p: float

    @property
    def holds(self) -> bool:
        return -self.margin < self.difference.low and self.difference.high < self.margin


class Draws:
    """Collections of songs, drawn again: the same ones for every statistic that is asked of them.

    songs: for each row (a window, an answer) the song that it is of. Memory: 8 bytes for each song of each resample.
    """

    __slots__ = ("_times", "count", "song_of", "songs")

    def __init__(self, songs: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        """Raises ValueError without a single row."""
        if not len(songs) or resamples < 1:
            raise ValueError("there is nothing to draw from")
        numbers: dict[Hashable, int] = {}
        self.song_of: npt.NDArray[np.int64] = np.array([numbers.setdefault(s, len(numbers)) for s in songs], np.int64)
        self.songs = tuple(numbers)
        self.count = len(numbers)
        rng = np.random.default_rng(seed)
        self._times: Floats = rng.multinomial(self.count, np.full(self.count, 1 / self.count), resamples).astype(float)

    def by_song(self, values: npt.ArrayLike) -> Floats:
        """Sums [songs, ...] of `values` [rows, ...], songs in the order in which they first came."""
        array = np.asarray(values, np.float64)
        if len(array) != len(self.song_of):
            raise ValueError(f"{len(array)} values for {len(self.song_of)} rows")
        sums = np.zeros((self.count, *array.shape[1:]))
        np.add.at(sums, self.song_of, array)
        return sums

    def sums(self, values: npt.ArrayLike) -> Floats:
        """The sum of `values` [rows, ...] in each resample: [resamples, ...]."""
        sums: Floats = np.tensordot(self._times, self.by_song(values), axes=1)
        return sums

    def ratios(self, top: npt.ArrayLike, bottom: npt.ArrayLike) -> Floats:
        """Σ top / Σ bottom in each resample, NaN where a resample has nothing below the line."""
        above, below = self.sums(top), self.sums(bottom)
        ratios: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
        return ratios

    def means(self, values: npt.ArrayLike) -> Floats:
        """The mean of `values` [rows, ...] in each resample, every row counting alike: [resamples, ...]."""
        times = self.sums(np.ones(len(self.song_of)))
        sums = self.sums(values)
        means: Floats = sums / times.reshape(-1, *(1,) * (sums.ndim - 1))
        return means


def bounds(drawn: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentiles between which the share `confidence` of the drawn values lies; NaNs are left out."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(np.asarray(drawn, np.float64), [tail, 100 - tail])
    return float(low), float(high)


def ratio_of_sums(top: npt.ArrayLike, bottom: npt.ArrayLike, draws: Draws) -> Estimate:
    """Σ top / Σ bottom over all rows, such as nats per note. Raises ValueError where Σ bottom is 0."""
    below = float(np.sum(np.asarray(bottom, np.float64)))
    if below == 0:
        raise ValueError("a ratio needs something below the line")
    low, high = bounds(draws.ratios(top, bottom))
    return Estimate(value=float(np.sum(np.asarray(top, np.float64))) / below, low=low, high=high)


def mean(values: npt.ArrayLike, draws: Draws) -> Estimate:
    """The mean over all rows."""
    return ratio_of_sums(values, np.ones(len(draws.song_of)), draws)


def statistic(values: npt.ArrayLike, of: Callable[[Floats], Floats], draws: Draws) -> Estimate:
    """Any function of the means of several columns, such as a mean of standardised distances.

    values: [rows, columns]. of: [resamples, columns] -> [resamples], called with the means of all rows too.
    """
    array = np.asarray(values, np.float64)
    low, high = bounds(of(draws.means(array)))
    return Estimate(value=float(of(array.mean(axis=0, keepdims=True))[0]), low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A difference a − b between two systems on the same rows.

    `difference` of the ratios of sums, paired by song; `p` of no difference (two-sided, Wilcoxon's signed ranks over
    the songs' own differences); `songs_lower` of `songs`: those in which a is the lower.
    """

    difference: Estimate
    p: float
    songs_lower: int
    songs: int


def paired_ratio(a: npt.ArrayLike, b: npt.ArrayLike, bottom: npt.ArrayLike, draws: Draws) -> Paired:
    """Σ a / Σ bottom − Σ b / Σ bottom, such as how many nats per note fewer one model needs than another."""
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    below = draws.by_song(bottom)
    there = below > 0
    of_songs = draws.by_song(apart)[there] / below[there]
    return Paired(
        difference=ratio_of_sums(apart, bottom, draws),
        p=wilcoxon(of_songs),
        songs_lower=int((of_songs < 0).sum()),
        songs=int(there.sum()),
    )


def paired_mean(a: npt.ArrayLike, b: npt.ArrayLike, draws: Draws) -> Paired:
    """mean(a) − mean(b), paired by song."""
    return paired_ratio(a, b, np.ones(len(draws.song_of)), draws)


def equivalence(
    a: npt.ArrayLike, b: npt.ArrayLike, draws: Draws, *, sd: float, margin_sd: float = EQUIVALENCE_SD
) -> Equivalence:
    """Two one-sided tests (TOST, Schuirmann 1987) that mean(a) − mean(b) lies within ± margin_sd · sd.

    sd: the spread that the margin is measured in, such as the standard deviation of human values.
    """
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    drawn = draws.means(apart)
    low, high = bounds(drawn, confidence=0.90)
    margin = margin_sd * sd
    at_most = len(drawn) + 1  # so that no p is 0: a finite number of resamples cannot show that
    worse = max(int((drawn <= -margin).sum()), int((drawn >= margin).sum()))
    difference = Estimate(value=float(apart.mean()), low=low, high=high)
    return Equivalence(difference=difference, margin=margin, p=(1 + worse) / at_most)


def wilcoxon(differences: npt.ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that `differences` lie around 0.

    Zeros are left out. Up to 25 differences without ties are counted exactly; otherwise the normal approximation
    with its correction for ties and continuity (Hollander and Wolfe 1999, section 3.1). 1.0 where nothing differs.
    """
    values = np.asarray(differences, np.float64)
    values = values[values != 0]
    n = len(values)
    if not n:
        return 1.0
    sizes, which, ties = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[which]
    positive = float(ranks[values > 0].sum())
    if n <= 25 and len(sizes) == n:
        return _exact_p(n, int(min(positive, n * (n + 1) / 2 - positive)))
    spread = n * (n + 1) * (2 * n + 1) / 24 - int((ties**3 - ties).sum()) / 48
    away = max(0.0, abs(positive - n * (n + 1) / 4) - 0.5)
    return float(math.erfc(away / math.sqrt(2 * spread)))


def _exact_p(n: int, smaller: int) -> float:
    """Twice the chance of a rank sum of at most `smaller`, each of the ranks 1..n being positive or not."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    return min(1.0, float(2 * ways[: smaller + 1].sum() / 2**n))


def holm(p: Sequence[float]) -> list[float]:
    """The p values of a family of tests, adjusted after Holm (1979): reject where the result is below the level."""
    order = sorted(range(len(p)), key=lambda test: p[test])
    adjusted = [0.0] * len(p)
    so_far = 0.0
    for place, test in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p) - place) * p[test]))
        adjusted[test] = so_far
    return adjusted
