"""Heatmap detectors: is an image's heatmap nearer to those of errors than of correct images?

For the predicted class p two output heatmaps are kept: of images that were predicted as p
rightly, and wrongly. The single-input heatmap h(x) of a new image is compared with both by one of
five measures. A heatmap is held as `G = 2 H - 1` over the pairs a < b, which is all there is to it
without ties: `H[b, a] = 1 - H[a, b]`.

References:
    Hu et al., Debugging and Runtime Analysis of Neural Networks with VLMs (A Case Study), CAIN
    2025, arXiv:2503.17416 (runtime analysis by heatmaps). Deviations: a tie counts half for either
    side; heatmaps of few images are shrunk towards the one of all classes, so that a class without
    errors still has one; the measures beside the cosine are ours. Heatmaps of adversarial images
    enter by fitting with such images and their true labels.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import logit

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.errors import InputError, ShapeError
from faultlens.heatmaps import MIN_IMAGES, HeatmapCounts
from faultlens.monitor.detector import CheckedDetector
from faultlens.monitor.features import Features
from faultlens.monitor.pairs import concept_pairs, pair_signs, pair_sums


@dataclass(frozen=True, slots=True, eq=False)
class OutputHeatmaps:
    """Output heatmaps of every predicted class, apart for wrong and right predictions.

    Attributes:
        wrong: (K, M) estimated chance that concept a beats b, over the pairs a < b.
        right: (K, M) the same over right predictions.
        n_wrong: (K,) images behind each.
        n_right: (K,) images behind each.
    """

    wrong: Float[np.ndarray, "K M"]
    right: Float[np.ndarray, "K M"]
    n_wrong: IntArray
    n_right: IntArray

    @classmethod
    def of(cls, features: Features, labels: IntArray, shrink: float) -> "OutputHeatmaps":
        """Estimate them: Laplace over all classes, each class shrunk by `shrink` images."""
        n_classes = features.logits.shape[1]
        wrong = features.predictions != labels
        groups = features.predictions + n_classes * wrong
        counts = HeatmapCounts.of(features.space("strengths"), groups, 2 * n_classes)
        first, second = concept_pairs(counts.wins.shape[1])
        n = counts.n[:, None]
        wins = (
            counts.wins[:, first, second] + n - counts.wins[:, second, first]
        ) / 2  # a tie is half a win

        def shrunk(part: slice) -> FloatArray:
            everyone = (wins[part].sum(axis=0) + 1) / (n[part].sum() + 2)
            return np.asarray((wins[part] + shrink * everyone) / (n[part] + shrink))

        right, rest = slice(n_classes), slice(n_classes, None)
        return cls(shrunk(rest), shrunk(right), counts.n[rest], counts.n[right])


@dataclass(eq=False)
class HeatmapDetector(CheckedDetector):
    """What the measures share: counting, weighted sums over pairs, and reasons.

    Attributes:
        shrink: Images that the heatmap of all classes is worth in each class, above 0.
    """

    shrink: float = float(MIN_IMAGES)

    def __post_init__(self) -> None:
        if not self.shrink > 0:
            raise InputError(f"shrink must be above 0, got {self.shrink}; 10 is usual")

    @property
    def spaces(self) -> tuple[str, ...]:
        """Strengths, and the logits for the prediction."""
        return ("strengths", "logits")

    @abstractmethod
    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        """Return `weights` (K, J, M) of the pairs, and what `_combine` needs: `offset` (K,)."""

    def _combine(
        self, sums: FloatArray, predictions: IntArray, fitted: Mapping[str, Array]
    ) -> FloatArray:
        """Return the (N,) scores from the (N, J) sums over pairs and the offset of the class."""
        return np.asarray(sums[:, 0] + fitted["offset"][predictions])

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        if features.space("strengths").shape[1] < 2:
            raise ShapeError("strengths must have at least two concepts, got 1; add concepts")
        learned = self._weigh(OutputHeatmaps.of(features, labels, self.shrink))
        return learned | {"weights": learned["weights"].astype(np.float32)}

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        predictions = features.predictions
        sums = pair_sums(features.space("strengths"), predictions, fitted["weights"])
        return self._combine(sums, predictions, fitted)

    def contradictions(self, features: Features, n: int = 3) -> tuple[IntArray, FloatArray]:
        """Return the concept pairs that speak most against each prediction.

        Args:
            features: N images; a few, since every pair of each is laid out.
            n: Pairs an image, at most C(C-1)/2.

        Returns:
            (N, n, 2) concept indices, the stronger first, worst pair first; and (N, n) parts of
            the score, 0 where a pair does not contradict the prediction.

        Raises:
            NotFittedError: `fit` was not called.
        """
        weights, strengths = self.fitted()["weights"], features.space("strengths")
        # With two sums an image the score falls as the second one grows.
        net = weights[:, 0] - weights[:, 1] if weights.shape[1] > 1 else weights[:, 0]
        signs = pair_signs(strengths)
        parts = signs * net[features.predictions]
        worst = np.argsort(-parts, axis=1, kind="stable")[:, :n]
        pairs = np.stack(concept_pairs(strengths.shape[1]), axis=1)[worst]
        backwards = np.take_along_axis(signs, worst, axis=1) < 0
        pairs[backwards] = pairs[backwards][:, ::-1]
        return pairs, np.maximum(np.take_along_axis(parts, worst, axis=1), 0).astype(np.float64)


def _unit(heatmap: FloatArray, reliability: FloatArray) -> FloatArray:
    """Return rows of `2 H - 1` at length 1 in the metric of `reliability`; zeros stay zero."""
    centred = 2 * heatmap - 1
    length = np.sqrt((reliability * centred**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


def _cosines(heatmaps: OutputHeatmaps, reliability: FloatArray) -> dict[str, Array]:
    """Return what gives the difference of two cosines, with cells counted by reliability."""
    own = np.sqrt(reliability.sum(axis=1, keepdims=True))  # the length of h(x): cells are ±1
    difference = _unit(heatmaps.wrong, reliability) - _unit(heatmaps.right, reliability)
    share = np.divide(reliability, own, out=np.zeros_like(reliability), where=own > 0)
    return {"weights": (share * difference)[:, None], "offset": np.zeros(len(share))}


@dataclass(eq=False)
class CosineHeatmap(HeatmapDetector):
    """The paper's: cosine over centred cells to the wrong heatmap, less that to the right one.

    In [-2, 2].

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> detector = CosineHeatmap().fit(features, np.array([0, 0, 1]))
        >>> detector.score(features).round(3).tolist()
        [-2.0, -2.0, 2.0]
        >>> detector.contradictions(features.select([2]), n=1)[0].tolist()
        [[[1, 0]]]
    """

    family: ClassVar[str] = "heatmap"

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        return _cosines(heatmaps, np.ones_like(heatmaps.right))


@dataclass(eq=False)
class WeightedHeatmap(HeatmapDetector):
    """The cosine with cells counted by their reliability.

    Reliability of a cell: the share of its squared difference that is not noise of sampling,
    `Δ² / (Δ² + variance of Δ)`, in [0, 1].

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> WeightedHeatmap().fit(features, np.array([0, 0, 1])).score(features).argmax().item()
        2
    """

    family: ClassVar[str] = "heatmap-weighted"

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        h = heatmaps
        noise = h.wrong * (1 - h.wrong) / (h.n_wrong[:, None] + self.shrink) + h.right * (
            1 - h.right
        ) / (h.n_right[:, None] + self.shrink)
        signal = (h.wrong - h.right) ** 2
        return _cosines(h, signal / (signal + noise))


@dataclass(eq=False)
class DistanceHeatmap(HeatmapDetector):
    """Mean squared difference to the right heatmap, less that to the wrong one; in [-1, 1].

    Unlike the cosine it does not blow up a flat heatmap of errors to the contrast of a sharp one.

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> DistanceHeatmap().fit(features, np.array([0, 0, 1])).score(features).argmax().item()
        2
    """

    family: ClassVar[str] = "heatmap-distance"

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        wrong, right = 2 * heatmaps.wrong - 1, 2 * heatmaps.right - 1
        offset = (right**2 - wrong**2).mean(axis=1) / 4
        return {"weights": ((wrong - right) / (2 * wrong.shape[1]))[:, None], "offset": offset}


@dataclass(eq=False)
class JaccardHeatmap(HeatmapDetector):
    """Jaccard index with the binarized wrong heatmap, less that with the right one.

    Both are sets of ordered pairs (a, b) with a ahead of b; pairs that a class heatmap leaves
    undefined do not count. In [-1, 1].

    Attributes:
        threshold: τ in [0.5, 1] of binarizing.

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> JaccardHeatmap().fit(features, np.array([0, 0, 1])).score(features).tolist()
        [-1.0, -1.0, 1.0]
    """

    family: ClassVar[str] = "heatmap-jaccard"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.threshold <= 1:
            raise InputError(f"threshold must be in [0.5, 1], got {self.threshold}")

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        centred = 2 * np.stack([heatmaps.wrong, heatmaps.right], axis=1) - 1
        bits = np.where(np.abs(centred) >= 2 * self.threshold - 1, np.sign(centred), 0)
        return {"weights": bits / 2, "n_defined": np.abs(bits).sum(axis=2)}

    def _combine(
        self, sums: FloatArray, predictions: IntArray, fitted: Mapping[str, Array]
    ) -> FloatArray:
        n = fitted["n_defined"][predictions]
        shared = n / 2 + sums  # defined pairs on which the image agrees
        union = 2 * n - shared
        index = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        return np.asarray(index[:, 0] - index[:, 1])


@dataclass(eq=False)
class BayesHeatmap(HeatmapDetector):
    """Naive Bayes over cells: the log odds, in nats, that the prediction is wrong.

    Cells are taken as independent given the predicted class and whether it is right, which they
    are not: the order of images is meant, not the size of the odds.

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> BayesHeatmap().fit(features, np.array([0, 0, 1])).score(features).argmax().item()
        2
    """

    family: ClassVar[str] = "heatmap-bayes"

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        h = heatmaps
        spread = np.log(h.wrong * (1 - h.wrong)) - np.log(h.right * (1 - h.right))
        prior = np.log((h.n_wrong + 1) / (h.n_right + 1))
        weights = (logit(h.wrong) - logit(h.right)) / 2
        return {"weights": weights[:, None], "offset": spread.sum(axis=1) / 2 + prior}
