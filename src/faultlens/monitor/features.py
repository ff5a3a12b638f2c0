"""What a detector may look at: numbers of a batch that was run once, never the live network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from faultlens.arrays import Array, FloatArray, IntArray, check_array
from faultlens.errors import InputError, ShapeError, nearest

#: What `layers` may hold: pooled activations of a stage of the encoder, (N, D_s) each; logits of
#: a changed version of the image, (N, K) each; scores of the classes by the VLM, (N, K).
STAGE, SQUEEZE, VLM = "stage:", "squeeze:", "vlm"
#: To fit with only, (N, 1): 1 for attacked images, 0 for benign ones.
ATTACKED = "attacked"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Cached outputs of a classifier on N images, checked at the door.

    Attributes:
        embeddings: (N, D) inputs of the head; held as float32.
        logits: (N, K) outputs of the head, K at least 2.
        strengths: (N, C) concept strengths, held as float32, or None where there is no vocabulary.
        layers: What the full mode reads, by name: `stage:<name>`, `squeeze:<name>` and `vlm`, or
            any other (N, …) statistics; held as float32.

    Raises:
        ShapeError: Axes, lengths or values that are wrong, or fewer than two classes.

    Example:
        >>> features = Features(np.ones((3, 4)), np.array([[0.2, 0.9], [3, 1], [0, 1.0]]))
        >>> features.predictions.tolist()
        [1, 0, 1]
        >>> len(features.select(np.array([0, 2])))
        2
    """

    embeddings: Float[np.ndarray, "N D"]
    logits: Float[np.ndarray, "N K"]
    strengths: Float[np.ndarray, "N C"] | None = None
    layers: Mapping[str, FloatArray] = field(default_factory=dict)
    _predictions: IntArray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        logits = check_array(self.logits, "N K", name="logits")
        if logits.shape[1] < 2:
            raise ShapeError("logits must have at least two classes, got 1; keep every output")
        if logits.dtype.itemsize < 4:
            logits = logits.astype(np.float32)
        self._set("logits", logits)
        self._set("embeddings", self._column(self.embeddings, "N D", "embeddings"))
        if self.strengths is not None:
            self._set("strengths", self._column(self.strengths, "N C", "strengths"))
        layers = {name: self._layer(name, values) for name, values in self.layers.items()}
        self._set("layers", layers)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen value is completed once, here

    def _column(self, values: Any, axes: str, name: str) -> FloatArray:
        a = check_array(values, axes, name=name).astype(np.float32, copy=False)
        if len(a) != len(self.logits):
            raise ShapeError(
                f"{name} must have one row an image, got {len(a)} for {len(self.logits)} logits"
            )
        return a

    def _layer(self, name: str, values: Array) -> FloatArray:
        flat = np.asarray(values)
        flat = flat.reshape(len(flat), -1) if flat.ndim > 1 else flat
        return self._column(flat, "N F", f"layers['{name}']")

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def predictions(self) -> IntArray:
        """(N,) index of the largest logit; the lowest one of equals."""
        if self._predictions is None:
            self._set("_predictions", np.asarray(self.logits.argmax(axis=1)))
        return cast("IntArray", self._predictions)

    def space(self, name: str) -> FloatArray:
        """Return the (N, width) points of a space: `embeddings`, `strengths` or a layer's name.

        Raises:
            InputError: There is no such space, or it was not given.
        """
        if name == "embeddings":
            return self.embeddings
        if name == "strengths":
            if self.strengths is None:
                raise InputError("strengths must be given for this detector; score them first")
            return self.strengths
        if name not in self.layers:
            known = ("embeddings", "strengths", *self.layers)
            raise InputError(
                f"space must be one of the features, got '{name}'; {nearest(name, known)}"
            )
        return self.layers[name]

    def named(self, prefix: str) -> tuple[str, ...]:
        """Return the names of layers that begin with a prefix, in alphabetical order.

        Raises:
            InputError: There is none.
        """
        found = tuple(sorted(name for name in self.layers if name.startswith(prefix)))
        if not found:
            raise InputError(
                f"layers must hold {prefix!r} … for this detector, got "
                f"{', '.join(self.layers) or 'none'}; take the features in full mode"
            )
        return found

    def with_layer(self, name: str, values: FloatArray) -> "Features":
        """Return the same with (N, …) statistics more."""
        layers = {**self.layers, name: values}
        return Features(self.embeddings, self.logits, self.strengths, layers)

    def select(self, rows: Any) -> "Features":
        """Return the features of some images.

        Args:
            rows: Indices, a mask or a slice; at least one image.

        Raises:
            ShapeError: No image.
        """
        logits = self.logits[rows]
        if not len(logits):
            raise ShapeError("rows must be of at least one image, got none; choose some")
        chosen = object.__new__(Features)  # rows of what was checked need no check
        chosen._set("logits", logits)
        chosen._set("embeddings", self.embeddings[rows])
        chosen._set("strengths", None if self.strengths is None else self.strengths[rows])
        chosen._set("layers", {name: values[rows] for name, values in self.layers.items()})
        chosen._set("_predictions", None)
        return chosen
