"""What every vision-language model (VLM) offers to the rest of FaultLens."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from faultlens.arrays import FloatArray


@runtime_checkable
class VlmBackend(Protocol):
    """A vision-language model: images and sentences in one space, compared by cosine.

    Attributes:
        name: Shown in reports, such as `offline`.
        content_hash: SHA-256 over weights, texts and preprocessing; the cache key.
        dimension: E, length of both embeddings.
        tensor_hashes: SHA-256 of each weight tensor of the image tower (float32 bytes), to notice
            a classifier that shares it.
    """

    name: str
    content_hash: str
    dimension: int
    tensor_hashes: frozenset[str]

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one picture as the image tower's input (thread-safe)."""
        ...

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch, of any length."""
        ...

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text; need not be unit length."""
        ...
