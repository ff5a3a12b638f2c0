"""The label bridge: a labelled image classifier and a sentence encoder make a VLM.

An image is embedded as the mean of the text embeddings of its most likely labels, weighted by
their probabilities (ConSE: Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic
Embeddings, ICLR 2014, arXiv:1312.5650); a sentence is embedded by the sentence encoder. No pair
of image and text is needed. What no label speaks of, the bridge cannot see.

Deviations from the paper, chosen on development photographs (`benchmarks/bridge.py`):

* A label is embedded as the mean of several texts (names, kinds, looks), not by its name alone.
* The mean of all label embeddings is taken off images and texts alike. It carries what every
  label has in common, which drowns concepts that are far from all of them.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from faultlens.arrays import FloatArray, check_array, read_only
from faultlens.errors import InputError, ShapeError, nearest
from faultlens.vlm.bridge_file import BridgeFile
from faultlens.vlm.sentences import TextEncoder

TOP = 10
TEMPERATURE = 1.0


@runtime_checkable
class ImageClassifier(Protocol):
    """What the bridge needs of a classifier.

    Attributes:
        name: Shown in reports.
        content_hash: SHA-256 over weights and preprocessing.
        class_names: K' labels, in the order of the logits.
        tensor_hashes: SHA-256 of each weight tensor, as `VlmBackend` has them.
    """

    name: str
    content_hash: str
    class_names: tuple[str, ...]
    tensor_hashes: frozenset[str]

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one picture as the network's input (thread-safe)."""
        ...

    def encode(self, batch: FloatArray) -> Mapping[str, FloatArray]:
        """Return at least `logits` (N, K')."""
        ...


def bridge_embeddings(
    logits: FloatArray,
    label_embeddings: FloatArray,
    *,
    top: int = TOP,
    temperature: float = TEMPERATURE,
) -> FloatArray:
    """Return the mean of the embeddings of each image's likeliest labels, by probability.

    Args:
        logits: (N, K').
        label_embeddings: (K', E).
        top: Labels that count; all where there are fewer. Labels as likely as the last one
            count too.
        temperature: Above 1 evens out the probabilities.

    Returns:
        (N, E) float32, a convex combination of label embeddings.

    Raises:
        ShapeError: The number of labels differs, or an array is not finite.
        InputError: `top` or `temperature` is not positive.

    Example:
        >>> labels = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> logits = np.log([[0.6, 0.2, 0.2], [0.75, 0.25, 1e-9]])
        >>> bridge_embeddings(logits, labels, top=2).round(2).tolist()
        [[0.4000000059604645, 0.20000000298023224], [0.75, 0.25]]

    References:
        ConSE, arXiv:1312.5650, equation 4.
    """
    logits = check_array(logits, "N K", name="logits")
    label_embeddings = check_array(label_embeddings, "K E", name="label_embeddings")
    _check_settings(top, temperature)
    if logits.shape[1] != len(label_embeddings):
        raise ShapeError(
            f"logits must have one column for each of the {len(label_embeddings)} labels, "
            f"got {logits.shape[1]}; give the labels of the model that made them"
        )
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    if top < weights.shape[1]:
        last = np.partition(weights, -top, axis=1)[:, -top, None]
        weights[weights < last] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ label_embeddings, np.float32)


def embed_labels(texts: Sequence[Sequence[str]], encoder: TextEncoder) -> FloatArray:
    """Return (K', E) unit float32: for each label the mean of its texts' unit embeddings.

    Every text counts alike; 1:1:1 and 1:1:2 for names, kinds and looks were no better.

    Raises:
        InputError: A label has no text, or an empty one.
    """
    for k, given in enumerate(texts):
        if not given or not all(isinstance(t, str) and t.strip() for t in given):
            raise InputError(
                f"texts of label {k} must be sentences that are not empty, got {list(given)!r}; "
                "give at least its name"
            )
    distinct = sorted({t for given in texts for t in given})
    vectors = _unit(np.asarray(encoder.encode_text(distinct), np.float32))
    row = {text: i for i, text in enumerate(distinct)}
    return _unit(np.stack([vectors[[row[t] for t in given]].mean(axis=0) for given in texts]))


class PrecomputedBridge:
    """A label bridge from stored logits, for features without images.

    It has everything of a `VlmBackend` except the image tower. K' labels span at most K' - 1
    dimensions: with ten labels, concepts are told apart only as far as those labels do.

    Args:
        labels: K' label names, in the order of the logits.
        text: The sentence encoder.
        label_texts: Texts that are true of a label, all of them: its name is used only where no
            texts are given. Good texts name it, its kinds, and what one sees.
        top: See `bridge_embeddings`.
        temperature: See `bridge_embeddings`.

    Attributes:
        name: Shown in reports.
        content_hash: SHA-256 over labels, texts, encoder and settings.
        dimension: E.
        tensor_hashes: Empty: the network that made the logits is unknown.

    Raises:
        InputError: Texts for an unknown label, no text, or the same texts for all labels.

    Example:
        >>> class Letters:
        ...     content_hash, dimension = "letters", 26
        ...     def encode_text(self, texts):
        ...         return np.array([[t.count(chr(97 + i)) for i in range(26)] for t in texts])
        >>> bridge = PrecomputedBridge(["cat", "ship"], Letters(), {"ship": ["ship", "hull"]})
        >>> images = bridge.embeddings([[9.0, 0.0], [0.0, 9.0]])
        >>> (images @ bridge.encode_text(["hull"]).T).ravel() > 0
        array([False,  True])
    """

    def __init__(
        self,
        labels: Sequence[str],
        text: TextEncoder,
        label_texts: Mapping[str, Sequence[str]] | None = None,
        *,
        top: int = TOP,
        temperature: float = TEMPERATURE,
    ) -> None:
        _check_settings(top, temperature)
        texts = _texts(labels, label_texts or {})
        raw = embed_labels(texts, text)
        self._centre = read_only(raw.mean(axis=0))
        self._labels = read_only(raw - self._centre)
        if np.abs(self._labels).max() < 1e-6:
            raise InputError(
                f"label_texts must differ between labels, got the same for all {len(labels)}; "
                "describe each one"
            )
        self._text, self._top, self._temperature = text, top, temperature
        self.name = "labels"
        self.dimension = text.dimension
        self.tensor_hashes: frozenset[str] = frozenset()
        parts = [text.content_hash, list(labels), texts, top, temperature]
        self.content_hash = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def embeddings(self, logits: FloatArray) -> FloatArray:
        """Return (N, E) float32 image embeddings for logits (N, K')."""
        return bridge_embeddings(logits, self._labels, top=self._top, temperature=self._temperature)

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, relative to the mean of the labels as image embeddings are."""
        vectors = _unit(np.asarray(self._text.encode_text(texts), np.float32))
        return np.asarray(vectors - self._centre, np.float32)


class LabelBridge(PrecomputedBridge):
    """A vision-language model (`VlmBackend`) from an image classifier and a sentence encoder.

    Args:
        classifier: Anything that labels images.
        text: The sentence encoder.
        label_texts: See `PrecomputedBridge`, for the classifier's class names.
        top: See `bridge_embeddings`.
        temperature: See `bridge_embeddings`.

    Attributes:
        name: Shown in reports.
        content_hash: SHA-256 over classifier, texts, encoder and settings.
        dimension: E.
        tensor_hashes: The classifier's.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        text: TextEncoder,
        label_texts: Mapping[str, Sequence[str]] | None = None,
        *,
        top: int = TOP,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(
            classifier.class_names, text, label_texts, top=top, temperature=temperature
        )
        self.classifier = classifier
        self.name = f"labels of {classifier.name}"
        self.tensor_hashes = classifier.tensor_hashes
        parts = f"{classifier.content_hash}\n{self.content_hash}"
        self.content_hash = hashlib.sha256(parts.encode()).hexdigest()

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one picture as the classifier's input (thread-safe)."""
        return self.classifier.prepare(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch."""
        return {"embedding": self.embeddings(self.classifier.encode(batch)["logits"])}


def load(path: str | os.PathLike[str]) -> LabelBridge:
    """Load the label bridge that a YAML file describes.

    Args:
        path: A `BridgeFile`.

    Raises:
        InputError: The file or its classifier is missing or wrong.
        MissingDependencyError: The sentence encoder is not installed.

    Example:
        >>> load("")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'bridge:FILE.yaml', got no file
    """
    if not os.fspath(path):
        raise InputError("vlm must be 'bridge:FILE.yaml', got no file")
    file = BridgeFile.read(path)
    label_texts = file.label_texts()
    return LabelBridge(file.load_classifier(), file.load_text(), label_texts, **file.settings)


def _texts(labels: Sequence[str], given: Mapping[str, Sequence[str]]) -> list[list[str]]:
    for name in given:
        if name not in labels:
            raise InputError(
                f"label_texts must describe labels of the classifier, got '{name}'; "
                f"{nearest(name, labels)}"
            )
    return [list(given.get(name, [name])) for name in labels]


def _check_settings(top: int, temperature: float) -> None:
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}; {TOP} is a good start")
    if not (temperature > 0 and np.isfinite(temperature)):
        raise InputError(f"temperature must be a positive number, got {temperature}")


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
