"""Restoring biases: the lightest fix, one number a class."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from faultlens.arrays import FloatArray
from faultlens.fixes.trial import Material, Part
from faultlens.models.head import Head

#: Keeps a bias finite where the images would let it grow for ever.
_PENALTY = 1e-3


def rebiased(material: Material, part: Part, chosen: NDArray[np.int64]) -> Head:
    """Refit only the biases of some classes by class-balanced cross-entropy.

    Args:
        material: The images and the shipped linear head.
        part: The reference set.
        chosen: Class indices; those without reference images keep their bias.
    """
    chosen = np.intersect1d(chosen, np.flatnonzero(np.isfinite(part.bias)))
    labels = material.labels[part.reference]
    logits = material.head(material.embeddings[part.reference]).astype(np.float64)
    # Logits differ in scale from head to head; the penalty must not.
    scale = float(logits.std()) or 1.0
    counts = np.bincount(labels, minlength=logits.shape[1])
    share = 1 / (np.count_nonzero(counts) * counts[labels])
    rows = np.arange(len(labels))

    def objective(shift: FloatArray) -> tuple[float, FloatArray]:
        moved = logits.copy()
        moved[:, chosen] += shift * scale
        log_p = special.log_softmax(moved, axis=1)
        residual = np.exp(log_p)
        residual[rows, labels] -= 1
        gradient = scale * (share @ residual)[chosen] + _PENALTY * shift
        return -float(share @ log_p[rows, labels]) + _PENALTY / 2 * float(shift @ shift), gradient

    found = optimize.minimize(objective, np.zeros(len(chosen)), jac=True, method="L-BFGS-B").x
    bias = material.head.bias.astype(np.float64)
    bias[chosen] += found * scale
    return material.head.replace(material.head.weight, bias)
