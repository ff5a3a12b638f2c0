"""The softmax of logits, kept exact where it saturates.

A confident network has `1 - p = 1e-20`; computed as a difference that is 0, and all confident
images tie. Here such numbers come from the odds of the other classes, where nothing cancels.
"""

import numpy as np

from faultlens.arrays import FloatArray


def probabilities(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return the softmax of `logits / temperature`, (N, K) float64.

    Example:
        >>> probabilities(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
    """
    odds = odds_to_top(logits, temperature)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def odds_to_top(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return `p_j / p_top`, (N, K) float64 in [0, 1]; the top class itself has 1."""
    # Classes along the first axis in memory: sums over a few of them then run over whole rows.
    z = logits.T.astype(np.float64, order="C")
    z -= z.max(axis=0)
    z /= temperature
    return np.asarray(np.exp(z, out=z).T)


def other_odds(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return `p_j / p_top` of every class but the top one, which has 0; (N, K) float64.

    Example:
        >>> other_odds(np.array([[0.0, -50.0]])).tolist()[0][1] > 0
        True
    """
    odds = odds_to_top(logits, temperature)
    np.put_along_axis(odds, logits.argmax(axis=1)[:, None], 0.0, axis=1)
    return odds


def doubt(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return `1 - max softmax`, (N,) float64 in [0, 1), without cancellation.

    Example:
        >>> doubt(np.array([[0.0, 0.0], [0.0, -50.0]])).round(6).tolist()
        [0.5, 0.0]
    """
    odds = other_odds(logits, temperature).sum(axis=1)
    return np.asarray(odds / (1 + odds))
