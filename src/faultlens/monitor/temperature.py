"""Temperature-scaled maximum softmax probability.

References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599,
    section 4.2. Deviation: T is sought in [0.05, 20] by a bounded scalar search, so that a
    network without errors gets a low one instead of 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.monitor.detector import CheckedDetector
from faultlens.monitor.features import Features
from faultlens.monitor.softmax import doubt, odds_to_top

_LOWEST, _HIGHEST = 0.05, 20.0


def negative_log_likelihood(logits: FloatArray, labels: IntArray, temperature: float) -> float:
    """Return the mean of `-log softmax(logits / temperature)` at the labels, in nats.

    Example:
        >>> round(negative_log_likelihood(np.zeros((3, 2)), np.array([0, 1, 1]), 2.0), 4)
        0.6931
    """
    z = logits.astype(np.float64)
    gap = (z.max(axis=1) - z[np.arange(len(z)), labels]) / temperature
    return float(np.mean(gap + np.log(odds_to_top(logits, temperature).sum(axis=1))))


@dataclass(eq=False)
class TemperatureMsp(CheckedDetector):
    """`1 - max softmax(logits / T)`, T fitted by the likelihood of the labels.

    Example:
        >>> logits = np.array([[4.0, 0.0]] * 4)
        >>> features = Features(np.ones((4, 1)), logits)
        >>> detector = TemperatureMsp().fit(features, np.array([0, 0, 0, 1]))
        >>> detector.score(features.select([0])).round(3).tolist()
        [0.25]
    """

    family: ClassVar[str] = "temperature"

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        found = minimize_scalar(
            lambda log_t: negative_log_likelihood(features.logits, labels, float(np.exp(log_t))),
            bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
            method="bounded",
        )
        return {"temperature": np.array(np.exp(found.x))}

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        return doubt(features.logits, float(fitted["temperature"]))
