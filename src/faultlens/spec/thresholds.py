"""Thresholds of `hasCon`: from which strength on an image has a concept."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.heatmaps import MIN_IMAGES

#: A threshold that tells with from without by less than this share is no threshold.
MIN_J = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """One threshold a concept.

    Attributes:
        values: (C,) strengths; NaN where there is none.
        j: (C,) true positive rate less false positive rate at the threshold, in [-1, 1]; NaN where
            it cannot be measured.
        reasons: Why there is none, by concept index.
    """

    values: FloatArray
    j: FloatArray
    reasons: Mapping[int, str]


def youden(strengths: FloatArray, has: BoolArray) -> tuple[float, float]:
    """Return the threshold that best tells images with a concept from those without.

    Args:
        strengths: (N,), above the threshold where the concept is.
        has: (N,) the truth, with both kinds.

    Returns:
        The threshold, half way between two strengths, and Youden's J there.

    Example:
        >>> youden(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]))
        (0.4, 1.0)

    References:
        Youden, Cancer 1950.
    """
    order = np.argsort(strengths, kind="stable")
    s, truth = np.asarray(strengths, float)[order], has[order]
    # Above the i-th cut are the images from i + 1 on; equal strengths stay together.
    above_with = truth.sum() - np.cumsum(truth)[:-1]
    above_without = (~truth).sum() - np.cumsum(~truth)[:-1]
    j = above_with / truth.sum() - above_without / (~truth).sum()
    j = np.where(s[1:] > s[:-1], j, -np.inf)
    if not np.isfinite(j).any():
        return float(s[0]), 0.0
    best = int(np.argmax(j))
    return float((s[best] + s[best + 1]) / 2), float(j[best])


def calibrate(
    strengths: FloatArray,
    labels: IntArray,
    relevant: BoolArray,
    attributes: Mapping[int, IntArray] | None = None,
) -> Thresholds:
    """Choose the threshold of every concept by Youden's J on reference images.

    Args:
        strengths: (N, C) of reference images.
        labels: (N,) classes.
        relevant: (K, C) which concepts a class should have; taken for the truth where there are no
            attribute labels.
        attributes: Concept index -> (N,) labels 1 with, 0 without, -1 unknown.

    Returns:
        The thresholds; a concept has none, with a reason, where fewer than 10 images are
        with it or without it, or where J is below 0.2.
    """
    n_concepts = strengths.shape[1]
    values, js = np.full(n_concepts, np.nan), np.full(n_concepts, np.nan)
    reasons: dict[int, str] = {}
    for c in range(n_concepts):
        truth = (attributes or {}).get(c)
        if truth is None and not relevant[:, c].any():
            reasons[c] = "no class lists it as relevant and no image is labelled with it"
            continue
        if truth is None:
            truth = relevant[labels, c].astype(np.int8)
        known = truth >= 0
        n_with, n_without = int((truth == 1).sum()), int((truth == 0).sum())
        if min(n_with, n_without) < MIN_IMAGES:
            reasons[c] = (
                f"{n_with} reference images are with it and {n_without} without, fewer than "
                f"{MIN_IMAGES}"
            )
            continue
        value, js[c] = youden(strengths[known, c], truth[known] == 1)
        if js[c] < MIN_J:
            reasons[c] = f"no threshold tells images with it from those without (J = {js[c]:.2f})"
            continue
        values[c] = value
    return Thresholds(values, js, reasons)
