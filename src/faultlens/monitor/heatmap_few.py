"""Naive Bayes over the few concept pairs that tell most: heatmap evidence at low cost.

With C concepts a heatmap has C (C - 1) / 2 pairs, most of which say the same or nothing. A fixed
number of them is kept for all classes, so that an image costs a few hundred comparisons whatever C.

References:
    Hu et al., CAIN 2025, arXiv:2503.17416 (runtime analysis by heatmaps). Choosing features by
    their information for naive Bayes: McCallum and Nigam, AAAI workshop 1998. Deviation: the pairs
    are chosen by a symmetric divergence between wrong and right predictions, over all classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import logit

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.errors import InputError
from faultlens.monitor.blocks import MANY, each, row_blocks
from faultlens.monitor.features import Features
from faultlens.monitor.heatmap import BayesHeatmap, OutputHeatmaps
from faultlens.monitor.pairs import concept_pairs


@dataclass(eq=False)
class FewPairs(BayesHeatmap):
    """The log odds, in nats, that the prediction is wrong, from the pairs that tell most.

    A pair tells by how far its share differs between wrong and right predictions: the symmetric
    Kullback-Leibler divergence `(w - r) (logit w - logit r)`, averaged over the classes by their
    wrong predictions.

    Attributes:
        n_pairs: That are kept, at least 1.

    Example:
        >>> s = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.1, 0.7, 0.5]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s)
        >>> detector = FewPairs(n_pairs=1).fit(features, np.array([0, 0, 1]))
        >>> detector.score(features).argmax().item(), detector.state()["pairs"].tolist()
        (2, [[0, 1]])
    """

    family: ClassVar[str] = "heatmap-few"
    n_pairs: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_pairs < 1:
            raise InputError(f"n_pairs must be at least 1, got {self.n_pairs}; 200 are usual")

    def _weigh(self, heatmaps: OutputHeatmaps) -> dict[str, Array]:
        h = heatmaps
        log_odds = logit(h.wrong) - logit(h.right)
        share = (h.n_wrong + 1) / (h.n_wrong + 1).sum()
        told = share @ ((h.wrong - h.right) * log_odds)
        kept = np.sort(np.argsort(-told, kind="stable")[: self.n_pairs])
        few = OutputHeatmaps(h.wrong[:, kept], h.right[:, kept], h.n_wrong, h.n_right)
        bayes = super()._weigh(few)
        weights = np.zeros((*h.wrong.shape[:1], 1, h.wrong.shape[1]))
        weights[:, :, kept] = bayes["weights"]
        first, second = concept_pairs(_n_concepts(h.wrong.shape[1]))
        pairs = np.stack([first[kept], second[kept]], axis=1)
        return {
            "weights": weights, "offset": bayes["offset"], "pairs": pairs,
            "few": np.ascontiguousarray(bayes["weights"][:, 0], np.float32),
        }  # fmt: skip

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        strengths, predictions = features.space("strengths"), features.predictions
        out = np.empty(len(strengths))

        def fill(rows: slice) -> None:
            sums = fitted["few"] @ _signs(strengths[rows], fitted["pairs"])
            out[rows] = sums[predictions[rows], np.arange(sums.shape[1])]

        blocks = row_blocks(strengths)
        if len(strengths) >= MANY:
            each(fill, blocks)
        else:
            for block in blocks:
                fill(block)
        return out + fitted["offset"][predictions]


def _n_concepts(n_pairs: int) -> int:
    return (1 + math.isqrt(1 + 8 * n_pairs)) // 2


def _signs(strengths: FloatArray, pairs: IntArray) -> FloatArray:
    """Return (M, n) signs of the differences; whole rows are copied faster than single numbers."""
    columns = np.ascontiguousarray(strengths.T)
    first, second = columns[pairs[:, 0]], columns[pairs[:, 1]]
    return np.subtract(first > second, first < second, dtype=np.float32)
