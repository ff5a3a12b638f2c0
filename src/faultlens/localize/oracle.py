"""The oracle: does the embedding of a misclassified image still carry the right meaning?

The mapped embedding `A(z)` is classified with the VLM's class directions (Hu et al., CAIN 2025,
arXiv:2503.17416). Right: the head erred. Wrong: the encoder erred. Only where the VLM itself gets
the image right is the oracle asked at all.
"""

import numpy as np
from jaxtyping import Float

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths
from faultlens.heatmaps import MIN_IMAGES, ClassCounts


def gate(vlm_predictions: IntArray, labels: IntArray, class_is_valid: BoolArray) -> BoolArray:
    """Return (N,) where the oracle may be asked.

    Args:
        vlm_predictions: (N,) zero-shot classes of the VLM on the images themselves.
        labels: (N,).
        class_is_valid: (K,) classes that the VLM recognises at all on this data.

    Example:
        >>> gate(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([True, False])).tolist()
        [True, False, False]
    """
    return np.asarray((vlm_predictions == labels) & class_is_valid[labels])


def heatmap_evidence(
    strengths: Strengths, labels: IntArray, predictions: IntArray, counts: ClassCounts
) -> FloatArray:
    """Compare each image's own heatmap with those of its label and of its prediction.

    Both references come from correctly classified images. Deviation from the paper, which does
    not say how heatmaps are compared: cosine of cells centred at 1/2, without the diagonal.

    Args:
        strengths: (N, C) of the classifier.
        labels: (N,).
        predictions: (N,).
        counts: Heatmap counts of the classifier.

    Returns:
        (N,) in [-2, 2]: positive where the image looks like its label (evidence against the
        head), negative where it looks like its prediction (against the encoder); NaN where one
        of the two classes has fewer than 10 correctly classified images.
    """
    reference = _profiles(counts)
    out = np.empty(len(strengths))
    for i, s in enumerate(strengths):
        h = _unit(_off_diagonal((s[:, None] > s[None, :]).astype(np.float64)))
        out[i] = h @ (reference[labels[i]] - reference[predictions[i]])
    return out


def _profiles(counts: ClassCounts) -> Float[np.ndarray, "K cells"]:
    n = counts.correct.n[:, None, None]
    with np.errstate(invalid="ignore"):
        values = np.where(n >= MIN_IMAGES, counts.correct.wins / n, np.nan)
    return np.stack([_unit(_off_diagonal(v)) for v in values])


def _off_diagonal(h: FloatArray) -> FloatArray:
    return h[~np.eye(len(h), dtype=bool)] - 0.5


def _unit(x: FloatArray) -> FloatArray:
    norm = np.linalg.norm(x)
    return x / norm if norm > 0 else x
