"""Combinations of detectors: learned from errors, or from benign images alone.

References:
    Stacked generalization: Wolpert, Neural Networks 1992. Conformal p-values of outliers: Bates et
    al., Annals of Statistics 2023, arXiv:2104.08279.
    Deviation: the parts are cross-fitted, not split off.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import special

from faultlens.arrays import Array, BoolArray, FloatArray, IntArray
from faultlens.errors import InputError, InsufficientDataError, nearest
from faultlens.monitor.blocks import by_rows
from faultlens.monitor.conformal import p_values
from faultlens.monitor.detector import DETECTORS, CheckedDetector, Detector, load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.layered import correct
from faultlens.monitor.logistic import fit_binary

N_FOLDS = 5
#: Softmax, second opinions, heatmap and distance evidence.
EVIDENCE = (
    "msp,margin,energy,refit,refit-strengths,heatmap-few,mahalanobis-strengths,"
    "squeezed-margin,vlm-disagreement"
)
#: Far from all images, or near a border: attacks are one or the other.
UNFAMILIAR = "margin,mahalanobis"
#: The same where the encoder was watched and changed images were run too.
WATCHED = "squeezed-margin,squeezed-joint,layers,vlm-disagreement"
#: Parts whose score is `-log P(the prediction is right)`.
OPINIONS = ("refit", "refit-strengths")
#: Of the ridge of the combination, in images; 5 to 60 are alike from 300 images on.
STRENGTH = 30.0
_GRID, _N_KEPT = 512, 4096  # quantiles of a part's scores that are kept
_LEAST = 1e-12  # of an opinion: below it rounding of the logits decides
_SEPARATOR = "/"

Combine = Callable[[FloatArray], FloatArray]


def folds(n: int, n_folds: int = N_FOLDS) -> IntArray:
    """Return (n,) the fold of each image: the same shuffle for the same n."""
    return np.random.default_rng(n).permutation(n) % n_folds


def held_out_scores(
    names: Sequence[str], features: Features, labels: IntArray
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Score every image by detectors that were fitted without it.

    Args:
        names: Of detectors.
        features: N images.
        labels: (N,) truth.

    Returns:
        Name -> (N,) scores; and name -> reason for those that cannot be fitted on such images.

    Raises:
        InputError: Unknown names.
        InsufficientDataError: Fewer images than folds.
    """
    n = len(features)
    if n < 2 * N_FOLDS:
        raise InsufficientDataError(
            f"features must have at least {2 * N_FOLDS} images, got {n}; give more"
        )
    for name in names:
        if name not in DETECTORS:
            raise InputError(f"detector must be a known name, got '{name}'; "
                             f"{nearest(name, DETECTORS)}")  # fmt: skip
    fold = folds(n)
    parts = [(features.select(fold != f), labels[fold != f], fold == f) for f in range(N_FOLDS)]
    scores: dict[str, FloatArray] = {}
    skipped: dict[str, str] = {}
    for name in names:
        found = np.empty(n)
        try:
            for rest, truth, held in parts:
                found[held] = load_detector(name).fit(rest, truth).score(features.select(held))
        except (InputError, InsufficientDataError) as error:
            skipped[name] = str(error)
            continue
        scores[name] = found
    return scores, skipped


def fisher(p: FloatArray) -> FloatArray:
    """Return `-2 Σ log p` of each row; chi-squared with 2 J degrees where J parts are independent.

    Example:
        >>> fisher(np.array([[0.1, 1.0]])).round(3).tolist()
        [4.605]

    References:
        Fisher, Statistical Methods for Research Workers, 1932.
    """
    return np.asarray(-2 * np.log(p).sum(axis=1))


def min_p(p: FloatArray) -> FloatArray:
    """Return `-log min p` of each row: one part that is sure is enough.

    Example:
        >>> min_p(np.array([[0.1, 1.0]])).round(3).tolist()
        [2.303]

    References:
        Tippett, The Methods of Statistics, 1931.
    """
    return np.asarray(-np.log(p.min(axis=1)))


_METHODS: dict[str, Combine] = {"fisher": fisher, "min-p": min_p}


class _Parts:
    """Fitted detectors, kept inside the state of another one."""

    @staticmethod
    def state(detectors: Mapping[str, Detector]) -> dict[str, Array]:
        return {
            f"{i}{_SEPARATOR}{name}{_SEPARATOR}{key}": value
            for i, (name, detector) in enumerate(detectors.items())
            for key, value in detector.state().items()
        }

    @staticmethod
    def restore(state: Mapping[str, Array]) -> list[Detector]:
        found: dict[tuple[int, str], dict[str, Array]] = {}
        for key, value in state.items():
            if key.count(_SEPARATOR) >= 2:
                i, name, inner = key.split(_SEPARATOR, 2)
                found.setdefault((int(i), name), {})[inner] = value
        return [DETECTORS.load(name).restore(inner) for (_, name), inner in sorted(found.items())]


@dataclass(eq=False)
class _Combination(CheckedDetector):
    """What both combinations share: parts by name, fitted on all, scored where held out."""

    parts: str = ""
    _restored: tuple[Mapping[str, Array], list[Detector]] | None = field(
        default=None, init=False, repr=False
    )

    @property
    def spaces(self) -> tuple[str, ...]:
        """Logits; the parts check what else they read."""
        return ("logits",)

    def _evidence(
        self, features: Features, labels: IntArray
    ) -> tuple[dict[str, FloatArray], dict[str, Array]]:
        """Return held-out scores, and the state of the parts fitted on all images."""
        names = [name.strip() for name in self.parts.split(",")]
        scores, skipped = held_out_scores(names, features, labels)
        if not scores:
            reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise InputError(f"parts must have one that can be fitted, got none ({reasons})")
        fitted = {name: load_detector(name).fit(features, labels) for name in scores}
        return scores, _Parts.state(fitted)

    def members(self) -> list[Detector]:
        """Return the fitted parts; raises NotFittedError before `fit`."""
        fitted = self.fitted()
        # Restoring is cheap, but a monitor scores image by image.
        if self._restored is None or self._restored[0] is not fitted:
            self._restored = (fitted, _Parts.restore(fitted))
        return self._restored[1]

    def _part_scores(self, features: Features) -> list[FloatArray]:
        return [part.score(features) for part in self.members()]


@dataclass(eq=False)
class Fused(_Combination):
    """Chance that the prediction is wrong, from the evidence of several detectors.

    A logistic regression learned from scores of images that the parts had not seen: on the log odds
    of second opinions, and on the normal scores (ranks, as quantiles of a normal distribution) of
    the other parts. A ridge holds it at the mean opinion: with few images it stays there.

    Attributes:
        parts: Names of detectors, separated by commas; those that the features do not serve are
            left out.
        strength: Of the ridge penalty, in images: it weighs as `strength / N`.
    """

    family: ClassVar[str] = "fused"
    parts: str = EVIDENCE
    strength: float = STRENGTH

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        wrong = features.predictions != labels
        if wrong.all() or not wrong.any():
            raise InsufficientDataError(
                f"features must hold right and wrong predictions, got {int(wrong.sum())} wrong of "
                f"{len(wrong)}; choose a detector that needs none, such as 'msp'"
            )
        scores, state = self._evidence(features, labels)
        return state | learn_fusion(scores, wrong, self.strength)

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        self.members()  # once, before threads ask for them
        return by_rows(lambda some: fuse(self._part_scores(some), fitted), features)


def learn_fusion(
    scores: Mapping[str, FloatArray], wrong: BoolArray, strength: float = STRENGTH
) -> dict[str, Array]:
    """Fit the regression of `Fused`.

    Args:
        scores: Name of each of J parts -> (N,).
        wrong: (N,).
        strength: Of the ridge, in images.

    Returns:
        `grid.j` and `normal.j`, a table from the score of part j to its log odds or normal score,
        and `weights` (J + 1,).
    """
    tables: dict[str, Array] = {}
    is_opinion = np.array([name in OPINIONS for name in scores])
    for j, s in enumerate(scores.values()):
        table = _odds_table if is_opinion[j] else _normal_table
        tables[f"grid.{j}"], tables[f"normal.{j}"] = table(s)
    x = _normal_scores(list(scores.values()), tables)
    mean_opinion = is_opinion / max(is_opinion.sum(), 1)
    return tables | {"weights": fit_binary(x, wrong, strength / len(x), mean_opinion)}


def fuse(scores: Sequence[FloatArray], learned: Mapping[str, Array]) -> FloatArray:
    """Return (N,) log odds that each prediction is wrong."""
    weights = learned["weights"]
    return np.asarray(_normal_scores(scores, learned) @ weights[:-1] + weights[-1])


@dataclass(eq=False)
class FusedBenign(_Combination):
    """How unlikely the scores of several detectors are among benign, rightly classified images.

    Each part's score becomes a conformal p-value against scores of benign images held out from
    its fit; the p-values are combined. Parts are correlated, so the combination's own
    distribution is not the textbook one: calibrate it again (`Calibration`) on further images.

    Attributes:
        parts: Names of detectors, separated by commas.
        method: `min-p`, for faults that show in one part; `fisher`, for those that show in all.
    """

    family: ClassVar[str] = "fused-benign"
    parts: str = UNFAMILIAR
    method: str = "min-p"

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise InputError(f"method must be one of {', '.join(_METHODS)}, got '{self.method}'; "
                             f"{nearest(self.method, _METHODS)}")  # fmt: skip

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        right = features.predictions == labels
        scores, state = self._evidence(correct(features, labels), labels[right])
        tables = {f"benign.{j}": np.sort(_thinned(s)) for j, s in enumerate(scores.values())}
        return state | tables

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        scores = self._part_scores(features)
        p = [p_values(fitted[f"benign.{j}"], s) for j, s in enumerate(scores)]
        return _METHODS[self.method](np.stack(p, axis=1))


@dataclass(eq=False)
class FusedFull(FusedBenign):
    """The same over evidence from inside the encoder, changed images and the VLM.

    Fisher's combination: an attack that hides from one part rarely hides from all.
    """

    family: ClassVar[str] = "fused-full"
    parts: str = WATCHED
    method: str = "fisher"


def _thinned(scores: FloatArray) -> FloatArray:
    """Return all scores, or quantiles of very many."""
    if len(scores) <= _N_KEPT:
        return scores
    return np.asarray(np.quantile(scores, (np.arange(_N_KEPT) + 0.5) / _N_KEPT))


def _normal_table(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ascending scores and the normal quantile of each."""
    n = len(scores)
    ordered = np.sort(scores)
    values, first, counts = np.unique(ordered, return_index=True, return_counts=True)
    level = special.ndtri((first + counts / 2) / n)
    kept = _spread(len(values))
    return values[kept], level[kept]


def _odds_table(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ascending `-log P(right)` and the log odds of an error at each."""
    values = np.unique(np.maximum(scores, _LEAST))
    values = values[_spread(len(values))]
    return values, values + np.log(-np.expm1(-values))


def _spread(n: int) -> IntArray:
    """Return the rows of at most `_GRID` of n values, evenly spaced."""
    return np.linspace(0, n - 1, min(n, _GRID)).astype(np.int64)


def _normal_scores(scores: Sequence[FloatArray], tables: Mapping[str, Array]) -> FloatArray:
    columns = [
        np.interp(s, tables[f"grid.{j}"], tables[f"normal.{j}"]) for j, s in enumerate(scores)
    ]
    return np.stack(columns, axis=1)
