"""What every classifier adapter offers to the rest of FaultLens."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from faultlens.arrays import FloatArray
from faultlens.data.preprocess import Preprocessing
from faultlens.models.head import Head


@runtime_checkable
class Classifier(Protocol):
    """A trained classifier, split into an encoder and a head.

    Attributes:
        name: Shown in reports, such as `onnx:net.onnx`.
        content_hash: SHA-256 over weights, split and preprocessing; the cache key.
        class_names: K names, in the order of the logits.
        preprocessing: How pictures become inputs.
        dimension: D, length of the embedding.
        head: The part after the embedding, in NumPy; `head(embedding)` equals the logits.
        tensor_hashes: SHA-256 of each weight tensor of the encoder (float32 bytes), to notice a
            VLM that shares it.
    """

    name: str
    content_hash: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    dimension: int
    head: Head
    tensor_hashes: frozenset[str]

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one picture as the network's input (thread-safe)."""
        ...

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, D), "logits": (N, K)}`, float32, for a prepared batch."""
        ...


def batches(
    model: Classifier, images: Iterable[Image.Image], size: int = 32
) -> Iterator[FloatArray]:
    """Yield pictures as batches of the network's input, read as they are needed."""
    left = iter(images)
    while batch := [model.prepare(image) for image in islice(left, size)]:
        yield np.stack(batch)
