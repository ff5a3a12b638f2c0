"""Monitoring: a runtime monitor from a finished session, and what it says of other images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faultlens import files, reopen
from faultlens.arrays import Array, BoolArray, FloatArray, IntArray, check_array
from faultlens.errors import InputError, nearest
from faultlens.models.classifier import Classifier
from faultlens.monitor.choose import CANDIDATES
from faultlens.monitor.features import Features
from faultlens.monitor.fused import N_FOLDS, folds, held_out_scores
from faultlens.monitor.risk import Quality
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.monitor.verdict import ConceptMap, Verdict
from faultlens.session import DebugSession
from faultlens.stats import clopper_pearson

_BATCH = 32
#: Wrong and right predictions without which no detector can be ranked.
_MIN_EACH = 2


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Images of a session whose truth is known.

    Attributes:
        features: N images; strengths of the valid concepts, by maps that did not see them where
            the session was cross-fitted.
        labels: (N,).
        names: N names.
    """

    features: Features
    labels: IntArray
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of embeddings and labels, to know the same images again."""
        digest = hashlib.sha256(np.ascontiguousarray(self.features.embeddings).tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    def select(self, rows: BoolArray) -> "Judged":
        """Return some of the images."""
        names = tuple(name for name, kept in zip(self.names, rows, strict=True) if kept)
        return Judged(self.features.select(rows), self.labels[rows], names)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How a monitor and its rivals do on a session's images.

    Attributes:
        monitor: Figures of the monitor's own score.
        detectors: Name -> figures of a detector, fitted in folds of these images; best AURC first.
        skipped: Name -> why a detector could not be asked.
        alpha: Requested false-alarm rate.
        false_alarms: Correct predictions that were rejected.
        n_correct: Correct predictions.
        interval: Of the false-alarm rate, exact (Clopper-Pearson, 95 %).
        n_caught: Wrong predictions that were rejected.
        is_refitted: Whether the monitor was fitted on these images, so that refits of it were
            asked, each about images it had not seen.
    """

    monitor: Quality
    detectors: Mapping[str, Quality]
    skipped: Mapping[str, str]
    alpha: float
    false_alarms: int
    n_correct: int
    interval: tuple[float, float]
    n_caught: int
    is_refitted: bool

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as one JSON object."""
        return dict(files.json_value(asdict(self)))


def fit(session: DebugSession, settings: Settings | None = None) -> RuntimeMonitor:
    """Fit a monitor on the images of a session.

    With a reference split these are the reference images; otherwise all of them.

    Args:
        session: Finished.
        settings: Of the monitor.

    Raises:
        InputError: A setting is wrong, or features or images are no longer where they were.
        InsufficientDataError: Too few images for the false-alarm rate.
        StoreError: The embeddings of the session are missing or damaged.
    """
    judged = to_fit(session)
    monitor = RuntimeMonitor.fit_features(
        judged.features,
        judged.labels,
        settings=settings or Settings(),
        classes=session.classes,
        concept_map=concept_map(session),
    )
    facts = {**monitor.facts, "session": session.folder.resolve().name, "fitted_on": judged.digest}
    return replace(monitor, facts=facts)


def to_fit(session: DebugSession) -> Judged:
    """Return the images that a monitor of the session is fitted on; see `fit`."""
    everything = _all(session)
    is_reference = np.arange(len(everything.labels)) >= len(session.images)
    return everything.select(is_reference) if is_reference.any() else everything


def analysed(session: DebugSession) -> Judged:
    """Return the images that the session analysed."""
    everything = _all(session)
    return everything.select(np.arange(len(everything.labels)) < len(session.images))


def _all(session: DebugSession) -> Judged:
    rows = reopen.images(session)
    n_more = len(rows.labels) - len(session.images)
    fit_of = np.array([row["fit"] for row in session.images] + [0] * n_more, np.int64)
    strengths = _strengths(session, rows.embeddings, fit_of)
    return Judged(Features(rows.embeddings, rows.logits, strengths), rows.labels, rows.names)


def _strengths(
    session: DebugSession, embeddings: FloatArray, fit_of: IntArray
) -> FloatArray | None:
    stored = session.arrays("alignment")
    if concept_map(session) is None:
        return None
    out = np.empty((len(fit_of), len(session.valid_concepts)), np.float32)
    for i in np.unique(fit_of):
        found = _map(session, stored, f"fit{i}")
        out[fit_of == i] = found(embeddings[fit_of == i])
    return out


def concept_map(session: DebugSession) -> ConceptMap | None:
    """Return the strengths of the valid concepts as a function of the embedding.

    Returns:
        The session's `full` map; None where the vision-language model does not know the images,
        or fewer than two concepts are valid: there is no pair to speak of.
    """
    is_usable = files.read_json(session.folder / "concepts.json")["is_usable"]
    if not is_usable or len(session.valid_concepts) < 2:
        return None
    return _map(session, session.arrays("alignment"), "full")


def _map(session: DebugSession, stored: Mapping[str, Array], fit: str) -> ConceptMap:
    valid = session.valid_concepts
    q = stored["directions"][valid].astype(np.float64)
    weight = (q @ stored[f"{fit}.weight"]).astype(np.float32)
    offset = q @ stored[f"{fit}.bias"] - stored[f"{fit}.centre_vlm"][valid]
    names = tuple(session.concepts[c] for c in valid)
    return ConceptMap(weight, offset.astype(np.float32), names)


def score(monitor: RuntimeMonitor, session: DebugSession) -> tuple[tuple[str, ...], Verdict]:
    """Judge the images that a session analysed.

    Returns:
        Their names and the verdict; strengths come from the monitor's own map.

    Raises:
        InputError: The session is of other classes, or its images are no longer there.
        StoreError: The embeddings of the session are missing or damaged.
    """
    _check_classes(monitor, session.classes)
    judged = analysed(session)
    return judged.names, monitor(_bare(judged.features))


def read_features(path: str | Path) -> Features:
    """Read a features file: `embedding` (N, D) and `logits` (N, K); other arrays are not needed.

    Raises:
        InputError: An array is missing or of the wrong shape.
        StoreError: The file is absent or damaged.
    """
    arrays, _ = files.load_arrays(path)
    for name in ("embedding", "logits"):
        if name not in arrays:
            raise InputError(
                f"{path} must have the arrays embedding and logits, got no '{name}'; "
                f"{nearest(name, arrays)}"
            )
    z = check_array(arrays["embedding"], "N D", name="embedding")
    return Features(z, check_array(arrays["logits"], "N K", name="logits"))


def of_images(monitor: RuntimeMonitor, model: Classifier, images: Sequence[Image.Image]) -> Verdict:
    """Judge pictures: run the classifier once, then the monitor.

    Args:
        monitor: Fitted on this classifier.
        model: Loaded.
        images: At least one.

    Raises:
        InputError: No image, or a classifier of other classes.
    """
    _check_classes(monitor, model.class_names)
    if not images:
        raise InputError("images must be at least one, got none; give a picture")
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = np.stack([model.prepare(image) for image in images[start : start + _BATCH]])
        parts.append(model.encode(batch))
    z, logits = (np.concatenate([p[key] for p in parts]) for key in ("embedding", "logits"))
    return monitor(Features(z, logits))


def evaluate(
    monitor: RuntimeMonitor,
    session: DebugSession,
    detectors: Sequence[str] = CANDIDATES,
) -> Evaluation:
    """Compare a monitor with single detectors on the images that a session analysed.

    Detectors are fitted in five folds of these images and asked about the fold left out. So is
    the monitor if it was fitted on the same images, with its own settings.

    Raises:
        InputError: The session is of other classes, or a detector is unknown.
        InsufficientDataError: Too few images.
        StoreError: The embeddings of the session are missing or damaged.
    """
    _check_classes(monitor, session.classes)
    judged = analysed(session)
    wrong = judged.features.predictions != judged.labels
    if min(wrong.sum(), (~wrong).sum()) < _MIN_EACH:
        raise InputError(
            f"session must have right and wrong predictions, got {int(wrong.sum())} wrong of "
            f"{len(wrong)}; evaluate on more images"
        )
    is_refitted = monitor.facts.get("fitted_on") == judged.digest
    if is_refitted:
        scores, accept = _refitted(monitor, judged, concept_map(session))
    else:
        verdict = monitor(_bare(judged.features))
        scores, accept = verdict.score, verdict.accept
    rivals, skipped = held_out_scores(detectors, judged.features, judged.labels)
    table = {name: Quality.of(s, wrong) for name, s in rivals.items()}
    alarms, n_correct = int((~accept & ~wrong).sum()), int((~wrong).sum())
    low, high = clopper_pearson(alarms, n_correct)
    return Evaluation(
        monitor=Quality.of(scores, wrong),
        detectors={name: table[name] for name in sorted(table, key=lambda name: table[name].aurc)},
        skipped=skipped,
        alpha=monitor.calibration.alpha,
        false_alarms=alarms,
        n_correct=n_correct,
        interval=(float(low), float(high)),
        n_caught=int((~accept & wrong).sum()),
        is_refitted=is_refitted,
    )


def _refitted(
    monitor: RuntimeMonitor, judged: Judged, mapped: ConceptMap | None
) -> tuple[FloatArray, BoolArray]:
    """Return the score of each image, and whether it is accepted, by a refit without its fold."""
    settings = Settings(**{**monitor.facts["settings"], "detector": monitor.detector.name})
    fold = folds(len(judged.labels))
    scores, accept = np.empty(len(fold)), np.empty(len(fold), bool)
    for f in range(N_FOLDS):
        rest, held = fold != f, fold == f
        again = RuntimeMonitor.fit_features(
            judged.features.select(rest),
            judged.labels[rest],
            settings=settings,
            classes=monitor.classes,
            concept_map=mapped,
        )
        verdict = again(judged.features.select(held))
        scores[held], accept[held] = verdict.score, verdict.accept
    return scores, accept


def _bare(features: Features) -> Features:
    """Return features as a deployed classifier gives them: strengths come from the monitor."""
    return Features(features.embeddings, features.logits)


def _check_classes(monitor: RuntimeMonitor, classes: Sequence[str]) -> None:
    if tuple(classes) != monitor.classes:
        raise InputError(
            f"classes must be those of the monitor ({', '.join(monitor.classes[:5])} …), got "
            f"{', '.join(classes[:5])} …; use the classifier that the monitor was fitted for"
        )
