"""The validity gate: a concept or class is used only if the VLM knows it on this data.

Concept scores of CLIP-like models are often wrong even where their classes are right
(arXiv:2405.01825, arXiv:2510.07115), so nothing is claimed in a word that failed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from faultlens.alignment import normalize
from faultlens.arrays import BoolArray, FloatArray, IntArray, read_only
from faultlens.concepts import TextEncoder, Vocabulary, strengths
from faultlens.stats import auroc, wilson

MIN_AUROC = 0.75
#: Agreement of prompt subsets below "moderate" (Koo and Li, J. Chiropr. Med. 2016) fails.
MIN_AGREEMENT = 0.5
MIN_R2 = 0.1
MIN_DECOY_QUANTILE = 0.95
#: Fewer images than this on either side: labels cannot judge a concept.
MIN_SIDE = 10
#: Fewer images of a class than this do not show that the VLM knows it.
MIN_OF_CLASS = 5
#: Words with no visible meaning; a concept must vary over the images more than these do.
DECOYS = (
    "thursday", "therefore", "seven", "opinion", "grammar", "percent", "yesterday", "algebra",
    "permission", "rumour", "interest rate", "philosophy", "deadline", "syllable", "warranty",
    "coincidence", "password", "nostalgia", "theorem", "subscription",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConceptValidity:
    """Why one concept is trusted, or not.

    Attributes:
        concept: Its name.
        is_valid: The verdict.
        reason: One phrase, with the number that decided.
        source: `attributes`, `relevance` or `agreement`: what it was judged by.
        auroc: Of the VLM's strength against attribute labels or relevant classes; NaN without.
        agreement: Consistency of prompt subsets over images, intraclass correlation ICC(C,1).
        decoy_quantile: Share of decoy words that do worse: vary less over the images, or, where
            relevance judges, separate the same classes less well.
        r2_map: R² of its direction through the map.
        is_seen: Whether the VLM sees it, whatever the classifier's embedding carries: for claims
            about the pictures alone.
    """

    concept: str
    is_valid: bool
    reason: str
    source: str
    auroc: float
    agreement: float
    decoy_quantile: float
    r2_map: float
    is_seen: bool


@dataclass(frozen=True, slots=True, eq=False)
class ClassValidity:
    """Whether the VLM recognises the classes at all.

    Attributes:
        recall: (K,) zero-shot recall of the VLM; NaN without images.
        low: (K,) lower 95 % bound.
        is_valid: (K,) whether the lower bound is above chance, 1/K.
        accuracy: Zero-shot accuracy over all images.
        accuracy_low: Its lower 95 % bound.
        is_usable: Whether accuracy is clearly above chance: without it, no concept verdicts.
    """

    recall: FloatArray
    low: FloatArray
    is_valid: BoolArray
    accuracy: float
    accuracy_low: float
    is_usable: bool


def agreement(ratings: FloatArray) -> FloatArray:
    """Intraclass correlation ICC(C,1): do different wordings order the images alike?

    Args:
        ratings: (R, N, C) strengths from R prompt subsets.

    Returns:
        (C,) at most 1; near 0 where the wordings disagree.

    Example:
        >>> a = np.array([[0.0], [1.0], [2.0]])
        >>> agreement(np.stack([a, a + 5])).tolist()
        [1.0]

    References:
        Shrout and Fleiss 1979; McGraw and Wong 1996 (consistency form).
    """
    r, n, _ = ratings.shape
    grand = ratings.mean(axis=(0, 1))
    images, raters = ratings.mean(axis=0), ratings.mean(axis=1)
    ms_images = r * ((images - grand) ** 2).sum(axis=0) / max(n - 1, 1)
    residual = ratings - images[None] - raters[:, None] + grand
    ms_error = (residual**2).sum(axis=(0, 1)) / max((n - 1) * (r - 1), 1)
    total = ms_images + (r - 1) * ms_error
    return np.asarray((ms_images - ms_error) / np.where(total > 0, total, np.inf))


def class_validity(labels: IntArray, vlm_predictions: IntArray, n_classes: int) -> ClassValidity:
    """Judge the VLM's zero-shot classes against the labels.

    Example:
        >>> y = np.repeat([0, 1], 20)
        >>> class_validity(y, np.zeros(40, int), 2).is_valid.tolist()
        [True, False]
    """
    right = labels == vlm_predictions
    n = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[right], minlength=n_classes)
    low, _ = wilson(hits, n)
    overall_low = float(wilson(int(right.sum()), len(right))[0])
    # Guessing the most frequent class is chance too.
    chance = max(1 / n_classes, float(n.max() / n.sum()))
    return ClassValidity(
        recall=read_only(np.where(n > 0, hits / np.maximum(n, 1), np.nan)),
        low=read_only(low),
        is_valid=read_only((low > 1 / n_classes) & (n >= MIN_OF_CLASS)),
        accuracy=float(right.mean()),
        accuracy_low=overall_low,
        is_usable=overall_low > chance,
    )


def concept_validity(
    vlm_embeddings: FloatArray,
    labels: IntArray,
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    r2_map: FloatArray,
    attributes: Mapping[str, IntArray] | None = None,
) -> list[ConceptValidity]:
    """Judge every concept in one of three ways.

    Args:
        vlm_embeddings: (N, E).
        labels: (N,).
        vocabulary: Concepts and classes.
        encode_text: The VLM's text tower, for the decoy words.
        r2_map: (C,) R² of each concept's direction through the map.
        attributes: Optional (N,) labels 1, 0 or -1 (unknown) under concept names.

    Returns:
        One verdict a concept. Attribute labels decide where there are enough of them; else the
        user's relevance per class; else agreement of wordings, decoys and R² together.
    """
    s = strengths(vlm_embeddings, vocabulary.directions)
    ratings = np.stack([strengths(vlm_embeddings, d) for d in vocabulary.subset_directions])
    icc = agreement(ratings) if len(ratings) > 1 else np.full(len(vocabulary.concepts), np.nan)
    decoys = strengths(vlm_embeddings, normalize(np.asarray(encode_text(DECOYS), np.float32)))
    varies = (decoys.std(axis=0)[None, :] < s.std(axis=0)[:, None]).mean(axis=1)
    out = []
    for c, name in enumerate(vocabulary.concepts):
        truth = np.asarray((attributes or {}).get(name, np.full(len(labels), -1)))
        source = "attributes"
        if min((truth == 1).sum(), (truth == 0).sum()) < MIN_SIDE:
            source = "relevance"
            truth = vocabulary.relevant[labels, c].astype(np.int8)
        if min((truth == 1).sum(), (truth == 0).sum()) < MIN_SIDE:
            source = "agreement"
        area, quantile = float("nan"), float(varies[c])
        if source != "agreement":
            known = truth >= 0
            area = float(auroc(s[known, c], truth[known] == 1))
        if source == "relevance":
            quantile = float((auroc(decoys, truth == 1) < area).mean())
        numbers = (area, float(icc[c]), quantile, float(r2_map[c]))
        is_valid, reason = _judge(source, *numbers)
        is_seen, _ = _judge(source, *numbers[:-1], r2=1.0)
        out.append(ConceptValidity(name, is_valid, reason, source, *numbers, is_seen))
    return out


def _judge(source: str, area: float, icc: float, quantile: float, r2: float) -> tuple[bool, str]:
    if source == "attributes":
        return area >= MIN_AUROC, f"AUROC {area:.2f} against attribute labels, needs {MIN_AUROC}"
    if source == "relevance":
        reason = f"AUROC {area:.2f} against relevant classes, needs {MIN_AUROC}"
        if area >= MIN_AUROC and quantile < MIN_DECOY_QUANTILE:
            reason += f", and only {quantile:.0%} of decoy words do worse, needs 95%"
        return area >= MIN_AUROC and quantile >= MIN_DECOY_QUANTILE, reason
    checks = (
        (icc >= MIN_AGREEMENT, f"wordings agree {icc:.2f}, needs {MIN_AGREEMENT}"),
        (
            quantile >= MIN_DECOY_QUANTILE,
            f"varies more than {quantile:.0%} of decoy words, needs 95%",
        ),
        (r2 >= MIN_R2, f"R² through the map {r2:.2f}, needs {MIN_R2}"),
    )
    for passed, reason in checks:
        if not passed:
            return False, reason
    return True, "; ".join(reason for _, reason in checks)
