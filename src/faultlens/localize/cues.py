"""Cues: does the model take a concept for a class?

A model that learnt a cue says class k where the cue is and k is not, and misses k where the cue is
not. Both are asked of the pictures themselves, as the vision-language model sees them, and only
among images of one label at a time: that classes differ in what they show is no evidence.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths
from faultlens.heatmaps import MIN_IMAGES
from faultlens.stats import holm

LEVEL = 0.05
#: Both error rates must differ by more than this (lower 95 % bound) with and without the cue.
MIN_DIFFERENCE = 0.10
#: A cue goes with at least this share of the errors around its class.
MIN_SHARE = 1 / 3


class Difference(NamedTuple):
    """A difference of two rates.

    Attributes:
        value: Over all strata.
        interval: 95 % interval.
        with_cue: Rate where the cue is.
        without_cue: Rate where it is not.
        n: Images compared.
    """

    value: float
    interval: tuple[float, float]
    with_cue: float
    without_cue: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Cue:
    """A concept that the model takes for a class.

    Attributes:
        concept: Index of the concept.
        k: Class index.
        attracted: Share of images of other classes that are called k, with and without the cue.
        missed: Share of images of class k that are not, without and with it.
        errors: (N,) errors that follow the cue: called k with it, or missed without it.
        p_value: The larger of the two one-sided tests, after Holm over the
            concepts and Bonferroni over the classes.
    """

    concept: int
    k: int
    attracted: Difference
    missed: Difference
    errors: BoolArray
    p_value: float


def cues(
    strengths: Strengths, labels: IntArray, predictions: IntArray, n_classes: int
) -> list[Cue]:
    """Find the concepts that the model takes for classes.

    Args:
        strengths: (N, C) of the vision-language model, of concepts that it knows here.
        labels: (N,).
        predictions: (N,).
        n_classes: K.

    Returns:
        One cue a class at first, the one with the largest differences; then, among images alike in
        that cue, the next, until none is left. Most errors first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, water = rng.integers(0, 3, 600), rng.random(600) < 0.3
        >>> called = np.where(water, 2, np.minimum(y, 1))  # 2: ship
        >>> s = np.stack([water + rng.normal(0, 0.1, 600), rng.normal(size=600)], axis=1)
        >>> [(c.concept, c.k, round(c.attracted.value, 1)) for c in cues(s, y, called, 3)]
        [(0, 2, 1.0)]

    References:
        Differences are pooled over labels by Mantel and Haenszel's weights (Greenland and Robins,
        Biometrics 1985), with half an image added to each cell so that empty ones count as
        uncertain, not as certain.
    """
    if strengths.shape[1] == 0:
        return []
    presence = present(strengths)
    wrong = labels != predictions
    tested = [
        k
        for k in range(n_classes)
        if min((wrong & (predictions == k)).sum(), (wrong & (labels == k)).sum()) >= MIN_IMAGES
    ]
    found: list[Cue] = []
    n_tests = len(tested) * strengths.shape[1]
    for k in tested:
        strata = labels.astype(np.int64)
        while (cue := _strongest(presence, strata, labels, predictions, k, n_tests)) is not None:
            found.append(cue)
            strata = 2 * strata + presence[:, cue.concept]
    return sorted(found, key=lambda c: -int(c.errors.sum()))


def present(strengths: Strengths) -> Bool[np.ndarray, "N C"]:
    """Return where each concept is: the cut that leaves the least variance on either side.

    References:
        Otsu, IEEE Trans. SMC 1979, on the sorted values instead of a histogram.

    Example:
        >>> present(np.array([[0.0], [0.1], [0.9], [1.0], [0.05]])).ravel().tolist()
        [False, False, True, True, False]
    """
    ordered = np.sort(strengths, axis=0)
    n = len(ordered)
    below = np.arange(1, n)[:, None]
    sums = np.cumsum(ordered, axis=0, dtype=np.float64)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (n - below)
    cut = np.argmax(below * (n - below) * (high - low) ** 2, axis=0)
    return np.asarray(strengths > np.take_along_axis(ordered, cut[None], axis=0))


def _strongest(
    presence: Bool[np.ndarray, "N C"],
    strata: IntArray,
    labels: IntArray,
    predictions: IntArray,
    k: int,
    n_tests: int,
) -> Cue | None:
    """Return the concept whose two differences are largest, where both are large and certain."""
    is_k = labels == k
    called = predictions == k
    attracted = _differences(presence[~is_k], strata[~is_k], called[~is_k])
    missed = _differences(~presence[is_k], strata[is_k], ~called[is_k])
    worst = np.minimum(attracted.low, missed.low)
    p = np.maximum(attracted.p_value, missed.p_value)
    # Holm over this class, then Bonferroni over the others: no test knows of a later one.
    p = np.minimum(holm(p) * n_tests / len(p), 1.0)
    wrong = (is_k != called)[:, None]
    follows = (wrong & (called[:, None] == presence)).sum(axis=0)
    is_cue = (worst > MIN_DIFFERENCE) & (p <= LEVEL) & (follows >= MIN_SHARE * wrong.sum())
    if not is_cue.any():
        return None
    c = int(np.argmax(np.where(is_cue, attracted.value + missed.value, -np.inf)))
    there = presence[:, c]
    errors = (~is_k & called & there) | (is_k & ~called & ~there)
    return Cue(
        concept=c,
        k=k,
        attracted=_difference(attracted, c, called[~is_k], there[~is_k]),
        missed=_difference(missed, c, ~called[is_k], there[is_k]),
        errors=errors,
        p_value=float(p[c]),
    )


class _Differences(NamedTuple):
    value: Float[np.ndarray, " C"]
    low: Float[np.ndarray, " C"]
    high: Float[np.ndarray, " C"]
    p_value: Float[np.ndarray, " C"]


def _differences(
    exposed: Bool[np.ndarray, "N C"], strata: IntArray, event: BoolArray
) -> _Differences:
    """Rate of an event with and without exposure, pooled over strata, for every concept."""
    kinds, stratum = np.unique(strata, return_inverse=True)
    count = np.zeros((len(kinds), exposed.shape[1]))
    n1, s1 = count.copy(), count.copy()
    np.add.at(n1, stratum, exposed)
    np.add.at(s1, stratum[event], exposed[event])
    n = np.bincount(stratum, minlength=len(kinds))[:, None].astype(float)
    s = np.bincount(stratum[event], minlength=len(kinds))[:, None].astype(float)
    n0, s0 = n - n1, s - s1
    weight = n1 * n0 / np.maximum(n, 1)
    total = np.maximum(weight.sum(axis=0), 1e-12)
    value = (weight * (s1 / np.maximum(n1, 1) - s0 / np.maximum(n0, 1))).sum(axis=0) / total
    spread = _variance(s1, n1) + _variance(s0, n0)
    se = np.sqrt((weight**2 * spread).sum(axis=0)) / total
    z = value / np.maximum(se, 1e-12)
    half = sps.norm.ppf(0.975) * se
    is_open = weight.sum(axis=0) > 0
    low = np.where(is_open, value - half, -1.0)
    return _Differences(value, low, value + half, np.where(is_open, sps.norm.sf(z), 1.0))


def _variance(s: FloatArray, n: FloatArray) -> FloatArray:
    """Variance of a rate, half an image added to either side."""
    p = (s + 0.5) / (n + 1)
    return np.asarray(p * (1 - p) / np.maximum(n, 1))


def _difference(all_: _Differences, c: int, event: BoolArray, there: BoolArray) -> Difference:
    rates = [float(event[rows].mean()) if rows.any() else float("nan") for rows in (there, ~there)]
    bounds: FloatArray = np.clip([all_.low[c], all_.high[c]], -1, 1)
    return Difference(
        float(all_.value[c]), (float(bounds[0]), float(bounds[1])), rates[0], rates[1], len(event)
    )
