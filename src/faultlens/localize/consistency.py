"""Consistency: does a picture mean the same to the classifier after a change that no label minds?

A heatmap says which of two concepts is stronger. Where a mirrored or slightly darker picture
reverses many pairs in the classifier's embedding, but few in the vision-language model's, the
classifier's concepts hang on something else than what the picture shows.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.errors import ShapeError
from faultlens.heatmaps import MIN_IMAGES
from faultlens.stats import holm

_Z = 1.959964


@dataclass(frozen=True, slots=True, eq=False)
class Consistency:
    """How n images fare under A changes that keep their label.

    Attributes:
        rows: (n,) which of the analysed images.
        model: (n,) share of concept pairs whose order a change reverses in the classifier's
            embedding, mean over changes, in [0, 1].
        vlm: (n,) the same in the VLM's: what the picture itself loses.
        flips: (n,) share of changes that change the prediction.
        weight: (n,) in [0, 1]: how much the image is worth training on.
    """

    rows: IntArray
    model: FloatArray
    vlm: FloatArray
    flips: FloatArray
    weight: FloatArray

    @property
    def excess(self) -> FloatArray:
        """(n,) what the classifier loses beyond the picture; negative where it loses less."""
        return np.asarray(self.model - self.vlm)


def inconsistency(own: FloatArray, views: FloatArray) -> FloatArray:
    """Return the share of concept pairs that a change reverses, mean over changes.

    Args:
        own: (N, C) strengths of the pictures, of valid concepts.
        views: (A, N, C) of the same pictures changed.

    Returns:
        (N,) in [0, 1]: one minus the mean agreement of the heatmaps' cells.

    Raises:
        ShapeError: Shapes that do not match, or fewer than two concepts.

    Example:
        >>> own = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
        >>> inconsistency(own, np.array([[[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]]])).round(2).tolist()
        [0.0, 0.33]
    """
    if views.ndim != 3 or views.shape[1:] != own.shape:
        raise ShapeError(
            f"views must be (changes, {own.shape[0]}, {own.shape[1]}), got {views.shape}; "
            "give the strengths of the same images and concepts"
        )
    if own.shape[1] < 2:
        raise ShapeError("own must have at least 2 concepts, got 1; a heatmap compares pairs")
    first, second = np.triu_indices(own.shape[1], 1)
    order = own[:, first] > own[:, second]
    changed = [((v[:, first] > v[:, second]) != order).mean(axis=1) for v in views]
    return np.asarray(np.mean(changed, axis=0))


def training_weights(excess: FloatArray, wrong: FloatArray, vlm_is_right: BoolArray) -> FloatArray:
    """Weigh images by what there is to learn from them.

    An image is worth training on where the classifier is wrong about it, or becomes so, though the
    VLM is right: the picture shows what it should. The less consistent the classifier is about it
    among all images, the more.

    Args:
        excess: (N,) inconsistency beyond the VLM's.
        wrong: (N,) share of the picture and its changes that are misclassified.
        vlm_is_right: (N,) on the pictures as they are.

    Returns:
        (N,) in [0, 1]: the quantile of `excess` times `wrong`; 0 where the VLM is wrong.

    Example:
        >>> training_weights(np.array([0.3, 0.1, 0.2]), np.array([1.0, 1.0, 0.5]),
        ...                  np.array([True, True, False])).round(2).tolist()
        [1.0, 0.33, 0.0]
    """
    quantile = sps.rankdata(excess) / max(len(excess), 1)
    return np.asarray(np.where(vlm_is_right, quantile * wrong, 0.0))


@dataclass(frozen=True, slots=True)
class ClassConsistency:
    """One class against all others.

    Attributes:
        k: Class index.
        n: Images of the class.
        model: Mean inconsistency in the classifier's embedding.
        vlm: Mean inconsistency in the VLM's.
        flips: Mean share of changes that change the prediction.
        difference: Mean excess of the class minus that of the others.
        interval: Its 95 % interval.
        p_value: Welch's test that the excess is larger than the others', after Holm over classes.
    """

    k: int
    n: int
    model: float
    vlm: float
    flips: float
    difference: float
    interval: tuple[float, float]
    p_value: float


def by_class(found: Consistency, labels: IntArray) -> list[ClassConsistency]:
    """Compare the classes of the sampled images.

    Args:
        found: Consistency of n images.
        labels: (n,) of the same images.

    Returns:
        Classes with at least 10 images that differ from another class's, least consistent first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, none = np.repeat([0, 1], 40), np.zeros(80)
        >>> model = 0.1 + 0.1 * (y == 1) + rng.normal(0, 0.02, 80)
        >>> found = by_class(Consistency(np.arange(80), model, none, none, none), y)
        >>> [(c.k, round(c.difference, 1), c.p_value < 0.01) for c in found]
        [(1, 0.1, True), (0, -0.1, False)]
    """
    counts = np.bincount(labels)
    classes = [k for k, n in enumerate(counts) if n >= MIN_IMAGES]
    if len(classes) < 2:
        return []
    out = [_against_others(found, labels == k, k) for k in classes]
    adjusted = holm(np.array([c[-1] for c in out]))
    compared = [ClassConsistency(*c[:-1], float(p)) for c, p in zip(out, adjusted, strict=True)]
    return sorted(compared, key=lambda c: -c.difference)


_Compared = tuple[int, int, float, float, float, float, tuple[float, float], float]


def _against_others(found: Consistency, of: BoolArray, k: int) -> _Compared:
    a, b = found.excess[of], found.excess[~of]
    difference = float(a.mean() - b.mean())
    se = float(np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / max(len(b), 1)))
    # Without any spread nothing can be told apart.
    p = float(sps.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue) if se else 1.0
    return (
        k, int(of.sum()), float(found.model[of].mean()), float(found.vlm[of].mean()),
        float(found.flips[of].mean()), difference,
        (difference - _Z * se, difference + _Z * se), p,
    )  # fmt: skip
