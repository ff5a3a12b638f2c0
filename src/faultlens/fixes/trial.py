"""Trials: what a new head gains and breaks on images that it was not fitted on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths
from faultlens.models.head import Head
from faultlens.stats import mcnemar_exact, paired_gain


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A reference set, with what the session fitted on it.

    Attributes:
        reference: Rows to fit on.
        held: Rows to measure on, none of them in `reference`.
        map_weight: (E, D) of the affine map.
        weight: (K, D) of the refitted head.
        bias: (K,) of the refitted head; -inf for a class without reference images.
    """

    reference: NDArray[np.int64]
    held: NDArray[np.int64]
    map_weight: Float[np.ndarray, "E D"]
    weight: Float[np.ndarray, "K D"]
    bias: Float[np.ndarray, "K"]

    def __post_init__(self) -> None:
        # A fix that was fitted on what it is measured on would measure nothing.
        if len(np.intersect1d(self.reference, self.held)):
            raise ValueError("reference and held must not share an image")


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All that fixes are made of: N images, of which the first n are analysed.

    Attributes:
        embeddings: (N, D).
        labels: (N,).
        predictions: (N,) of the shipped head.
        strengths: (N, C) of the vision-language model.
        directions: (C, E) of the concepts.
        head: The shipped one.
        parts: Together they hold each analysed image out once.
        full: All reference images; nothing is held out.
        penalty: Of the session's refit.
        classes: K names.
        concepts: C names.
        images: n rows of `images.json`.
    """

    embeddings: Float[np.ndarray, "N D"]
    labels: IntArray
    predictions: IntArray
    strengths: Strengths
    directions: FloatArray
    head: Head
    parts: tuple[Part, ...]
    full: Part
    penalty: float
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    images: tuple[Mapping[str, object], ...] = field(default=())


#: From a reference set to a head.
Recipe = Callable[[Material, Part], Head]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fix does in a group of images.

    Attributes:
        repaired: Errors that become right.
        broken: Right images that become errors.
        n: Images of the group.
        gain: `(repaired - broken) / n`.
        interval: 95 % interval of the gain.
        p_value: Exact McNemar test that it repairs more than it breaks.
    """

    repaired: int
    broken: int
    n: int
    gain: float
    interval: tuple[float, float]
    p_value: float


def held_out(material: Material, recipe: Recipe) -> IntArray:
    """Return (N,) predictions, each by a head that never saw the image; -1 where none is held."""
    out = np.full(len(material.labels), -1, np.int64)
    for part in material.parts:
        head = recipe(material, part)
        out[part.held] = head(material.embeddings[part.held]).argmax(axis=1)
    return out


def effect(material: Material, predictions: IntArray, group: BoolArray | None = None) -> Effect:
    """Compare held-out predictions with those of the shipped head.

    Args:
        material: The images.
        predictions: (N,) from `held_out`.
        group: (N,) which images to compare; all that were held out if None.
    """
    compared = predictions >= 0
    if group is not None:
        compared = compared & group
    better, present = predictions == material.labels, material.predictions == material.labels
    repaired = int((compared & better & ~present).sum())
    broken = int((compared & present & ~better).sum())
    n = int(compared.sum())
    gain, low, high = paired_gain(repaired, broken, n)
    return Effect(repaired, broken, n, gain, (low, high), mcnemar_exact(repaired, broken))
