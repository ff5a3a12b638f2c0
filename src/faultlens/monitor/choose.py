"""The detector that serves best on images held out from its fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.monitor.features import Features
from faultlens.monitor.fused import EVIDENCE, N_FOLDS, folds, fuse, held_out_scores, learn_fusion
from faultlens.monitor.risk import Quality, aurc

#: What is asked beside the parts of the combination.
CANDIDATES = (
    *EVIDENCE.split(","), "heatmap-bayes", "mahalanobis", "temperature", "pnorm", "doctor-alpha",
    "entropy",
)  # fmt: skip
#: Fewer wrong predictions than this rank detectors by luck.
MIN_WRONG = 20
FALLBACK = "msp"


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen, and among what.

    Attributes:
        name: Of the detector.
        told: Why, in one sentence.
        table: Name -> its figures on held-out images, best AURC first.
        skipped: Name -> why it could not be asked.
    """

    name: str
    told: str
    table: Mapping[str, Quality] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def choose(features: Features, labels: IntArray, names: Sequence[str] = CANDIDATES) -> Choice:
    """Choose by cross-fitting the detector that ranks wrong predictions last.

    The lowest AURC wins. The combination of all is taken where it beats the best single one by
    more than the standard error of their difference over folds; nothing is taken whose AUROC is
    below that of the maximum softmax probability.

    Args:
        features: N images.
        labels: (N,) truth.
        names: Detectors to ask, beside their combination.

    Raises:
        InputError: Unknown names.
        InsufficientDataError: Fewer images than folds.
    """
    wrong = features.predictions != labels
    if min(wrong.sum(), (~wrong).sum()) < MIN_WRONG:
        return Choice(
            FALLBACK,
            f"{FALLBACK}, since {int(wrong.sum())} wrong of {len(wrong)} predictions are too few "
            f"to compare detectors; at least {MIN_WRONG} are needed",
        )
    scores, skipped = held_out_scores(names, features, labels)
    single = sorted(scores, key=lambda name: aurc(scores[name], wrong))
    scores["fused"] = _fused(scores, wrong)
    table = {name: Quality.of(s, wrong) for name, s in scores.items()}
    ranked = {name: table[name] for name in sorted(table, key=lambda name: table[name].aurc)}
    name = single[0]
    if _gains(scores["fused"], scores[name], wrong):
        name = "fused"
    told = f"{name}, with the lowest AURC on held-out images"
    if FALLBACK in table and table[name].auroc < table[FALLBACK].auroc:
        name, told = FALLBACK, f"{FALLBACK}, whose AUROC on held-out images nothing reached"
    return Choice(name, told, ranked, skipped)


def _fused(scores: Mapping[str, FloatArray], wrong: BoolArray) -> FloatArray:
    """Return scores of the combination, each learned from the other folds."""
    fold = folds(len(wrong))
    parts = {name: scores[name] for name in EVIDENCE.split(",") if name in scores}
    out = np.empty(len(wrong))
    for f in range(N_FOLDS):
        rest, held = fold != f, fold == f
        learned = learn_fusion({name: s[rest] for name, s in parts.items()}, wrong[rest])
        out[held] = fuse([s[held] for s in parts.values()], learned)
    return out


def _gains(first: FloatArray, second: FloatArray, wrong: BoolArray) -> bool:
    fold = folds(len(wrong))
    gains = np.array([
        aurc(second[fold == f], wrong[fold == f]) - aurc(first[fold == f], wrong[fold == f])
        for f in range(N_FOLDS)
    ])  # fmt: skip
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(N_FOLDS))
