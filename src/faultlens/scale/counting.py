"""Heatmap counts over a store of any size: integers, so any order gives the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from faultlens.alignment import PART, AffineMap
from faultlens.arrays import FloatArray
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError, ShapeError
from faultlens.heatmaps import ClassCounts, HeatmapCounts
from faultlens.scale.columns import Folder, Labels, blocks, labels_of
from faultlens.scale.partials import Arrays, Partials, added, key_of

_PARTS = ("correct", "false_negative", "false_positive")


@dataclass(frozen=True, slots=True, eq=False)
class Concepts:
    """How the strengths of C concepts depend on an embedding: `weight @ z + offset`.

    Attributes:
        names: C names.
        classes: K names, in the order of the logits.
        weight: (C, D).
        offset: (C,).
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    weight: FloatArray
    offset: FloatArray

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or len(self.weight) != len(self.names):
            raise ShapeError(
                f"weight must have one row a concept, ({len(self.names)}, D), "
                f"got shape {self.weight.shape}"
            )
        if self.offset.shape != (len(self.names),):
            raise ShapeError(f"offset must be ({len(self.names)},), got shape {self.offset.shape}")

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        classes: Sequence[str],
        fitted: AffineMap,
        directions: FloatArray,
        centre: FloatArray,
    ) -> "Concepts":
        """Return the strengths `directions @ A(z) - centre`.

        Args:
            names: C names.
            classes: K names.
            fitted: The map A.
            directions: (C, E) of the vocabulary.
            centre: (C,) mean strength over the reference images.
        """
        q = np.asarray(directions, np.float64)
        weight, bias = q @ fitted.weight, q @ fitted.bias - centre
        return cls(tuple(names), tuple(classes), weight, np.asarray(bias))

    def strengths(self, embeddings: FloatArray) -> FloatArray:
        """Return (n, C) float64 for (n, D) embeddings."""
        z = np.asarray(embeddings, np.float64)
        return np.asarray(z @ np.asarray(self.weight, np.float64).T + self.offset)


def count_job(
    model: Folder, labels: Labels, concepts: Concepts, out: Folder
) -> Partials[ClassCounts]:
    """Return the job that counts the heatmaps of a classifier's store.

    Args:
        model: Store with columns `embedding` and `logits`.
        labels: (N,) integers below K, or an `.npy` file of them; the truth.
        concepts: How strengths depend on an embedding.
        out: Folder or URL of the partial counts.

    Raises:
        StoreError: The store is absent or not finished.
        ShapeError: Labels or concepts that do not fit the store.
    """
    store = opened(model, concepts)
    n = store.layout.n_rows
    known = checked_labels(labels, n, len(concepts.classes))
    key = key_of(
        "counts", store.content_hash, np.asarray(known), concepts.names, concepts.classes,
        concepts.weight, concepts.offset,
    )  # fmt: skip
    mapper = partial(_mapper, model, labels, concepts)
    return Partials(out, f"counts-{key}", n, mapper, partial(_counts_of, concepts))


def opened(model: Folder, concepts: Concepts) -> EmbeddingStore:
    """Open a classifier's store; InputError or ShapeError where the concepts do not fit it."""
    store = EmbeddingStore.open(model, is_checked=False)
    widths = {"embedding": concepts.weight.shape[1], "logits": len(concepts.classes)}
    for name, width in widths.items():
        if name not in store.layout.columns:
            raise InputError(
                f"{model} must have a column '{name}', got {sorted(store.layout.columns)}"
            )
        if store.layout.columns[name][0] != width:
            raise ShapeError(
                f"column '{name}' must be {width} wide, as the concepts are, got "
                f"{store.layout.columns[name][0]}; use the session of the same model"
            )
    return store


def checked_labels(labels: Labels, n_rows: int, n_classes: int) -> np.ndarray:
    """Return labels after checking their number and range."""
    known = labels_of(labels, n_rows)
    if known.min() < 0 or known.max() >= n_classes:
        raise ShapeError(
            f"labels must lie in 0 … {n_classes - 1}, got {known.min()} to {known.max()}"
        )
    return known


def _mapper(model: Folder, labels: Labels, concepts: Concepts) -> Callable[[range], Arrays]:
    store = EmbeddingStore.open(model, is_checked=False)
    truth = labels_of(labels, store.layout.n_rows)
    columns = [(store, "embedding"), (store, "logits")]
    k, c = len(concepts.classes), len(concepts.names)

    def of_part(rows: range) -> Arrays:
        strengths, known, predicted = [np.empty((0, c), np.float32)], [], []
        for block in blocks(columns, rows):
            z, logits = block.columns
            strengths.append(concepts.strengths(z).astype(np.float32))
            known.append(np.asarray(truth[block.rows], np.int64))
            predicted.append(logits.argmax(axis=1))
        if not known:
            return _zeros(k, c)
        found = ClassCounts.of(
            np.concatenate(strengths), np.concatenate(known), np.concatenate(predicted),
            concepts.names, concepts.classes, n_threads=1,
        )  # fmt: skip
        return {
            f"{part}.{name}": getattr(getattr(found, part), name)
            for part in _PARTS
            for name in ("wins", "n")
        }

    def counts(rows: range) -> Arrays:
        # However many rows a part has, the strengths of few are in memory.
        starts = range(rows.start, rows.stop, PART)
        ranges = [range(start, min(start + PART, rows.stop)) for start in starts]
        return reduce(added, map(of_part, ranges), _zeros(k, c))

    return counts


def _zeros(k: int, c: int) -> Arrays:
    wins, n = np.zeros((k, c, c), np.int64), np.zeros(k, np.int64)
    return {f"{part}.{name}": a for part in _PARTS for name, a in (("wins", wins), ("n", n))}


def _counts_of(concepts: Concepts, arrays: Arrays) -> ClassCounts:
    parts = (HeatmapCounts(arrays[f"{part}.wins"], arrays[f"{part}.n"]) for part in _PARTS)
    return ClassCounts(concepts.names, concepts.classes, *parts)
