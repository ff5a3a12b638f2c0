"""Margins: how clearly a formula holds on an image, or fails.

The margin of a comparison is how far its sum lies above zero, counted in standard deviations of
that sum over the images, so that strengths and logits can be weighed against each other. Of all
parts it is the smallest margin, of any part the largest, of at least n the n-th largest. A formula
with a positive margin holds, with a negative one it does not. What is true of an image without a
measure, such as its label, has the margin infinity, or minus infinity.
"""

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.spec.formula import Comparison, Formula


def margins(formula: Formula, signals: FloatArray, n_measured: int) -> FloatArray:
    """Return how clearly a formula holds on each image.

    Args:
        formula: Ground.
        signals: (N, S) of all the images that it is asked of; float64.
        n_measured: Signals that were measured; those after them only say yes (1) or no (-1).

    Returns:
        (N,) in standard deviations; infinite where nothing that was measured decides.

    Example:
        >>> x = np.array([[2.0, 1.0], [1.0, 1.0], [0.0, -1.0]])
        >>> margins(Comparison(((0, 1.0),), -1.0), x, n_measured=1).round(2).tolist()
        [1.22, 0.0, -1.22]
        >>> margins(Comparison(((1, 1.0),)), x, n_measured=1).tolist()
        [inf, inf, -inf]

    References:
        The robustness of a temporal formula: Donzé and Maler, FORMATS 2010, without time; the
        scaling by standard deviations is added here.
    """
    if isinstance(formula, Comparison):
        return _of_comparison(formula, signals, n_measured)
    n = len(signals)
    if formula.n <= 0:
        return np.full(n, np.inf)
    if formula.n > len(formula.parts):
        return np.full(n, -np.inf)
    parts = np.stack([margins(part, signals, n_measured) for part in formula.parts])
    return np.asarray(np.sort(parts, axis=0)[len(parts) - formula.n])


def _of_comparison(leaf: Comparison, signals: FloatArray, n_measured: int) -> FloatArray:
    total = np.full(len(signals), leaf.constant, np.float64)
    for signal, weight in leaf.terms:
        total = total + weight * signals[:, signal]
    spread = float(total.std()) if len(total) else 0.0
    if spread == 0 or any(signal >= n_measured for signal, _ in leaf.terms):
        is_held = total > 0 if leaf.is_strict else total >= 0
        return np.where(is_held, np.inf, -np.inf)
    return np.asarray(total / spread)
