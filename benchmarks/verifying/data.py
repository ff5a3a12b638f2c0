"""Instances: a seeded synthetic head over concepts, and the real one with 64 dimensions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faultlens.files import load_arrays
from faultlens.spec.region import Readout, Region
from faultlens.spec.regions import axis_box

CIFAR = Path(__file__).resolve().parents[3] / "shared" / "cifar10"


@dataclass
class Instance:
    name: str
    embeddings: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,)
    readout: Readout

    def own(self, cls: int) -> np.ndarray:
        """Correctly classified embeddings of a class."""
        head, bias = self.readout.head_weights[0], self.readout.head_biases[0]
        predicted = (self.embeddings @ head.T + bias).argmax(axis=1)
        return self.embeddings[(self.labels == cls) & (predicted == cls)]

    def boxes(self, gamma: float) -> list[Region]:
        """Mean ± gamma deviations of each class, above zero."""
        return [box_of(self.own(cls), gamma) for cls in range(len(self.readout.head_biases[0]))]


def box_of(z: np.ndarray, gamma: float) -> Region:
    mean, std = z.astype(float).mean(axis=0), z.astype(float).std(axis=0)
    return axis_box(np.maximum(mean - gamma * std, 0.0), mean + gamma * std)


def _ridge(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + strength * np.eye(x.shape[1])
    w = np.linalg.solve(gram, centred.T @ (y - y.mean(axis=0))).T
    return w, y.mean(axis=0) - w @ x.mean(axis=0)


def _readout(z: np.ndarray, rows: np.ndarray, head: np.ndarray, bias: np.ndarray) -> Readout:
    offsets = -rows @ z.mean(axis=0)
    f = np.float32
    return Readout(rows.astype(f), offsets.astype(f), (head.astype(f),), (bias.astype(f),))


def synthetic(n_concepts: int = 100, n_dims: int = 512, n: int = 3000, seed: int = 0) -> Instance:
    """Ten classes after a ReLU, 32 shared directions of variation, a ridge head.

    Concepts are mixtures of class prototypes and noise, read through an affine map, as a
    vision-language model's directions are.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(10), n // 10)
    prototypes = np.abs(rng.normal(size=(10, n_dims)))
    shared = rng.normal(size=(32, n_dims)) * 0.35
    z = prototypes[labels] + rng.normal(size=(len(labels), 32)) @ shared
    z = np.maximum(z + 0.3 * rng.normal(size=z.shape), 0.0)
    head, bias = _ridge(z, np.eye(10)[labels], 50.0)
    apart = prototypes - prototypes.mean(axis=0)
    mixtures = rng.dirichlet(np.full(10, 0.3), size=n_concepts) @ apart
    rows = (0.3 * mixtures + rng.normal(size=mixtures.shape)) / np.sqrt(n_dims)
    return Instance(
        f"synthetic {n_dims}", z.astype(np.float32), labels, _readout(z, rows, head, bias)
    )


def real(n_concepts: int = 100) -> Instance | None:
    """The ResNet-20 of the shared folder: its embedding, its own head.

    Strengths are an affine ridge from the embedding to another network's logits, whose mixtures
    stand in for text directions.
    """
    if not (CIFAR / "features.safetensors").exists():
        return None
    features, _ = load_arrays(CIFAR / "features.safetensors")
    head, _ = load_arrays(CIFAR / "head.safetensors")
    z, labels = features["embedding"].astype(float), features["label"].astype(int)
    image = features["vlm_logits"].astype(float)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    text = rng.normal(size=(n_concepts, 10))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    w, _ = _ridge(z, image, 1.0)
    readout = _readout(z, text @ w, head["weight"], head["bias"])
    return Instance("real 64", z.astype(np.float32), labels, readout)
