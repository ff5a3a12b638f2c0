"""What all adapters share: the facts of a model, its hashes, and `encode` in any batch size."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray, check_array
from faultlens.errors import InputError, ShapeError, nearest
from faultlens.models.chain import Cut
from faultlens.models.description import ModelDescription
from faultlens.models.stages import pooled

InputShape = tuple[int | None, ...]


class CannotRunError(InputError):
    """The network failed on a batch, usually because of its size."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Facts:
    """What an adapter found out about a model.

    Attributes:
        name: Shown in reports.
        digest: A hash of the weights, before split and preprocessing.
        description: Class names and preprocessing.
        cut: Where the head begins.
        encoder_hashes: See `faultlens.arrays.tensor_hashes`, of the encoder's weights.
        input_shape: Of the network's input, None where it may vary.
        is_half: Whether the network computes in half precision.
    """

    name: str
    digest: str
    description: ModelDescription
    cut: Cut
    encoder_hashes: frozenset[str]
    input_shape: InputShape = (None, None, None, None)
    is_half: bool = False


class SplitClassifier(ABC):
    """A `Classifier` whose subclass only runs one batch.

    Attributes:
        name: Shown in reports.
        content_hash: SHA-256 over weights, split and preprocessing.
        class_names: K names, in the order of the logits.
        preprocessing: How pictures become inputs.
        dimension: D, length of the embedding.
        head: The part after the embedding; `head(embedding)` equals the logits.
        tensor_hashes: See `faultlens.arrays.tensor_hashes`.
        split: Name of the tensor, graph node or module at which the head begins.
        notes: What a reader should know about how the model was cut.
        input_shape: Of the network's input, None where it may vary.
        tolerance: Difference that the model's precision explains, relative to the largest value.
        stages: Names of what is watched inside the encoder; see `with_stages`.
    """

    def __init__(self, facts: Facts) -> None:
        self.name = facts.name
        self.class_names = facts.description.classes
        self.preprocessing = facts.description.preprocessing
        self.head = facts.cut.head
        self.dimension = self.head.dimension
        self.tensor_hashes = facts.encoder_hashes
        self.split = facts.cut.embedding
        self.notes = facts.cut.notes
        self.input_shape = facts.input_shape
        self.tolerance = 1e-2 if facts.is_half else 1e-4
        self.stages: tuple[str, ...] = ()
        parts = "\n".join([facts.digest, self.split, self.preprocessing.content_hash])
        self.content_hash = hashlib.sha256(parts.encode()).hexdigest()

    @abstractmethod
    def _run(self, batch: FloatArray) -> Sequence[Array]:
        """Return embedding, logits and every stage, of a batch of the model's own size."""

    @abstractmethod
    def _stage_names(self) -> Collection[str]:
        """Return every name that can be watched."""

    @abstractmethod
    def candidates(self) -> tuple[str, ...]:
        """Return the ends of the encoder's blocks, in the order in which they are computed."""

    def with_stages(self, names: Sequence[str]) -> Self:
        """Return the same classifier, whose `encode` also gives pooled activations.

        Args:
            names: Modules (torch), tensors or nodes (ONNX), or graph nodes (torch-export).

        Raises:
            InputError: A name is unknown or there twice.
        """
        known = self._stage_names()
        for i, name in enumerate(names):
            if name in names[:i]:
                raise InputError(f"stages must all differ, got '{name}' twice")
            if name not in known:
                few = ", ".join(repr(c) for c in self.candidates()) or "none that stand out"
                raise InputError(
                    f"stages must be names of {self.name}, got '{name}'; {nearest(name, known)} "
                    f"(blocks of it: {few})"
                )
        watched = copy.copy(self)
        watched.stages = tuple(names)
        return watched

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the network's input (thread-safe)."""
        return self.preprocessing(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Run the network on prepared pictures.

        Args:
            batch: (N, 3, H, W) or (N, H, W, 3), as `prepare` gives them.

        Returns:
            `embedding` (N, D) and `logits` (N, K), float32; for every watched stage also
            `stage:<name>` (N, D_s), its mean over space or tokens.

        Raises:
            InputError: The batch does not fit the model, or the result is not finite.
        """
        x = check_array(batch, "N C H W", name="batch").astype(np.float32, copy=False)
        self._check_shape(x)
        size = self.input_shape[0] or len(x)
        parts = [self._run_padded(x[i : i + size], size) for i in range(0, len(x), size)]
        names = ("embedding", "logits", *(f"stage:{stage}" for stage in self.stages))
        arrays = (np.concatenate(p) for p in zip(*parts, strict=True))
        return {
            name: check_array(a, "N D", name=name) for name, a in zip(names, arrays, strict=True)
        }

    def _run_padded(self, x: FloatArray, size: int) -> list[FloatArray]:
        n = len(x)
        full = np.concatenate([x, np.repeat(x[-1:], size - n, axis=0)]) if n < size else x
        embedding, logits, *maps = self._run(full)
        if {len(embedding), len(logits)} != {size}:
            raise InputError(
                f"split_at must name a tensor with one row for each of the {size} pictures, got "
                f"shape {embedding.shape} at '{self.split}' of {self.name}; choose another split_at"
            )
        rows = [pooled(a, size, name) for a, name in zip(maps, self.stages, strict=True)]
        return [a[:n] for a in (_rows(embedding), _rows(logits), *rows)]

    def _check_shape(self, x: FloatArray) -> None:
        fixed = self.input_shape[1:]
        if any(want not in (None, got) for want, got in zip(fixed, x.shape[1:], strict=True)):
            raise ShapeError(
                f"pictures must have shape {show_shape(fixed)}, which {self.name} was made for, "
                f"got {show_shape(x.shape[1:])}; correct resize and crop of the preprocessing"
            )


def _rows(a: Array) -> FloatArray:
    return np.asarray(a, dtype=np.float32).reshape(len(a), -1)


def show_shape(shape: InputShape) -> str:
    """Return a shape as people write it.

    Example:
        >>> show_shape((None, 3, 32, 32))
        'any × 3 × 32 × 32'
    """
    return " × ".join("any" if n is None else str(n) for n in shape)
