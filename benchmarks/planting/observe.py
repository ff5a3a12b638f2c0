"""What the debugger is given of each subject, kept in the cache: embeddings, logits, truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from faultlens.analysis import N_FOLDS, Measurements
from faultlens.concepts import Vocabulary
from faultlens.data.world.names import ATTRIBUTES, BACKGROUNDS, LIGHTS
from faultlens.data.world.scene import Scene
from faultlens.files import load_arrays, save_arrays
from faultlens.models.head import Head
from planting import nets, subjects
from planting.instances import LIGHT_WORDS, STAGES, Instance


@dataclass(frozen=True, eq=False)
class Observed:
    """One subject as arrays.

    Attributes:
        embedding: (N, D).
        logits: (N, K).
        labels: (N,).
        vlm: (N, E) VLM embeddings.
        truth: (N, C) what each picture shows, in the vocabulary's order; NaN where the pictures'
            maker does not know.
        stages: Pooled activations of every stage, by name.
        weight: (K, D) of the head.
        bias: (K,).
        healthy: (N,) predictions of the healthy twin on the same pictures, unharmed.
    """

    embedding: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    vlm: np.ndarray
    truth: np.ndarray
    stages: Mapping[str, np.ndarray]
    weight: np.ndarray
    bias: np.ndarray
    healthy: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        return self.logits.argmax(axis=1)

    @property
    def head(self) -> Head:
        return Head((self.weight,), (self.bias,))

    def measurements(self, rows: np.ndarray | None = None) -> Measurements:
        """As the analysis takes them; rows may repeat, and copies share a fold."""
        rows = np.arange(len(self.labels)) if rows is None else rows
        return Measurements(
            self.embedding[rows], self.logits[rows], self.labels[rows], self.vlm[rows],
            rows % N_FOLDS, np.zeros(len(rows), bool),
        )  # fmt: skip


@cache
def _code() -> str:
    own = (Path(__file__), Path(subjects.__file__))
    return hashlib.sha256(b"".join(p.read_bytes() for p in own)).hexdigest()


def shown(scenes: tuple[Scene, ...], attributes: np.ndarray, words: Vocabulary) -> np.ndarray:
    """What pictures show, (N, C); NaN for words whose truth is not known."""
    out = np.full((len(scenes), len(words.concepts)), np.nan)
    lights = {LIGHT_WORDS[x]: x for x in LIGHTS if x in LIGHT_WORDS}
    for c, name in enumerate(words.concepts):
        if name in ATTRIBUTES:
            out[:, c] = attributes[:, ATTRIBUTES.index(name)]
        elif name in BACKGROUNDS:
            out[:, c] = [s.background == name for s in scenes]
        elif name in lights:
            out[:, c] = [s.light == lights[name] for s in scenes]
        elif name == "watermark":
            out[:, c] = [s.watermark for s in scenes]
        elif name in ("pole", "leaves"):
            out[:, c] = [s.occluder == name for s in scenes]
        else:
            out[:, c] = [s.color == name for s in scenes]
    return out


def observe(instance: Instance, n: int = subjects.N_IMAGES) -> Observed:
    """Run a subject over its pictures, or read what was kept."""
    name = nets.key("observed", _code(), instance.name, instance.fault, n)
    path = nets.WORK / "observed" / f"{name}.safetensors"
    if not path.exists():
        save_arrays(path, _run(instance, n))
    a, _ = load_arrays(path)
    stages = {s: a[f"stage:{s}"] for s in STAGES}
    rest = {k: v for k, v in a.items() if not k.startswith("stage:")}
    return Observed(**rest, stages=stages)


def _run(instance: Instance, n: int) -> dict[str, np.ndarray]:
    subject = subjects.make(instance, n=n)
    drawings = subject.drawings
    words = subjects.vocabulary()
    twin = subjects.make(instance, healthy=True, n=n)
    return subject.run(subject.pixels) | {
        "labels": drawings.labels,
        "vlm": subject.vlm,
        "truth": shown(drawings.scenes, drawings.attributes, words),
        "weight": subject.model.head.weight,
        "bias": subject.model.head.bias,
        "healthy": twin.predict(twin.pixels),
    }
