"""Coordinates in which a covariance is the identity."""

import numpy as np

from faultlens.arrays import FloatArray

_CUT = 1e-7  # of the largest variance: below it float32 features hold rounding only


def whitener(centred: FloatArray) -> FloatArray:
    """Return the (D, r) map to coordinates of unit variance.

    Directions without variance, such as a dead channel, are left out: r is the rank, and the
    squared length of mapped points is their Mahalanobis distance by the pseudo-inverse.

    Args:
        centred: (N, D) deviations from a mean.

    Returns:
        (D, r) float64; r is 0 where nothing varies.

    Example:
        >>> whitener(np.array([[2.0, 0.0], [-2.0, 0.0]])).round(3).tolist()
        [[0.5], [0.0]]
    """
    x = centred.astype(np.float64)
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    kept = variances > max(float(variances[-1]), 0.0) * _CUT
    directions = axes[:, kept]
    signs = np.where(directions.sum(axis=0) < 0, -1.0, 1.0)  # an axis has no sign: fix one
    return np.asarray(signs * directions / np.sqrt(variances[kept]))
