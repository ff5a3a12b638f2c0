"""Axis letters, array types and the check at the door.

Letters: N images, D classifier embedding, E vision-language embedding, C concepts, K classes,
P prompts, L layers, T training steps.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray

from faultlens.errors import ShapeError

Array = NDArray[Any]
FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]

Embeddings = Float[np.ndarray, "N D"]
VlmEmbeddings = Float[np.ndarray, "N E"]
Logits = Float[np.ndarray, "N K"]
Labels = Integer[np.ndarray, "N"]
Strengths = Float[np.ndarray, "N C"]
Mask = Bool[np.ndarray, "N"]

_MIN_HASHED = 64  # values; smaller tensors cannot tell two networks apart


def check_array(x: Any, axes: str, *, name: str, kind: str = "float", finite: bool = True) -> Array:
    """Return `x` as an array after checking its number of axes, type and values.

    Args:
        x: Anything that NumPy can turn into an array.
        axes: Axis letters separated by spaces, such as `"N D"`; only their number is checked.
        name: The argument's name, for the message.
        kind: `"float"` (integers are accepted and cast to float32) or `"int"`.
        finite: Refuse NaN and infinity.

    Raises:
        ShapeError: Wrong number of axes, an empty axis, wrong type, or values not finite.

    Example:
        >>> check_array([[1, 2], [3, 4]], "N D", name="embeddings").dtype
        dtype('float32')
    """
    a = np.asarray(x)
    want = axes.split()
    if a.ndim != len(want):
        raise ShapeError(f"{name} must have axes ({', '.join(want)}), got shape {a.shape}")
    if 0 in a.shape:
        raise ShapeError(f"{name} must not be empty, got shape {a.shape}")
    if kind == "int":
        if a.dtype.kind not in "iu":
            raise ShapeError(f"{name} must hold integers, got {a.dtype}; cast it first")
        return a
    if a.dtype.kind in "iub":
        a = a.astype(np.float32)
    if a.dtype.kind != "f":
        raise ShapeError(f"{name} must hold numbers, got {a.dtype}")
    if finite and not np.isfinite(a).all():
        bad = int((~np.isfinite(a)).sum())
        raise ShapeError(
            f"{name} must be finite, got {bad} NaN or infinite values; "
            "check the model's weights and preprocessing"
        )
    return a


def read_only(a: Array) -> Array:
    """Return `a` marked read-only, so that a frozen value stays frozen."""
    a.setflags(write=False)
    return a


def tensor_hashes(weights: Iterable[Array]) -> frozenset[str]:
    """Return the SHA-256 of the float32 bytes of every weight with at least 64 values.

    Two networks that share such a hash share a layer.

    Example:
        >>> len(tensor_hashes([np.ones(64), np.ones(64), np.ones(2)]))
        1
    """
    return frozenset(
        hashlib.sha256(np.ascontiguousarray(a, dtype=np.float32).tobytes()).hexdigest()
        for a in weights
        if a.size >= _MIN_HASHED
    )
