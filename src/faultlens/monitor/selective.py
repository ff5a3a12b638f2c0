"""Selective prediction: accept the largest share of images whose error rate stays below a limit.

The limit holds with a stated confidence on fresh images. Of k accepted calibration images,
those strictly below the k-th smallest score err independently at the rate of all fresh images
below it, so an exact binomial bound holds for any k that was fixed in advance.
"""

import math
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray, check_array
from faultlens.errors import InputError, ShapeError
from faultlens.stats import clopper_pearson

#: Shares of the images at which the search for the largest coverage sets out.
_STARTS = (0.1, 0.3, 0.5, 0.7, 0.9)
_N_STEPS = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """What to accept.

    Attributes:
        threshold: Images with a score below it are accepted; minus infinity accepts none.
        coverage: Share of the calibration images that is accepted.
        error_rate: Of the accepted calibration images; NaN where none is.
        bound: Upper bound of the error rate on fresh images, at confidence `1 - delta`; NaN where
            none is accepted.
    """

    threshold: float
    coverage: float
    error_rate: float
    bound: float

    def accepts(self, scores: FloatArray) -> BoolArray:
        """Return (N,): whether each image is accepted."""
        return np.asarray(scores < self.threshold)


def select(
    scores: FloatArray, wrong: BoolArray, max_error: float, delta: float = 0.05
) -> Selection:
    """Find the threshold that accepts most while the error rate is at most `max_error`.

    Args:
        scores: (n,) of held-out images, higher = more abnormal.
        wrong: (n,) whether the prediction is wrong.
        max_error: Limit of the error rate among the accepted, in (0, 1).
        delta: Chance that the limit is broken on fresh images, in (0, 1).

    Raises:
        InputError: A rate outside (0, 1).
        ShapeError: Lengths differ.

    Example:
        >>> wrong = np.arange(1000) >= 800
        >>> found = select(np.arange(1000.0), wrong, max_error=0.05)
        >>> 0.8 < found.coverage < 0.84, found.bound <= 0.05
        (True, True)

    References:
        Geifman and El-Yaniv, NeurIPS 2017, arXiv:1705.08500. Deviation: their binary search
        visits thresholds that depend on earlier bounds; here growing coverages are tested in a
        fixed order from five fixed starts, each at δ / 5, up to the first that fails (fixed
        sequence testing: Angelopoulos et al., arXiv:2110.01052), which is exact.
    """
    s = check_array(scores, "n", name="scores").astype(np.float64)
    w = np.asarray(wrong, bool)
    if w.shape != s.shape:
        raise ShapeError(f"wrong must have one entry a score, got {len(w)} for {len(s)}")
    for name, rate in (("max_error", max_error), ("delta", delta)):
        if not 0 < rate < 1:
            raise InputError(f"{name} must be in (0, 1), got {rate:g}; 0.05 is one in twenty")
    order = np.argsort(s, kind="stable")
    s, errors = s[order], np.concatenate([[0], np.cumsum(w[order])])
    n = len(s)
    sizes = np.unique(np.ceil(np.arange(1, _N_STEPS + 1) / _N_STEPS * n).astype(np.int64))
    # `sizes - 1`: the image at the threshold is itself not accepted.
    accepted = np.searchsorted(s, s[sizes - 1], side="left")
    bounds = clopper_pearson(errors[accepted], accepted, 1 - 2 * delta / len(_STARTS))[1]
    passes = (bounds <= max_error) & (accepted > 0)
    best = max((_walk(passes, sizes, start * n) for start in _STARTS), default=-1)
    if best < 0:
        return Selection(-math.inf, 0.0, math.nan, math.nan)
    k = int(accepted[best])
    return Selection(float(s[sizes[best] - 1]), k / n, float(errors[k] / k), float(bounds[best]))


def _walk(passes: BoolArray, sizes: IntArray, start: float) -> int:
    """Return the last index that passes in an unbroken row from `start`; -1 where none does."""
    first = int(np.searchsorted(sizes, start))
    failures = np.flatnonzero(~passes[first:])
    last = first + int(failures[0]) - 1 if len(failures) else len(passes) - 1
    return last if last >= first else -1
