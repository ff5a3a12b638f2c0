"""Separation: how much more of a concept wrongly classified images show than right ones.

Wrong images are compared with right ones of the same class only, so that a concept which merely
tells a hard class from an easy one separates nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray, read_only
from faultlens.stats import CONFIDENCE


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """AUROC of wrong against right images, within classes; above 0.5 means more in wrong ones.

    Attributes:
        auroc: (C,) weighted mean over the classes; NaN without a class that has both sides.
        low: (C,) lower bound of its interval.
        high: (C,) upper bound.
        p_value: (C,) two-sided, that wrong and right images are alike.
        n_wrong: Wrong images of classes that have both sides.
        n_right: Right ones.
    """

    auroc: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    n_wrong: int
    n_right: int


def separation(
    strengths: FloatArray, is_wrong: BoolArray, labels: IntArray, confidence: float = CONFIDENCE
) -> Separation:
    """Compare wrong and right images class by class.

    Args:
        strengths: (N, C).
        is_wrong: (N,).
        labels: (N,) classes; those with only one side say nothing.
        confidence: Of the intervals, in (0, 1).

    Example:
        >>> s = np.array([[0.9], [0.8], [0.1], [0.2]])
        >>> wrong = np.array([True, True, False, False])
        >>> separation(s, wrong, np.zeros(4, int)).auroc.tolist()
        [1.0]

    References:
        van Elteren 1960: Wilcoxon's test in strata, each weighted by `m n / (m + n + 1)`; here
        the normal approximation. Intervals: variance of the area by Hanley and McNeil, Radiology
        1982, summed over the strata at the common area, which is kept off 0 and 1 by half a pair.
    """
    areas, sizes = [], []
    for k in np.unique(labels):
        wrong = is_wrong[labels == k]
        m, n = int(wrong.sum()), int((~wrong).sum())
        if m and n:
            areas.append(_area(strengths[labels == k], wrong))
            sizes.append((m, n))
    if not sizes:
        nothing = read_only(np.full(strengths.shape[1], np.nan))
        return Separation(nothing, nothing, nothing, nothing, 0, 0)
    m, n = np.array(sizes, float).T
    w = m * n / (m + n + 1)
    w /= w.sum()
    area = w @ np.stack(areas)
    null = float((w**2 * (m + n + 1) / (12 * m * n)).sum())
    edge = 0.5 / float(m @ n)
    spread = np.sqrt(_variance(np.clip(area, edge, 1 - edge), m, n, w))
    half = sps.norm.ppf(0.5 + confidence / 2) * spread
    return Separation(
        auroc=read_only(area),
        low=read_only(np.clip(area - half, 0, 1)),
        high=read_only(np.clip(area + half, 0, 1)),
        p_value=read_only(2 * sps.norm.sf(np.abs(area - 0.5) / np.sqrt(null))),
        n_wrong=int(m.sum()),
        n_right=int(n.sum()),
    )


def _area(strengths: FloatArray, wrong: BoolArray) -> FloatArray:
    ranks = sps.rankdata(strengths, axis=0)
    m, n = int(wrong.sum()), int((~wrong).sum())
    return np.asarray((ranks[wrong].sum(axis=0) - m * (m + 1) / 2) / (m * n))


def _variance(area: FloatArray, m: FloatArray, n: FloatArray, w: FloatArray) -> FloatArray:
    """Variance of the weighted area; m, n and w have one value a stratum."""
    # Two wrong images above one right one, and one wrong image above two right ones.
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    pairs, more_m, more_n = (np.asarray(x)[:, None] for x in (m * n, m - 1, n - 1))
    each = area * (1 - area) + more_m * (q1 - area**2) + more_n * (q2 - area**2)
    return np.asarray(((w**2)[:, None] / pairs * each).sum(axis=0))
