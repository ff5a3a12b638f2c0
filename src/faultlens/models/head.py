"""The head of a classifier: the affine and ReLU layers between its embedding and its logits."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from faultlens.arrays import Array, FloatArray, IntArray, check_array, read_only
from faultlens.errors import InputError, ShapeError, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Affine layers with a ReLU between each two of them: `z -> logits`.

    Attributes:
        weights: One matrix a layer, float32; the first has D columns, the last K rows.
        biases: One vector a layer, float32.

    Raises:
        ShapeError: A layer has the wrong shape or holds NaN or infinity, or two neighbours do
            not fit together.

    Example:
        >>> head = Head((np.eye(2, 3),), (np.array([0.0, 1.0]),))
        >>> head(np.array([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 3.0]]
        >>> head.n_classes, head.dimension, head.is_linear
        (2, 3, True)
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        if not self.weights or len(self.weights) != len(self.biases):
            raise ShapeError(
                "head must have at least one layer and a bias for every weight, "
                f"got {len(self.weights)} weights and {len(self.biases)} biases"
            )
        object.__setattr__(self, "weights", tuple(_layer(self.weights, "K D", "weight")))
        object.__setattr__(self, "biases", tuple(_layer(self.biases, "K", "bias")))
        width = self.dimension
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.shape != (len(bias), width):
                name = "weight" if self.is_linear else f"weight_{i}"
                raise ShapeError(
                    f"{name} must have shape ({len(bias)}, {width}) to fit its neighbours, "
                    f"got {weight.shape}"
                )
            width = len(bias)

    @property
    def dimension(self) -> int:
        """D, the length of the embedding."""
        return int(self.weights[0].shape[-1])

    @property
    def n_classes(self) -> int:
        """K, the number of logits."""
        return len(self.biases[-1])

    @property
    def is_linear(self) -> bool:
        """Whether the head is a single affine layer."""
        return len(self.weights) == 1

    @property
    def weight(self) -> FloatArray:
        """The (K, D) matrix of a linear head; InputError for a chain."""
        self._require_linear()
        return self.weights[0]

    @property
    def bias(self) -> FloatArray:
        """The (K,) bias of a linear head; InputError for a chain."""
        self._require_linear()
        return self.biases[0]

    @property
    def content_hash(self) -> str:
        """SHA-256 over the shapes and values of all layers."""
        digest = hashlib.sha256()
        for a in (*self.weights, *self.biases):
            digest.update(repr(a.shape).encode() + a.tobytes())
        return digest.hexdigest()

    def __call__(self, z: Any) -> FloatArray:
        """Return the logits of embeddings.

        Args:
            z: (N, D) embeddings.

        Returns:
            (N, K) logits: float64 for float64 embeddings, otherwise float32.

        Raises:
            ShapeError: `z` is not (N, D) with this head's D, or is not finite.
        """
        x = check_array(z, "N D", name="embeddings")
        if x.shape[1] != self.dimension:
            raise ShapeError(
                f"embeddings must have {self.dimension} columns, as the head does, "
                f"got {x.shape[1]}; give embeddings of the same model and split"
            )
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T + bias, 0)
        return x @ self.weights[-1].T + self.biases[-1]

    def replace(self, weight: Any, bias: Any) -> "Head":
        """Return a linear head for the same embedding and classes.

        Args:
            weight: (K, D).
            bias: (K,).

        Raises:
            ShapeError: K or D differ from this head's.

        Example:
            >>> Head((np.eye(2),), (np.zeros(2),)).replace(2 * np.eye(2), [0, 1]).bias.tolist()
            [0.0, 1.0]
        """
        head = Head((weight,), (bias,))
        if (head.n_classes, head.dimension) != (self.n_classes, self.dimension):
            raise ShapeError(
                f"weight must have shape ({self.n_classes}, {self.dimension}), as the head it "
                f"replaces, got {head.weight.shape}"
            )
        return head

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, complete or not at all.

        A linear head is stored as `weight` and `bias`, a chain as `weight_0`, `bias_0`, ….
        """
        tensors = {
            f"{kind}{'' if self.is_linear else f'_{i}'}": np.ascontiguousarray(a)
            for kind, layers in (("weight", self.weights), ("bias", self.biases))
            for i, a in enumerate(layers)
        }
        part = Path(f"{os.fspath(path)}.part")
        part.write_bytes(safetensors.numpy.save(tensors))
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Head":
        """Read what `save` wrote, or any safetensors file with `weight` (K, D) and `bias` (K,).

        Raises:
            InputError: The file is missing or not safetensors, names other tensors, or they are
                of the wrong shape or not finite.

        Example:
            >>> import tempfile
            >>> file = Path(tempfile.mkdtemp()) / "head.safetensors"
            >>> Head((np.eye(2),), (np.zeros(2),)).save(file)
            >>> Head.load(file).weight.tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        tensors = _read(Path(path))
        n = sum(name.startswith("weight_") for name in tensors)
        suffixes = [f"_{i}" for i in range(n)] or [""]
        wanted = [kind + suffix for kind in ("weight", "bias") for suffix in suffixes]
        missing = sorted(set(wanted) - set(tensors))
        unknown = sorted(set(tensors) - set(wanted))
        if unknown or missing:
            hint = nearest(unknown[0], ["weight", "bias"]) if unknown else f"add '{missing[0]}'"
            raise InputError(
                f"head file must hold 'weight' and 'bias' (or 'weight_0', 'bias_0', … for a "
                f"chain), got {sorted(tensors)} in '{path}'; {hint}"
            )
        try:
            return cls(
                tuple(tensors["weight" + s] for s in suffixes),
                tuple(tensors["bias" + s] for s in suffixes),
            )
        except ShapeError as error:
            raise ShapeError(f"{error} (in '{path}')") from error

    def _require_linear(self) -> None:
        if not self.is_linear:
            raise InputError(
                f"head must be linear for this, got {len(self.weights)} layers; "
                "split the model at the input of its last layer"
            )


def predict(logits: Any) -> tuple[IntArray, int]:
    """Return the class of the largest logit for each row; ties go to the lowest index.

    Args:
        logits: (N, K).

    Returns:
        (N,) predictions, and the number of rows in which the largest value occurs twice or more.

    Example:
        >>> labels, n_ties = predict([[0.0, 2.0, 2.0], [3.0, 1.0, 0.0]])
        >>> labels.tolist(), n_ties
        ([1, 0], 1)
    """
    x = check_array(logits, "N K", name="logits")
    n_ties = int(((x == x.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return x.argmax(axis=1), n_ties


def _layer(arrays: Sequence[Any], axes: str, kind: str) -> list[Array]:
    """Return checked, private, read-only float32 copies."""
    names = [f"{kind}_{i}" for i in range(len(arrays))] if len(arrays) > 1 else [kind]
    checked = [check_array(a, axes, name=n) for a, n in zip(arrays, names, strict=True)]
    return [read_only(np.array(a, dtype=np.float32, order="C")) for a in checked]


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise InputError(f"head file must exist, got '{path}'; check the path")
    try:
        return safetensors.numpy.load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"head file must be a safetensors file of float32 arrays, got '{path}' ({error}); "
            "write it with Head.save or safetensors.numpy.save_file"
        ) from error
