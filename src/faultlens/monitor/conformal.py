"""Thresholds by split-conformal calibration: a false-alarm rate that holds on fresh images.

A false alarm is a correct prediction that is rejected. Scores of held-out correct predictions
are exchangeable with those to come, so their rank alone bounds the rate, whatever their
distribution.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from faultlens.arrays import BoolArray, FloatArray, IntArray, check_array, read_only
from faultlens.errors import InputError, InsufficientDataError, ShapeError

#: A class gets a threshold of its own where so many of its calibration images lie beyond it.
_MIN_BEYOND = 5
# (n + 1) α is a whole number for many common n and α, and rounding must not lose one.
_ROUNDING = 1e-9


def n_beyond(n: int, alpha: float) -> int:
    """Return how many of `n` calibration scores lie on or above the first one to be rejected.

    Example:
        >>> n_beyond(99, 0.05), n_beyond(10, 0.05)
        (4, -1)
    """
    return math.floor((n + 1) * alpha + _ROUNDING) - 1


def threshold(scores: FloatArray, alpha: float) -> float:
    """Return the score above which a prediction is rejected.

    Args:
        scores: (n,) of held-out correct predictions, any order.
        alpha: False-alarm rate, in (0, 1).

    Returns:
        The `⌈(n + 1)(1 - α)⌉`-th smallest score; infinity where n is too small for α.

    Example:
        >>> threshold(np.arange(1.0, 100.0), 0.05)
        95.0

    References:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.
    """
    beyond = n_beyond(len(scores), check_alpha(alpha))
    return float(np.sort(scores)[len(scores) - beyond - 1]) if beyond >= 0 else math.inf


def p_values(calibration: FloatArray, scores: FloatArray) -> FloatArray:
    """Return the share of calibration scores at least as high, each score counted among them.

    Args:
        calibration: (n,) scores of held-out images, ascending.
        scores: (N,).

    Returns:
        (N,) in [1 / (n + 1), 1]; at most α with a chance of at most α for an image like those of
        calibration. `p <= α` exactly where the score is above `threshold`.

    Example:
        >>> p_values(np.array([0.1, 0.2, 0.3]), np.array([0.25, 9.0])).tolist()
        [0.5, 0.25]
    """
    below = np.searchsorted(calibration, scores, side="left")
    return np.asarray((len(calibration) - below + 1) / (len(calibration) + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Scores of held-out correct predictions, and the rate they are used at.

    Attributes:
        alpha: Requested false-alarm rate.
        scores: (n,) ascending.
        predictions: (n,) class of each.
        thresholds: (K,) score above which a prediction of the class is rejected.
        own: (K,) classes with a threshold of their own; the others share the common one.
    """

    alpha: float
    scores: Float[np.ndarray, "n"]
    predictions: Integer[np.ndarray, "n"]
    thresholds: Float[np.ndarray, "K"]
    own: Bool[np.ndarray, "K"]

    @classmethod
    def of(
        cls,
        scores: FloatArray,
        predictions: IntArray,
        n_classes: int,
        *,
        alpha: float = 0.05,
        per_class: bool = False,
    ) -> "Calibration":
        """Calibrate.

        Args:
            scores: (n,) of correct predictions that nothing was fitted on.
            predictions: (n,) class of each, in [0, K).
            n_classes: K.
            alpha: Requested false-alarm rate, in (0, 1).
            per_class: Hold the rate in every predicted class by itself, where it has enough
                images for 5 to lie beyond its threshold (about 5 / α); the others are listed by
                `pooled`.

        Raises:
            InputError: α outside (0, 1).
            InsufficientDataError: Fewer than 1 / α - 1 scores.

        Example:
            >>> scores = np.arange(200.0)
            >>> classes = np.repeat([0, 1], [150, 50])
            >>> found = Calibration.of(scores, classes, 2, alpha=0.05, per_class=True)
            >>> found.thresholds.tolist(), found.pooled
            ([143.0, 190.0], (1,))
        """
        s = check_array(scores, "n", name="scores").astype(np.float64)
        k = check_array(predictions, "n", name="predictions", kind="int")
        if len(s) != len(k):
            raise ShapeError(f"predictions must have one entry a score, got {len(k)} for {len(s)}")
        common = threshold(s, alpha)
        if math.isinf(common):
            raise InsufficientDataError(
                f"calibration at alpha {alpha:g} must have at least {math.ceil(1 / alpha) - 1} "
                f"correct predictions, got {len(s)}; give more images or a larger alpha"
            )
        counts = np.bincount(k, minlength=n_classes)
        own = np.array([per_class and n_beyond(int(n), alpha) >= _MIN_BEYOND for n in counts])
        thresholds = [threshold(s[k == c], alpha) if own[c] else common for c in range(n_classes)]
        order = np.argsort(s, kind="stable")
        return cls(
            alpha, read_only(s[order]), read_only(k[order]), read_only(np.array(thresholds)),
            read_only(own),
        )  # fmt: skip

    @property
    def pooled(self) -> tuple[int, ...]:
        """Classes that use the common threshold."""
        return tuple(int(k) for k in np.flatnonzero(~self.own))

    def rejects(self, scores: FloatArray, predictions: IntArray) -> BoolArray:
        """Return (N,): whether each score lies above the threshold of its predicted class."""
        return np.asarray(scores > self.thresholds[predictions])

    def p_values(self, scores: FloatArray, predictions: IntArray) -> FloatArray:
        """Return (N,) in (0, 1]: `p <= alpha` exactly where `rejects`."""
        p = p_values(self.scores, scores)
        for k in np.unique(predictions):
            if self.own[k]:
                rows = predictions == k
                p[rows] = p_values(self.scores[self.predictions == k], scores[rows])
        return p


def check_alpha(alpha: float) -> float:
    """Return `alpha` if it is a rate; InputError otherwise."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be in (0, 1), got {alpha:g}; 0.05 rejects one in twenty")
    return alpha
