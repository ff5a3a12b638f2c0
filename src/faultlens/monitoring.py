"""Monitoring: a runtime monitor from a finished session, and what it says of other images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from faultlens import files, full_mode, reopen, vlm_opinion
from faultlens.arrays import Array, BoolArray, FloatArray, IntArray, check_array
from faultlens.errors import InputError, nearest
from faultlens.inner_features import inner_features
from faultlens.models.classifier import Classifier, batches
from faultlens.monitor.features import VLM, Features
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.monitor.verdict import ConceptMap, Verdict
from faultlens.monitor.vlm_classes import VlmClasses
from faultlens.session import DebugSession
from faultlens.vlm.backend import VlmBackend


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


def fit(
    session: DebugSession,
    settings: Settings | None = None,
    progress: full_mode.Progress | None = None,
) -> RuntimeMonitor:
    """Fit a monitor on the images of a session.

    With a reference split these are the reference images; otherwise all of them.

    Args:
        session: Finished.
        settings: Of the monitor.
        progress: Called with the images run again and all, in full mode.

    Raises:
        InputError: A setting is wrong, or features or images are no longer where they were.
        InsufficientDataError: Too few images for the false-alarm rate.
        StoreError: The embeddings of the session are missing or damaged.
    """
    settings = settings or Settings()
    judged = to_fit(session)
    asked = vlm_opinion.classes_of(session) if settings.mode == "full-vlm" else None
    if settings.mode != "light":
        judged = _watched(session, judged, None, asked, progress)
    monitor = RuntimeMonitor.fit_features(
        judged.features,
        judged.labels,
        settings=settings,
        classes=session.classes,
        concept_map=concept_map(session),
    )
    facts = {**monitor.facts, "session": session.folder.resolve().name, "fitted_on": judged.digest}
    return replace(monitor, vlm_classes=asked, facts=facts)


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


def _watched(
    session: DebugSession,
    judged: Judged,
    layers: Sequence[str] | None,
    asked: VlmClasses | None,
    progress: full_mode.Progress | None = None,
) -> Judged:
    found = full_mode.watch_again(session, judged.names, judged.features, layers, progress)
    if asked is not None:
        found = found.with_layer(VLM, vlm_opinion.of_session(session, judged.names, asked))
    return replace(judged, features=found)


def as_monitor_reads(monitor: RuntimeMonitor, session: DebugSession, judged: Judged) -> Judged:
    """Return images of a session with the layers that a monitor in full mode reads."""
    if not monitor.layers:
        return judged
    return _watched(session, judged, monitor.layers, monitor.vlm_classes)


def score(monitor: RuntimeMonitor, session: DebugSession) -> tuple[tuple[str, ...], Verdict]:
    """Judge the images that a session analysed.

    A monitor in full mode runs them again.

    Returns:
        Their names and the verdict; strengths come from the monitor's own map.

    Raises:
        InputError: The session is of other classes, or its images are no longer there.
        StoreError: The embeddings of the session are missing or damaged.
    """
    check_classes(monitor, session.classes)
    judged = as_monitor_reads(monitor, session, analysed(session))
    return judged.names, monitor(bare(judged.features))


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


def of_images(
    monitor: RuntimeMonitor,
    model: Classifier,
    images: Sequence[Image.Image],
    vlm: VlmBackend | None = None,
) -> Verdict:
    """Judge pictures: run the classifier, in full mode on changed pictures too, then the monitor.

    Args:
        monitor: Fitted on this classifier.
        model: Loaded.
        images: At least one.
        vlm: The vision-language model, where the monitor asks one; loaded by its SPEC unless given.

    Raises:
        InputError: No image, a classifier of other classes, or another vision-language model.
    """
    check_classes(monitor, model.class_names)
    if not images:
        raise InputError("images must be at least one, got none; give a picture")
    prepared = batches(model, images)
    if monitor.layers:
        stages, squeezes = full_mode.wanted(monitor.layers)
        asked = monitor.vlm_classes
        opinion = None if asked is None else vlm_opinion.VlmReader(asked, vlm)(images)
        found = inner_features(model, prepared, stages=stages, squeezes=squeezes, vlm=opinion)
        return monitor(found)
    parts = [model.encode(batch) for batch in prepared]
    z, logits = (np.concatenate([p[key] for p in parts]) for key in ("embedding", "logits"))
    return monitor(Features(z, logits))


def bare(features: Features) -> Features:
    """Return features as a deployed classifier gives them: strengths come from the monitor."""
    return Features(features.embeddings, features.logits, layers=features.layers)


def check_classes(monitor: RuntimeMonitor, classes: Sequence[str]) -> None:
    """Raise InputError unless the classes are those that the monitor was fitted for."""
    if tuple(classes) != monitor.classes:
        raise InputError(
            f"classes must be those of the monitor ({', '.join(monitor.classes[:5])} …), got "
            f"{', '.join(classes[:5])} …; use the classifier that the monitor was fitted for"
        )
