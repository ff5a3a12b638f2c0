"""How well a score tells wrong predictions from right ones: ranking and selective risk.

Images are accepted from the lowest score on. Among equal scores every order is as good as any
other, so each figure is its mean over all of them.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, check_array
from faultlens.errors import ShapeError
from faultlens.stats import auroc


def risk_coverage(scores: FloatArray, wrong: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the risk-coverage curve.

    Args:
        scores: (N,) higher = more abnormal.
        wrong: (N,) whether the prediction is wrong.

    Returns:
        (N,) coverages `1/N … 1`, and (N,) shares of wrong predictions among the accepted.

    Example:
        >>> coverage, risk = risk_coverage(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], bool))
        >>> coverage.tolist(), risk.round(3).tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.5])
    """
    n = len(scores)
    accepted = np.arange(1, n + 1)
    return accepted / n, _errors_among(scores, wrong) / accepted


def aurc(scores: FloatArray, wrong: BoolArray) -> float:
    """Area under the risk-coverage curve, in [0, 1]; lower is better.

    Example:
        >>> round(aurc(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], bool)), 4)
        0.2083

    References:
        Geifman, Uziel and El-Yaniv, ICLR 2019.
    """
    return float(risk_coverage(scores, wrong)[1].mean())


def excess_aurc(scores: FloatArray, wrong: BoolArray) -> float:
    """AURC less that of a score that ranks every wrong prediction last; 0 is perfect.

    Example:
        >>> excess_aurc(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], bool))
        0.0
    """
    return aurc(scores, wrong) - aurc(np.asarray(wrong, float), wrong)


def augrc(scores: FloatArray, wrong: BoolArray) -> float:
    """Area under the generalized risk-coverage curve, in [0, 1/2]; lower is better.

    Mean over coverages of the share of all images that are accepted and wrong.

    Example:
        >>> augrc(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], bool))
        0.1875

    References:
        Traub et al., NeurIPS 2024, arXiv:2407.01032; as the sum over the N coverages, which gives
        `((1 - AUROC) e c + e (e + 1) / 2) / N²` for e wrong and c right predictions.
    """
    return float(_errors_among(scores, wrong).mean() / len(scores))


def fpr_at_tpr(scores: FloatArray, wrong: BoolArray, tpr: float = 0.95) -> float:
    """Share of right predictions that are flagged where a share `tpr` of the wrong ones is.

    Returns:
        In [0, 1], lower is better; NaN where there are only right or only wrong ones.

    Example:
        >>> fpr_at_tpr(np.array([1.0, 2, 3, 4]), np.array([0, 1, 0, 1], bool))
        0.5
    """
    caught = np.sort(scores[wrong])[::-1]
    right = scores[~wrong]
    if not len(caught) or not len(right):
        return float("nan")
    needed = int(np.ceil(tpr * len(caught) - 1e-9))
    return float((right >= caught[needed - 1]).mean())


@dataclass(frozen=True, slots=True)
class Quality:
    """Every figure of one score.

    Attributes:
        auroc: Of wrong against right predictions; NaN without either.
        aurc: Area under the risk-coverage curve.
        excess_aurc: AURC above the best possible.
        augrc: Area under the generalized risk-coverage curve.
        fpr95: Right predictions flagged where 95 % of the wrong ones are.
        n: Images.
        n_wrong: Wrong predictions among them.
    """

    auroc: float
    aurc: float
    excess_aurc: float
    augrc: float
    fpr95: float
    n: int
    n_wrong: int

    @classmethod
    def of(cls, scores: FloatArray, wrong: BoolArray) -> "Quality":
        """Measure.

        Args:
            scores: (N,) higher = more abnormal.
            wrong: (N,) whether the prediction is wrong.

        Raises:
            ShapeError: Lengths differ, or scores are not finite.

        Example:
            >>> Quality.of(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1], bool)).auroc
            1.0
        """
        s = check_array(scores, "N", name="scores")
        w = np.asarray(wrong, bool)
        if w.shape != s.shape:
            raise ShapeError(f"wrong must have one entry a score, got {len(w)} for {len(s)}")
        return cls(
            float(auroc(s, w)), aurc(s, w), excess_aurc(s, w), augrc(s, w), fpr_at_tpr(s, w),
            len(s), int(w.sum()),
        )  # fmt: skip


def _errors_among(scores: FloatArray, wrong: BoolArray) -> FloatArray:
    """Return (N,): expected errors among the first i accepted, ties in random order."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    ranks = sps.rankdata(group, method="dense") - 1
    rate = np.bincount(ranks, weights=wrong[order]) / np.bincount(ranks)
    return np.cumsum(rate[ranks])
