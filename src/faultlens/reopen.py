"""Reopen: from a finished session's folder to the material that fixes are made of."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from faultlens.arrays import Array, BoolArray, FloatArray, IntArray
from faultlens.concepts import strengths
from faultlens.data.duplicates import duplicate_groups
from faultlens.data.images import open_images
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import FaultlensError, InputError, StoreError
from faultlens.files import load_arrays, sha256_file
from faultlens.fixes.trial import Material, Part
from faultlens.measure import limited, select
from faultlens.models.classifier import Classifier
from faultlens.models.head import Head
from faultlens.session import DebugSession

#: Logits in half precision give the stored confidence up to this.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N images again: the n analysed ones in the session's order, then those to fit on only.

    Attributes:
        names: N names.
        embeddings: (N, D) of the classifier.
        logits: (N, K).
        labels: (N,).
        vlm: (N - n, E) embeddings of the vision-language model for the images to fit on only;
            None where there are no such images.
    """

    names: tuple[str, ...]
    embeddings: FloatArray
    logits: FloatArray
    labels: IntArray
    vlm: FloatArray | None = None


def classifier(session: DebugSession) -> Classifier:
    """Load the classifier of a session by its SPEC.

    Raises:
        InputError: The session does not know one, or its file was moved or changed.
    """
    c = session.info["config"]
    if not c.get("model") or not (":" in c["model"] or c["model"].endswith(".onnx")):
        raise InputError(
            f"model must be given: the session knows only its name, got '{c.get('model')}'"
        )
    try:
        found = session.load_classifier()
    except (FaultlensError, ImportError) as error:
        raise InputError(
            f"model must be where the run found it, got '{c['model']}' ({error}); put it back, or "
            "run in the folder of the run"
        ) from error
    check_same(session, found)
    return found


def check_same(session: DebugSession, model: Classifier) -> None:
    """Raise InputError unless the classifier is the one of the run."""
    known = session.info["facts"].get("model", {}).get("content_hash")
    if model.content_hash != known:
        raise InputError(
            "model must be the one of the run, got another (weights or preprocessing changed); "
            "run 'faultlens debug' again"
        )


def features_head(session: DebugSession) -> Head:
    """Read the head of a session over features.

    Raises:
        InputError: The run had none, or its file was moved.
    """
    path = session.info["config"].get("head")
    if path is None:
        raise InputError(
            "head must be known to mend it, got a run over features without one; run 'faultlens "
            "debug' again with --head FILE"
        )
    return Head.load(path)


def shipped_head(session: DebugSession, model: Classifier | None = None) -> Head:
    """Return the head of a session's classifier.

    Args:
        session: Open.
        model: The classifier, where the session cannot load it by its SPEC.

    Raises:
        InputError: The run knew no head, another model is given, or a file was moved or changed.
    """
    if session.info["config"].get("features"):
        return features_head(session)
    if model is None:
        return classifier(session).head
    check_same(session, model)
    return model.head


def images(session: DebugSession) -> Rows:
    """Find the embeddings, logits and labels of a session's images again.

    Raises:
        InputError: Features, or the images of a reference split, are no longer where they were.
        StoreError: The embeddings of the run are missing or damaged.
    """
    classes = {name: k for k, name in enumerate(session.classes)}
    labels = np.array([classes[row["label"]] for row in session.images], np.int64)
    if session.info["config"].get("features"):
        return _from_features(session, labels)
    return _from_store(session, labels)


def material(session: DebugSession, head: Head) -> Material:
    """Gather embeddings, labels and fits of a session.

    Args:
        session: Open.
        head: The shipped one.

    Raises:
        InputError: Features, or the images of a reference split, are no longer where they were.
        StoreError: The embeddings of the run are missing or damaged.
    """
    stored = session.arrays("alignment")
    rows = images(session)
    if head.n_classes != rows.logits.shape[1] or head.dimension != rows.embeddings.shape[1]:
        raise InputError(
            f"head must map {rows.embeddings.shape[1]} dimensions to {rows.logits.shape[1]} "
            f"classes, got {head.dimension} to {head.n_classes}; use the head of the run"
        )
    seen = np.asarray(session.arrays("strengths")["vlm"])
    if rows.vlm is not None:
        more = strengths(rows.vlm, stored["directions"], stored["fit0.centre_vlm"])
        seen = np.concatenate([seen, more])
    parts, full = _parts(session, stored, len(rows.labels))
    return Material(
        embeddings=rows.embeddings,
        labels=rows.labels,
        predictions=rows.logits.argmax(axis=1),
        strengths=seen,
        directions=stored["directions"],
        head=head,
        parts=parts,
        full=full,
        penalty=float(session.info["fit"]["head_penalty"]),
        classes=session.classes,
        concepts=session.concepts,
        images=session.images,
    )


def _parts(
    session: DebugSession, stored: Mapping[str, Array], n_rows: int
) -> tuple[tuple[Part, ...], Part]:
    n = len(session.images)
    fit_of = np.array([row["fit"] for row in session.images])
    everything, analysed = np.arange(n_rows), np.arange(n)
    is_cross_fitted = session.info["fit"]["is_cross_fitted"]
    parts = []
    for i in range(session.info["fit"]["n_fits"]):
        reference = analysed[fit_of != i] if is_cross_fitted else everything[n:]
        parts.append(_part(stored, f"fit{i}", reference, analysed[fit_of == i]))
    reference = everything if is_cross_fitted else everything[n:]
    return tuple(parts), _part(stored, "full", reference, analysed[:0])


def _part(
    stored: Mapping[str, Array], name: str, reference: NDArray[np.int64], held: NDArray[np.int64]
) -> Part:
    weight, bias = stored[f"{name}.head_weight"], stored[f"{name}.head_bias"]
    return Part(reference, held, stored[f"{name}.weight"], weight, bias)


def _from_features(session: DebugSession, labels: IntArray) -> Rows:
    path = Path(session.info["config"]["features"])
    if not path.is_file():
        raise InputError(f"features must be where the run found them, got '{path}'; put them back")
    if sha256_file(path) != session.info["facts"]["features"]["sha256"]:
        raise InputError(
            f"features must be those of the run, got a changed '{path}'; run 'faultlens debug' "
            "again"
        )
    arrays, _ = load_arrays(path)
    rows = [int(row["name"].removeprefix("row[").removesuffix("]")) for row in session.images]
    z, logits = (np.asarray(arrays[key], np.float32)[rows] for key in ("embedding", "logits"))
    return Rows(_names(session), z, logits, labels)


def _names(session: DebugSession) -> tuple[str, ...]:
    return tuple(row["name"] for row in session.images)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """The images as a run listed them, one row of the store each.

    Attributes:
        names: N names, unreadable images among them.
        labels: (N,).
        is_reference: (N,) whether an image served to fit on only.
    """

    names: tuple[str, ...]
    labels: IntArray
    is_reference: BoolArray


def near_duplicates(session: DebugSession) -> IntArray:
    """Group the analysed images of a session over images: near-duplicates have one number.

    Returns:
        (n,) groups, in the session's order.

    Raises:
        InputError: The images of a reference split are no longer where they were.
        StoreError: The embeddings of the run are missing or damaged.
    """
    store, rows, _ = _run_store(session)
    signatures = store.column("signature")
    return duplicate_groups(_digests(signatures), signatures)[rows]


def _from_store(session: DebugSession, labels: IntArray) -> Rows:
    store, rows, everything = _run_store(session)
    if everything is None:
        z, logits = store.rows("embedding", rows), store.rows("logits", rows)
        return Rows(_names(session), z, logits, labels)
    return _with_reference(session, store, everything, rows, labels)


def _run_store(
    session: DebugSession,
) -> tuple[EmbeddingStore, NDArray[np.int64], Listed | None]:
    """Find the run's own store: the one whose logits give the session's predictions."""
    folder = session.folder / "embeddings"
    everything = listed(session) if not session.info["fit"]["is_cross_fitted"] else None
    for path in sorted(folder.glob("model-*")):
        try:
            store = EmbeddingStore.open(path)
        except StoreError:
            continue
        rows = _analysed_rows(session, store, everything)
        if rows is not None and _is_of_run(session, store.rows("logits", rows)):
            return store, rows, everything
    raise StoreError(
        f"{folder} must hold the embeddings of the run, got none that are complete and give its "
        f"predictions; run 'faultlens debug' with --out {session.folder} again"
    )


def listed(session: DebugSession) -> Listed:
    """List a run's images again: the session names the analysed ones only.

    Raises:
        InputError: They are no longer where they were.
    """
    c = session.info["config"]
    try:
        source, is_reference = select(open_images(c["images"]), c["split"], c["reference_split"])
    except FaultlensError as error:
        raise InputError(
            f"images must be where the run found them, got '{c['images']}' ({error}); put them back"
        ) from error
    source = source.match_classes(session.classes)
    if c["limit"] is not None:
        source, is_reference = limited(source, is_reference, c["limit"])
    return Listed(source.names, source.labels, is_reference)


def _analysed_rows(
    session: DebugSession, store: EmbeddingStore, everything: Listed | None
) -> NDArray[np.int64] | None:
    """Rows of the analysed images in a store, or None where it is of another run."""
    n_rows, n = store.layout.n_rows, len(session.images)
    if everything is None:
        # Stores keep the order of the images, and a failed one keeps its row.
        good = np.array([i for i in range(n_rows) if i not in store.failures], np.int64)
        return good if len(good) == n else None
    place = {name: i for i, name in enumerate(everything.names)}
    rows = [place.get(row["name"], -1) for row in session.images]
    return np.array(rows) if len(everything.names) == n_rows and min(rows) >= 0 else None


def _is_of_run(session: DebugSession, logits: FloatArray) -> bool:
    if logits.shape[1] != len(session.classes):
        return False
    called = [session.classes[k] for k in logits.argmax(axis=1)]
    confidence = special.softmax(logits, axis=1).max(axis=1)
    known = np.array([row["confidence"] for row in session.images])
    is_same = called == [row["prediction"] for row in session.images]
    return is_same and bool(np.abs(confidence - known).max() <= _TOLERANCE)


def _with_reference(
    session: DebugSession,
    store: EmbeddingStore,
    everything: Listed,
    rows: NDArray[np.int64],
    labels: IntArray,
) -> Rows:
    """Add the reference images: readable, and no near-duplicates of analysed ones."""
    vlm = _vlm_store(session, store.layout.n_rows)
    signatures = store.column("signature")
    groups = duplicate_groups(_digests(signatures), signatures)
    failed = {*store.failures, *vlm.failures}
    is_good = np.array([i not in failed for i in range(len(groups))])
    is_good &= ~np.isin(everything.names, list(session.info["failures"]))
    more = np.flatnonzero(everything.is_reference & is_good & ~np.isin(groups, groups[rows]))
    both = np.concatenate([rows, more])
    return Rows(
        _names(session) + tuple(everything.names[i] for i in more),
        store.rows("embedding", both),
        store.rows("logits", both),
        np.concatenate([labels, everything.labels[more]]),
        vlm.rows("embedding", more),
    )


def _digests(signatures: Array) -> Sequence[str]:
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in signatures]


def _vlm_store(session: DebugSession, n_rows: int) -> EmbeddingStore:
    dimension: Any = session.info["facts"]["vlm"]["dimension"]
    for path in sorted((session.folder / "embeddings").glob("vlm-*")):
        try:
            store = EmbeddingStore.open(path)
        except StoreError:
            continue
        width = store.layout.columns["embedding"][0]
        if store.layout.n_rows == n_rows and width == dimension:
            return store
    raise StoreError(
        f"{session.folder / 'embeddings'} must hold the embeddings of the vision-language model, "
        f"got none that are complete; run 'faultlens debug' with --out {session.folder} again"
    )
