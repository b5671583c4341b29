"""The statistics of a comparison, as pure functions of numbers.

Training is random, and two runs of one recipe differ: what is said of a way to train is said over seeds, by t intervals of the
paired differences (percentile bootstraps of 3, 5 or 10 differences cover 74, 85 and 89% instead of 95%, and sign flips over 5
seeds cannot go below p = 0.06). An interval over pictures is of the checkpoints at hand and of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

MOST_SEEDS = 1000
"""More are never asked for."""


class Interval(NamedTuple):
    """``p`` of the two-sided test against 0; None where the spread is zero and the mean is not, so that nothing can be said."""

    mean: float
    low: float
    high: float
    p: float | None


def standard_error(differences: Sequence[float]) -> float:
    """Of their mean; needs two at least."""
    return float(np.std(differences, ddof=1)) / math.sqrt(len(differences))


def t_interval(differences: Sequence[float], level: float = 0.05) -> Interval:
    """The mean of differences over seeds with its 1 - ``level`` interval (n - 1 degrees of freedom), and p of the same test.

    Differences that are all alike have no spread to judge by: all zero, they are no difference (p = 1); else no p is given.
    """
    return interval(float(np.mean(differences)), standard_error(differences), len(differences) - 1, level)


def interval(mean: float, error: float, freedom: float, level: float = 0.05) -> Interval:
    """Of a mean with its standard error and degrees of freedom."""
    if error < 1e-9 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, 1.0 if abs(mean) < 1e-9 else None)
    half = float(stats.t.ppf(1 - level / 2, freedom)) * error
    return Interval(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def one_sided(interval_of: Sequence[float], bound: float, below: bool) -> float | None:
    """p of the one-sided t test that the mean is below (or else above) a bound; None without any spread."""
    error = standard_error(interval_of)
    if error < 1e-9 * max(1.0, abs(float(np.mean(interval_of)))):
        return None
    statistic = (float(np.mean(interval_of)) - bound) / error
    freedom = len(interval_of) - 1
    return float(stats.t.cdf(statistic, freedom) if below else stats.t.sf(statistic, freedom))


def holm(values: Sequence[float | None], among: int = 0) -> list[float | None]:
    """Holm's adjusted p values, in the order of ``values``.

    Args:
        among: how many tests are planned: those that are not there, or are None, count as if they found nothing. With 0
            those that are None are no test, and count for none.
    """
    tested = [i for i, p in enumerate(values) if p is not None]
    adjusted: list[float | None] = [None] * len(values)
    tests = max(among, len(tested))
    largest = 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: values[i] or 0.0)):
        largest = max(largest, min(1.0, (tests - rank) * (values[i] or 0.0)))
        adjusted[i] = largest
    return adjusted


# -------------------------------------------------------------------------------------------------------------- pictures


class Variance(NamedTuple):
    """Of an estimate, with its degrees of freedom."""

    variance: float
    freedom: float


def cluster_variance(strata: Sequence[np.ndarray]) -> Variance:
    """Over clusters that are drawn together, stratum by stratum.

    Args:
        strata: of each, what every cluster contributes to the estimate, (clusters,); they add up to 0 (``paired.Influence``).

    Returns:
        For the mean of single questions s^2 / n, for that of clusters the cluster-robust variance; for several strata the
        degrees of freedom of Welch and Satterthwaite.
    """
    parts = [(_squares(c), len(c) - 1) for c in strata if len(c) > 1]
    total = math.fsum(variance for variance, _ in parts)
    if total == 0:
        return Variance(0.0, max((freedom for _, freedom in parts), default=1))
    return Variance(total, total**2 / math.fsum(variance**2 / freedom for variance, freedom in parts))


def _squares(contributions: np.ndarray) -> float:
    n = contributions.shape[-1]
    return float(np.sum(contributions**2)) * n / (n - 1)


def cluster_interval(mean: float, strata: Sequence[np.ndarray], level: float = 0.05) -> Interval:
    """Over the pictures of two checkpoints; no training noise is in it. ``p`` is of these checkpoints alone."""
    variance, freedom = cluster_variance(strata)
    return interval(mean, math.sqrt(variance), freedom, level)


def crossed_interval(differences: Sequence[float], strata: Sequence[np.ndarray], level: float = 0.05) -> Interval:
    """Over seeds and pictures, both drawn: for other seeds on other questions.

    The variance of a mean over a table of seeds and clusters, by analysis of variance: that over seeds, plus that over
    clusters, minus what both contain; no less than either. n - 1 degrees of freedom, n the number of seeds.

    Args:
        differences: of each seed.
        strata: of each, (seeds, clusters): what a cluster contributes to the difference of a seed.
    """
    seeds = len(differences)
    over_seeds = standard_error(differences) ** 2
    over_clusters = residual = 0.0
    for table in (c for c in strata if c.shape[1] > 1):
        mean = table.mean(0)
        over_clusters += _squares(mean)
        residual += _squares(table - mean) / (seeds * (seeds - 1))
    variance = max(over_seeds, over_clusters, over_seeds + over_clusters - residual)
    return interval(float(np.mean(differences)), math.sqrt(variance), seeds - 1, level)


# ----------------------------------------------------------------------------------------------------------------- power


def t_power(effect: float, spread: float, n: int, level: float = 0.05) -> float:
    """Of the two-sided t test over n differences with standard deviation ``spread``, to find an effect with its sign."""
    if spread == 0:
        return 1.0 if effect else 0.0
    critical = stats.t.ppf(1 - level / 2, n - 1)
    return float(stats.nct.sf(critical, n - 1, abs(effect) * math.sqrt(n) / spread))


def detectable(spread: float, n: int, level: float = 0.05, power: float = 0.8) -> float:
    """The smallest effect that a t test over n >= 2 differences finds with this power, in the unit of ``spread``."""
    if spread == 0:
        return 0.0
    return spread * float(optimize.brentq(lambda effect: t_power(effect, 1.0, n, level) - power, 1e-6, 1e4))


def detectable_by_questions(error: float, level: float = 0.05, power: float = 0.8) -> float:
    """The same of one pair of checkpoints, from the standard error over questions: a difference of these two, not of arms."""
    return error * float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power))


def seeds_needed(effect: float, spread: float, level: float = 0.05, power: float = 0.8) -> int:
    """The smallest n whose t test finds the effect with this power; ``MOST_SEEDS`` where that is more."""
    low, high = 1, 2
    while t_power(effect, spread, high, level) < power:
        if high >= MOST_SEEDS:
            return MOST_SEEDS
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if t_power(effect, spread, middle, level) >= power else (middle, high)
    return high
