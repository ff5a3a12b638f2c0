"""Mahalanobis distance to the nearest class mean, one covariance for all classes.

References:
    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks, NeurIPS 2018, arXiv:1807.03888, section 2.1.
    Deviations: one space instead of an ensemble of layers, and no input perturbation; directions
    without variance are left out (pseudo-inverse).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.monitor.detector import SpaceDetector
from faultlens.monitor.features import Features
from faultlens.monitor.whitening import whitener


def class_means(points: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the (G, D) float64 means of the classes that occur, and each image's row in them.

    Example:
        >>> means, rows = class_means(np.array([[1.0], [3.0], [5.0]]), np.array([7, 7, 2]))
        >>> means.tolist(), rows.tolist()
        ([[5.0], [2.0]], [1, 1, 0])
    """
    _, rows, n = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(n), points.shape[1]))
    np.add.at(sums, rows, points.astype(np.float64))
    return sums / n[:, None], rows


def nearest_mean(points: FloatArray, centre: Array, axes: Array, means: Array) -> FloatArray:
    """Return the squared distance to the nearest mean in whitened coordinates, (N,) float64.

    Args:
        points: (N, D).
        centre: (D,) taken off before mapping, against cancellation.
        axes: (D, r) from `whitener`.
        means: (G, r) class means, mapped alike.
    """
    u = (points - centre) @ axes
    squares = (u * u).sum(axis=1)[:, None] - 2 * u @ means.T + (means * means).sum(axis=1)
    return np.asarray(np.maximum(squares.min(axis=1), 0))


@dataclass(eq=False)
class Mahalanobis(SpaceDetector):
    """Squared Mahalanobis distance to the nearest class mean.

    Attributes:
        space: `embeddings`, `strengths` or the name of an inner layer.

    Example:
        >>> points = np.array([[0.0, 0], [0, 2], [5, 0], [5, 2]])
        >>> features = Features(points, np.zeros((4, 2)))
        >>> detector = Mahalanobis().fit(features, np.array([0, 0, 1, 1]))
        >>> detector.score(Features(np.array([[5, 4.0]]), np.zeros((1, 2)))).round(6).tolist()
        [9.0]
    """

    family: ClassVar[str] = "mahalanobis"

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        points = features.space(self.space)
        means, rows = class_means(points, labels)
        axes = whitener(points - means[rows])
        centre = points.mean(axis=0, dtype=np.float64)
        return {"centre": centre, "axes": axes, "means": (means - centre) @ axes}

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        points = features.space(self.space)
        return nearest_mean(points, fitted["centre"], fitted["axes"], fitted["means"])


@dataclass(eq=False)
class StrengthMahalanobis(Mahalanobis):
    """The same in the space of concept strengths."""

    space: str = "strengths"
