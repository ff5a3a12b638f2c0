"""Margin: how far the best class is ahead of the second.

References:
    Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction,
    IDA 2001 (margin of the two best labels). Deviation: of logits, not of probabilities; it does
    not saturate, and for a linear head it is the distance to the boundary but for a factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.monitor.detector import CheckedDetector
from faultlens.monitor.features import Features


@dataclass(eq=False)
class Margin(CheckedDetector):
    """`second logit - best logit`, at most 0.

    Example:
        >>> features = Features(np.ones((2, 1)), np.array([[9.0, 0.0, 1.0], [0.5, 0.0, 0.5]]))
        >>> Margin().fit(features, np.array([0, 0])).score(features).tolist()
        [-8.0, 0.0]
    """

    family: ClassVar[str] = "margin"

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        return {}

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        top = np.partition(features.logits.astype(np.float64), -2, axis=1)[:, -2:]
        return np.asarray(top[:, 0] - top[:, 1])


def behind(scores: FloatArray, predictions: IntArray) -> FloatArray:
    """Return (N,) by how much the predicted class is behind the best other one, in (N, K) scores.

    Example:
        >>> behind(np.array([[2.0, 0.5], [2.0, 0.5]]), np.array([0, 1])).tolist()
        [-1.5, 1.5]
    """
    others = np.array(scores, np.float64)
    rows = np.arange(len(others))
    own = others[rows, predictions]
    others[rows, predictions] = -np.inf
    return np.asarray(others.max(axis=1) - own)
