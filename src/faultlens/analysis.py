"""Analysis: from embeddings, logits and labels to strengths, heatmaps and verdicts.

Everything fitted comes from reference images, everything claimed is about analysed ones, and they
never share an image: with one set of images given, cross-fitting makes both.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from faultlens import alignment, validity
from faultlens.alignment import AffineMap, AlignmentReport, normalize
from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths, read_only
from faultlens.concepts import TextEncoder, Vocabulary, strengths, zero_shot
from faultlens.errors import InsufficientDataError
from faultlens.heatmaps import ClassCounts
from faultlens.localize.oracle import gate, heatmap_evidence
from faultlens.localize.swap import RefittedHead, choose_penalty, refit_head
from faultlens.localize.verdict import Evidence, Verdicts, judge
from faultlens.validity import ClassValidity, ConceptValidity

N_FOLDS = 5
#: Fewer analysed images than this: nothing can be said.
MIN_ANALYSED = 30
MIN_FOLD = 2

#: Masks over all images: reference, its tuning part, analysed.
_Part = tuple[BoolArray, BoolArray, BoolArray]


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """What the two models say about N images, with their labels.

    Attributes:
        embeddings: (N, D) of the classifier.
        logits: (N, K).
        labels: (N,).
        vlm_embeddings: (N, E).
        folds: (N,) in [0, N_FOLDS); near-duplicates share a fold.
        is_reference: (N,) images to fit on only; none means cross-fitting over all.
        attributes: Optional (N,) labels 1, 0, -1 under concept names.
        stages: Optional (N, D_s) pooled activations under names of stages, in their order.
    """

    embeddings: Float[np.ndarray, "N D"]
    logits: Float[np.ndarray, "N K"]
    labels: IntArray
    vlm_embeddings: Float[np.ndarray, "N E"]
    folds: IntArray
    is_reference: BoolArray
    attributes: Mapping[str, IntArray] = field(default_factory=dict)
    stages: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was fitted on one reference set.

    Attributes:
        map: The affine map.
        head: The refitted head.
        centre_model: (C,) mean strength of the classifier over the reference images.
        centre_vlm: (C,) likewise of the VLM.
    """

    map: AffineMap
    head: RefittedHead
    centre_model: FloatArray
    centre_vlm: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Results on the n analysed images, each from a fit that never saw it.

    Attributes:
        rows: (n,) their rows in the measurements.
        fits: One a fold, or a single one with a reference split.
        fit_of: (n,) which fit serves each image.
        full: Fitted on all reference images, for images that are in neither part.
        logits: (n, K) of the classifier.
        strengths_model: (n, C) centred.
        strengths_vlm: (n, C) centred.
        counts_model: Heatmap counts of the classifier.
        counts_vlm: Heatmap counts of the VLM.
        evidence: Per image.
        verdicts: Per image.
        alignment: Quality of the map.
        concept_validity: One a concept.
        class_validity: Of all classes.
        n_ties: Images whose largest logit is shared by two classes.
    """

    rows: NDArray[np.int64]
    fits: tuple[Fit, ...]
    fit_of: NDArray[np.int64]
    full: Fit
    logits: FloatArray
    strengths_model: Strengths
    strengths_vlm: Strengths
    counts_model: ClassCounts
    counts_vlm: ClassCounts
    evidence: Evidence
    verdicts: Verdicts
    alignment: AlignmentReport
    concept_validity: tuple[ConceptValidity, ...]
    class_validity: ClassValidity
    n_ties: int

    @property
    def valid_concepts(self) -> NDArray[np.int64]:
        """Indices of the concepts that passed the gate."""
        return np.flatnonzero([v.is_valid for v in self.concept_validity])

    @property
    def seen_concepts(self) -> NDArray[np.int64]:
        """Indices of the concepts that the VLM sees in the pictures, whatever the map carries."""
        return np.flatnonzero([v.is_seen for v in self.concept_validity])


def _parts(m: Measurements) -> Iterator[_Part]:
    if m.is_reference.any():
        yield m.is_reference, m.is_reference & (m.folds == 0), ~m.is_reference
        return
    present = np.unique(m.folds)
    for i, f in enumerate(present):
        yield m.folds != f, m.folds == present[(i + 1) % len(present)], m.folds == f


def _fit(
    m: Measurements, vocabulary: Vocabulary, reference: BoolArray, tune: BoolArray, penalty: float
) -> Fit:
    z, v = m.embeddings[reference], m.vlm_embeddings[reference]
    fitted = alignment.align(z, v, tune[reference])
    k = m.logits.shape[1]
    return Fit(
        map=fitted,
        head=refit_head(z, m.labels[reference], k, penalty),
        centre_model=read_only(strengths(fitted(z), vocabulary.directions).mean(axis=0)),
        centre_vlm=read_only(strengths(v, vocabulary.directions).mean(axis=0)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fits:
    """The fits of a run.

    Attributes:
        each: One a fold, or a single one with a reference split.
        of: (N,) which of them never saw the image.
        full: Fitted on all reference images.
    """

    each: tuple[Fit, ...]
    of: NDArray[np.int64]
    full: Fit


def analyse(
    m: Measurements,
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Run alignment, validity, heatmaps and per-image localization.

    Args:
        m: Measurements of N images.
        vocabulary: Concepts and classes of the VLM.
        encode_text: The VLM's text tower, for the decoy words of the validity gate.
        progress: Called as `progress(done, total)` after each fit.

    Raises:
        InsufficientDataError: Too few images to fit or to analyse.
    """
    parts = _enough_parts(m)
    fits = _fit_all(m, vocabulary, parts, progress or (lambda done, total: None))
    return _measure(m, vocabulary, encode_text, fits)


def _enough_parts(m: Measurements) -> list[_Part]:
    """Divide the images; InsufficientDataError where that leaves too few anywhere."""
    rows = np.flatnonzero(~m.is_reference)
    if len(np.unique(m.labels[rows])) < 2:
        raise InsufficientDataError(
            "images must be of at least 2 classes, got 1; a single class cannot be confused"
        )
    n_reference = int(m.is_reference.sum()) or len(rows)
    if min(len(rows), n_reference) < MIN_ANALYSED:
        raise InsufficientDataError(
            f"images must be at least {MIN_ANALYSED} to analyse and to fit on, got {len(rows)} "
            f"and {n_reference}; give more images or another split"
        )
    parts = list(_parts(m))
    if len(parts) == 2 or min(min(t.sum(), (r & ~t).sum()) for r, t, _ in parts) < MIN_FOLD:
        raise InsufficientDataError(
            f"images must fall into at least 3 folds of {MIN_FOLD}, got too few that differ; give "
            "more images, not near-duplicates"
        )
    return parts


def _fit_all(
    m: Measurements,
    vocabulary: Vocabulary,
    parts: list[_Part],
    progress: Callable[[int, int], None],
) -> _Fits:
    reference, tune, _ = parts[0]
    # One number, chosen inside the first reference set, serves all folds.
    penalty = choose_penalty(
        m.embeddings[reference], m.labels[reference], m.logits.shape[1], tune[reference]
    )
    each: list[Fit] = []
    fit_of = np.zeros(len(m.labels), np.int64)
    for i, (reference, tune, analysed) in enumerate(parts):
        each.append(_fit(m, vocabulary, reference, tune, penalty))
        fit_of[analysed] = i
        progress(i + 1, len(parts) + 1)
    everything = np.ones(len(m.labels), bool)
    full = each[0] if len(each) == 1 else _fit(m, vocabulary, everything, m.folds == 0, penalty)
    progress(len(parts) + 1, len(parts) + 1)
    return _Fits(tuple(each), fit_of, full)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The n analysed images as both models see them, each through a fit that never saw it.

    Attributes:
        labels: (n,).
        predictions: (n,) of the classifier.
        vlm: (n,) zero-shot classes of the VLM.
        logits: (n, K) of the classifier.
        refit_logits: (n, K) of the refitted head.
        embeddings: (n, E) of the VLM.
        mapped: (n, E) of the classifier, mapped into the VLM's space.
        strengths_model: (n, C) centred.
        strengths_vlm: (n, C) centred.
    """

    labels: IntArray
    predictions: IntArray
    vlm: IntArray
    logits: FloatArray
    refit_logits: FloatArray
    embeddings: FloatArray
    mapped: FloatArray
    strengths_model: Strengths
    strengths_vlm: Strengths


def _see(m: Measurements, vocabulary: Vocabulary, fits: _Fits, rows: NDArray[np.int64]) -> _Seen:
    z, v, fit_of = m.embeddings[rows], m.vlm_embeddings[rows], fits.of[rows]
    mapped = np.empty(v.shape, np.float32)
    refit = np.empty((len(rows), m.logits.shape[1]), np.float64)
    s_model = np.empty((len(rows), len(vocabulary.concepts)), np.float32)
    s_vlm = np.empty_like(s_model)
    for i, fit in enumerate(fits.each):
        own = fit_of == i
        mapped[own] = fit.map(z[own])
        refit[own] = fit.head(z[own])
        s_model[own] = strengths(mapped[own], vocabulary.directions, fit.centre_model)
        s_vlm[own] = strengths(v[own], vocabulary.directions, fit.centre_vlm)
    return _Seen(
        labels=m.labels[rows],
        predictions=m.logits[rows].argmax(axis=1),
        vlm=zero_shot(v, vocabulary.class_directions),
        logits=m.logits[rows],
        refit_logits=refit,
        embeddings=v,
        mapped=mapped,
        strengths_model=read_only(s_model),
        strengths_vlm=read_only(s_vlm),
    )


def _measure(
    m: Measurements, vocabulary: Vocabulary, encode_text: TextEncoder, fits: _Fits
) -> Analysis:
    rows = np.flatnonzero(~m.is_reference)
    seen = _see(m, vocabulary, fits, rows)
    v, labels, logits = seen.embeddings, seen.labels, seen.logits
    classes = validity.class_validity(labels, seen.vlm, logits.shape[1])
    report = alignment.evaluate(
        v, seen.mapped, vocabulary.directions, vocabulary.class_directions, labels
    )
    attributes = {name: np.asarray(a)[rows] for name, a in m.attributes.items()}
    concepts = validity.concept_validity(
        v, labels, vocabulary, encode_text, report.r2_concepts, attributes
    )
    evidence = _evidence(seen, vocabulary, classes, concepts)
    groups = (labels, seen.predictions, vocabulary.concepts, vocabulary.classes)
    return Analysis(
        rows=rows,
        fits=fits.each,
        fit_of=fits.of[rows],
        full=fits.full,
        logits=logits,
        strengths_model=seen.strengths_model,
        strengths_vlm=seen.strengths_vlm,
        counts_model=ClassCounts.of(seen.strengths_model, *groups),
        counts_vlm=ClassCounts.of(seen.strengths_vlm, *groups),
        evidence=evidence,
        verdicts=judge(evidence, _margin(v, vocabulary.class_directions, labels)),
        alignment=report,
        concept_validity=tuple(concepts),
        class_validity=classes,
        n_ties=int(((logits == logits.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum()),
    )


def _evidence(
    seen: _Seen, vocabulary: Vocabulary, classes: ClassValidity, concepts: list[ConceptValidity]
) -> Evidence:
    labels, predictions = seen.labels, seen.predictions
    # Words that failed the gate have no vote.
    valid = np.flatnonzero([c.is_valid for c in concepts])
    heatmap = np.full(len(labels), np.nan)
    if len(valid) >= 2:
        known = tuple(vocabulary.concepts[c] for c in valid)
        s = seen.strengths_model[:, valid]
        counts = ClassCounts.of(s, labels, predictions, known, vocabulary.classes)
        heatmap = heatmap_evidence(s, labels, predictions, counts)
    return Evidence(
        labels=labels,
        predictions=predictions,
        vlm=seen.vlm,
        mapped=zero_shot(seen.mapped, vocabulary.class_directions),
        logits=seen.logits,
        refit_logits=seen.refit_logits,
        heatmap=heatmap,
        is_gated=gate(seen.vlm, labels, classes.is_valid) & classes.is_usable,
    )


def _margin(v: FloatArray, class_directions: FloatArray, labels: IntArray) -> FloatArray:
    """By how much the VLM prefers its best class over the label, in spreads over the classes."""
    scores = normalize(v) @ class_directions.T
    difference = scores.max(axis=1) - scores[np.arange(len(labels)), labels]
    spread = float(scores.std(axis=1).mean())
    return np.asarray(difference / (spread if spread > 0 else np.inf))
