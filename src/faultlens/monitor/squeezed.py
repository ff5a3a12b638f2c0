"""What the classifier says of the same image changed a little, against what it says of the image.

A right prediction survives a flip or a small zoom. An attack is tuned to the pixels as they are:
under the change its class loses ground, to the true one or to any.

References:
    Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks,
    NDSS 2018, arXiv:1704.01155 (`FeatureSqueezing`).
    Deviations: the changes are those of the features, a flip and a smaller copy by default, not
    fewer bits or smoothing; the margin under change and the joint distribution are of this project.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.monitor.detector import CheckedDetector
from faultlens.monitor.features import SQUEEZE, Features
from faultlens.monitor.layered import ClassGaussians, correct
from faultlens.monitor.margin import behind


@dataclass(eq=False)
class _Squeezed(CheckedDetector):
    """Reads every `squeeze:` of the features, (N, K) logits each."""

    def _read(self, features: Features) -> tuple[str, ...]:
        return ("logits", *features.named(SQUEEZE))

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        features.named(SQUEEZE)
        return {}


@dataclass(eq=False)
class FeatureSqueezing(_Squeezed):
    """Largest L1 distance of softmax outputs between the image and its changed versions.

    Example:
        >>> logits = np.array([[2.0, 0.0]])
        >>> features = Features(logits, logits, layers={"squeeze:flip": -logits})
        >>> FeatureSqueezing().fit(features, np.array([0])).score(features).round(2).tolist()
        [1.52]
    """

    family: ClassVar[str] = "feature-squeezing"

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        p = special.softmax(features.logits.astype(np.float64), axis=1)
        distances = [
            np.abs(special.softmax(features.space(name).astype(np.float64), axis=1) - p).sum(axis=1)
            for name in features.named(SQUEEZE)
        ]
        return np.asarray(np.max(distances, axis=0))


@dataclass(eq=False)
class SqueezedMargin(_Squeezed):
    """By how much the predicted class is behind the best other one, on average over the changes.

    Example:
        >>> logits = np.array([[2.0, 0.0]])
        >>> features = Features(logits, logits, layers={"squeeze:flip": -logits})
        >>> SqueezedMargin().fit(features, np.array([0])).score(features).tolist()
        [2.0]
    """

    family: ClassVar[str] = "squeezed-margin"

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        margins = [
            behind(features.space(name), features.predictions) for name in features.named(SQUEEZE)
        ]
        return np.asarray(np.mean(margins, axis=0))


@dataclass(eq=False)
class SqueezedJoint(_Squeezed):
    """Mahalanobis distance of the logits together with their shifts under the changes.

    A boundary attack leaves a small margin, a strong one a shift that is large for its margin;
    both are far from what correct predictions of the class show jointly.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(200, 3)) + 9 * np.repeat(np.eye(3), [70, 70, 60], axis=0)
        >>> shifted = logits + rng.normal(size=(200, 3)) / 4
        >>> features = Features(logits, logits, layers={"squeeze:flip": shifted})
        >>> detector = SqueezedJoint().fit(features, logits.argmax(axis=1))
        >>> attacked = Features(logits[:1], logits[:1], layers={"squeeze:flip": shifted[-1:]})
        >>> bool(detector.score(attacked)[0] > detector.score(features).max())
        True
    """

    family: ClassVar[str] = "squeezed-joint"

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        right = correct(features, labels)
        n_classes = features.logits.shape[1]
        return ClassGaussians.of(_joint(right), right.predictions, n_classes).state()

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        gaussians = ClassGaussians(fitted["axes"], fitted["means"], fitted["scale"])
        return gaussians(_joint(features), features.predictions)


def _joint(features: Features) -> FloatArray:
    """Return (N, K + J K): logits, and their shift under each change, all centred over classes."""
    own = _centred(features.logits)
    shifts = [_centred(features.space(name)) - own for name in features.named(SQUEEZE)]
    return np.concatenate([own, *shifts], axis=1)


def _centred(logits: FloatArray) -> FloatArray:
    x = logits.astype(np.float64)
    return np.asarray(x - x.mean(axis=1, keepdims=True))
