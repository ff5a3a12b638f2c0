"""Features instead of a model: embeddings, logits and labels that the user already has."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faultlens.analysis import N_FOLDS, Measurements
from faultlens.arrays import Array, FloatArray, IntArray, check_array
from faultlens.data.duplicates import folds
from faultlens.data.subset import stratified_order
from faultlens.errors import InputError, nearest
from faultlens.files import load_arrays, sha256_file
from faultlens.measure import Measured
from faultlens.models.head import Head
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.labels import PrecomputedBridge
from faultlens.vlm.load import load_precomputed, load_vlm

#: What encodes the prompts: a whole VLM, or a bridge over stored logits.
TextSide = VlmBackend | PrecomputedBridge

#: Rows that tell a linear function from another encoder.
_MAX_ROWS = 20_000
_VLM_NAMES = "vlm_class_names"
_STAGE = "stage:"
_KNOWN = ("embedding", "logits", "label", "vlm_embedding", "vlm_logits")


def measure_features(
    path: Path,
    vlm: TextSide | str,
    *,
    head: Path | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> tuple[Measured, TextSide]:
    """Read a features file; its arrays are described in `docs/files.md`.

    Args:
        path: Safetensors with `embedding` (N, D), `logits` (N, K), `label` (N,), one of
            `vlm_embedding` (N, E) or `vlm_logits` (N, K'), and optional `stage:<name>` (N, D_s)
            in the order of the metadata `stages` (a JSON list), else of the alphabet.
        vlm: Gives the text side; with `vlm_logits` it encodes the label names as well. Loaded, or
            its SPEC.
        head: Optional safetensors with `weight` (K, D) and `bias` (K,), checked against the logits.
        classes: K names, if the file's metadata has no `class_names`.
        limit: At most so many rows, every class keeping its share.

    Returns:
        The measurements, and what encodes text into the same space.

    Raises:
        InputError: An array is missing, of the wrong shape, not finite, or does not match.
    """
    arrays, metadata = load_arrays(path)
    z, logits, labels = _checked(path, arrays)
    classes = _class_names(path, metadata, classes, logits.shape[1], "class_names", "classes")
    known = _checked_head(head, z, logits) if head is not None else None
    text, v = _vlm_side(path, arrays, metadata, classes, vlm)
    stages = _stages(path, arrays, metadata)
    is_independent = _is_independent(arrays, z)
    names = tuple(f"row[{i}]" for i in range(len(z)))
    if limit is not None and limit < len(z):
        rows = np.sort(stratified_order(names, labels)[:limit])
        z, logits, labels, v = z[rows], logits[rows], labels[rows], v[rows]
        stages = {name: a[rows] for name, a in stages.items()}
        names = tuple(names[i] for i in rows)
    digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in z]
    _, groups = np.unique(np.array(digests), return_inverse=True)
    measured = Measured(
        measurements=Measurements(
            embeddings=z,
            logits=logits,
            labels=labels,
            vlm_embeddings=v,
            folds=folds(digests, groups, N_FOLDS),
            is_reference=np.zeros(len(z), bool),
            stages=stages,
        ),
        names=names,
        classes=classes,
        source=None,
        slices={},
        head=known,
        is_independent=is_independent,
        facts={
            "features": {"file": path.name, "sha256": sha256_file(path), "n": len(z)},
            "vlm": {
                "name": text.name,
                "content_hash": text.content_hash,
                "dimension": text.dimension,
            },
        },
    )
    return measured, text


def _checked(path: Path, arrays: dict[str, Array]) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return embeddings, logits and labels after every check that needs no other file."""
    for name in arrays:
        if name not in _KNOWN and not name.startswith(_STAGE):
            raise InputError(f"{path} has an unknown array '{name}'; {nearest(name, _KNOWN)}")
    for name in _KNOWN[:3]:
        if name not in arrays:
            raise InputError(
                f"{path} must have the arrays embedding, logits and label, got no '{name}'; "
                f"it has {', '.join(sorted(arrays))}"
            )
    z = check_array(arrays["embedding"], "N D", name="embedding").astype(np.float32)
    logits = check_array(arrays["logits"], "N K", name="logits").astype(np.float32)
    labels = check_array(arrays["label"], "N", name="label", kind="int").astype(np.int64)
    if not len(z) == len(logits) == len(labels):
        raise InputError(
            f"{path}: embedding, logits and label must have one row an image, got "
            f"{len(z)}, {len(logits)} and {len(labels)}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"{path}: label must lie in [0, {logits.shape[1]}), the classes of the head, got "
            f"{labels.min()} to {labels.max()}"
        )
    return z, logits, labels


def _class_names(
    path: Path, metadata: dict[str, str], given: Sequence[str] | None, n: int, key: str, option: str
) -> tuple[str, ...]:  # fmt: skip
    names: Any = given
    if names is None and key in metadata:
        try:
            names = json.loads(metadata[key])
        except json.JSONDecodeError:
            names = metadata[key].split(",")
    if names is not None and (
        not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)
    ):
        raise InputError(f"{path}: {option} must be a list of names, got {names!r}")
    if names is None:
        raise InputError(
            f"{path} must name its classes, got none; add '{key}' (a JSON list) to its metadata, "
            f"or '{option}:' to the configuration"
        )
    if len(names) != n:
        raise InputError(f"{path}: {option} must be {n} names, one a logit, got {len(names)}")
    stripped = tuple(str(name).strip() for name in names)
    if len(set(stripped)) < n:
        raise InputError(f"{path}: {option} must all differ, got {', '.join(stripped)}")
    return stripped


def _stages(
    path: Path, arrays: dict[str, Array], metadata: dict[str, str]
) -> dict[str, FloatArray]:
    """Return the pooled activations of stages, in the order that the metadata name."""
    found = sorted(name.removeprefix(_STAGE) for name in arrays if name.startswith(_STAGE))
    names = json.loads(metadata["stages"]) if "stages" in metadata else found
    if sorted(names) != found:
        raise InputError(
            f"{path}: 'stages' of the metadata must name the arrays {_STAGE}NAME, got {names} for "
            f"{found}"
        )
    stages = {}
    for name in names:
        a = check_array(arrays[f"{_STAGE}{name}"], "N D", name=f"{_STAGE}{name}")
        if len(a) != len(arrays["embedding"]):
            n = len(arrays["embedding"])
            raise InputError(f"{path}: {_STAGE}{name} must have {n} rows, got {len(a)}")
        stages[name] = a.astype(np.float32)
    return stages


def _checked_head(path: Path, z: FloatArray, logits: FloatArray) -> Head:
    head = Head.load(path)
    if (head.dimension, head.n_classes) != (z.shape[1], logits.shape[1]):
        raise InputError(
            f"head must map {z.shape[1]} dimensions to {logits.shape[1]} classes, got "
            f"{head.dimension} to {head.n_classes}; use the head of the same model"
        )
    again = head(z)
    agree = float((again.argmax(axis=1) == logits.argmax(axis=1)).mean())
    # Features are often stored in half precision, so near ties may differ.
    if agree < 0.99:
        raise InputError(
            f"head must give the stored logits, but only {agree:.0%} of the predictions agree; "
            "use the head of the same model"
        )
    return head


def _vlm_side(
    path: Path,
    arrays: dict[str, Array],
    metadata: dict[str, str],
    classes: tuple[str, ...],
    vlm: TextSide | str,
) -> tuple[TextSide, FloatArray]:
    n = len(arrays["embedding"])
    if "vlm_embedding" in arrays:
        text = load_vlm(vlm) if isinstance(vlm, str) else vlm
        v = check_array(arrays["vlm_embedding"], "N E", name="vlm_embedding").astype(np.float32)
        if v.shape != (n, text.dimension):
            raise InputError(
                f"{path}: vlm_embedding must be ({n}, {text.dimension}) for '{text.name}', got "
                f"{v.shape}; use the VLM that made it"
            )
        return text, v
    if "vlm_logits" not in arrays:
        raise InputError(f"{path} must have vlm_embedding or vlm_logits; add one of them")
    logits = check_array(arrays["vlm_logits"], "N K", name="vlm_logits").astype(np.float32)
    if len(logits) != n:
        raise InputError(f"{path}: vlm_logits must have {n} rows, got {len(logits)}")
    same = classes if logits.shape[1] == len(classes) and _VLM_NAMES not in metadata else None
    labels = _class_names(path, metadata, same, logits.shape[1], _VLM_NAMES, "vlm_classes")
    bridge = load_precomputed(vlm, labels) if isinstance(vlm, str) else vlm
    if not isinstance(bridge, PrecomputedBridge):
        raise InputError(f"vlm must be a label bridge for stored vlm_logits, got '{bridge.name}'")
    return bridge, bridge.embeddings(logits)


def _is_independent(arrays: dict[str, Array], z: FloatArray) -> bool:
    """Whether the VLM's numbers are more than a linear function of the classifier's embedding."""
    target = arrays.get("vlm_logits", arrays.get("vlm_embedding"))
    if target is None or min(len(z), _MAX_ROWS) <= 2 * z.shape[1]:
        return True
    z, target = z[:_MAX_ROWS], target[:_MAX_ROWS]
    x = np.c_[z, np.ones(len(z), z.dtype)].astype(np.float64)
    y = target.astype(np.float64)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return bool((rest**2).sum() > 1e-3 * ((y - y.mean(axis=0)) ** 2).sum())
