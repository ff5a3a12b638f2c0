"""Reliance: how much a concept alone moves the logit of a class, long before it costs errors.

A network that leans on a cue raises the logit of its class wherever the cue is, in images of other
classes and of the class itself. Both are measured among images of one label at a time, so that
classes which show a concept more often do not count.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats as sps

from faultlens.arrays import FloatArray, IntArray
from faultlens.heatmaps import MIN_IMAGES

#: The smaller of the two effects, in standard deviations of all logits, and its z-value. Sound
#: networks stay below 0.35 outside of the properties of a class; cues show 0.4 to 3.
MIN_EFFECT = 0.35
MIN_Z = 4.0
#: A concept that the class shows so often, and so much more often than others, is its property.
_PROPERTY_RATE, _PROPERTY_RATIO = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Reliance:
    """A class's logit with a concept against without it.

    Attributes:
        concept: Index.
        k: Class index.
        attracted: Effect on images of other classes, in standard deviations of the logits.
        own: Effect on images of the class.
        z: The smaller of the two effects in standard errors.
    """

    concept: int
    k: int
    attracted: float
    own: float
    z: float

    @property
    def effect(self) -> float:
        """The smaller of the two effects."""
        return min(self.attracted, self.own)


def reliances(
    presence: Bool[np.ndarray, "N C"],
    labels: IntArray,
    logits: FloatArray,
    relevant: Bool[np.ndarray, "K C"],
) -> list[Reliance]:
    """Find concepts that a class's logit leans on although they are no property of the class.

    Args:
        presence: Where each concept is, as the vision-language model sees it.
        labels: (N,).
        logits: (N, K).
        relevant: Concepts that a class should have: its properties, left out for that class. So
            is what most of its images show, and at least twice as often as other images. Where
            most images that are wrongly called k come from one class whose property a concept
            is, the two classes are exchanged, and the concept only goes with that.

    Returns:
        Largest effect first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, water = rng.integers(0, 3, 600), rng.random((600, 1)) < 0.3
        >>> logits = 4.0 * np.eye(3)[y] + 3.0 * water * np.eye(3)[2]
        >>> logits += rng.normal(0, 0.5, (600, 3))
        >>> [(r.concept, r.k) for r in reliances(water, y, logits, np.zeros((3, 1), bool))]
        [(0, 2)]

    References:
        Strata are pooled by Mantel and Haenszel's weights.
    """
    centred = logits - logits.mean(axis=1, keepdims=True)
    scale = float(centred.std())
    is_property = relevant | _usual(presence, labels, logits.shape[1])
    predictions = logits.argmax(axis=1)
    found = []
    for k in range(logits.shape[1]):
        is_k = labels == k
        if scale <= 0 or min(is_k.sum(), (~is_k).sum()) < 2 * MIN_IMAGES:
            continue
        value = centred[:, k] / scale
        attracted = _effects(presence[~is_k], labels[~is_k], value[~is_k])
        own = _effects(presence[is_k], labels[is_k], value[is_k])
        effect = np.minimum(attracted.value, own.value)
        z = np.minimum(attracted.value / attracted.se, own.value / own.se)
        called = np.bincount(labels[~is_k & (predictions == k)], minlength=logits.shape[1])
        exchanged = is_property[called.argmax()] & (called.max() >= 0.5 * max(called.sum(), 1))
        is_cue = (effect >= MIN_EFFECT) & (z >= _least_z(presence, logits))
        for c in np.flatnonzero(is_cue & ~is_property[k] & ~exchanged):
            pair = float(attracted.value[c]), float(own.value[c])
            found.append(Reliance(int(c), k, *pair, float(z[c])))
    return sorted(found, key=lambda r: -r.effect)


def _usual(
    presence: Bool[np.ndarray, "N C"], labels: IntArray, n_classes: int
) -> Bool[np.ndarray, "K C"]:
    """What most images of a class show, and at least twice as often as other images."""
    out = np.zeros((n_classes, presence.shape[1]), bool)
    for k in np.unique(labels):
        is_k = labels == k
        rate, others = presence[is_k].mean(axis=0), presence[~is_k].mean(axis=0)
        out[k] = (rate >= _PROPERTY_RATE) & (rate >= _PROPERTY_RATIO * others)
    return out


def _least_z(presence: Bool[np.ndarray, "N C"], logits: FloatArray) -> float:
    """At least 4, and more where a great many pairs are tested (Bonferroni at 5 %)."""
    n_tests = presence.shape[1] * logits.shape[1]
    return max(MIN_Z, float(sps.norm.isf(0.05 / n_tests)))


@dataclass(frozen=True, slots=True, eq=False)
class _Effects:
    value: Float[np.ndarray, " C"]
    se: Float[np.ndarray, " C"]


def _effects(presence: Bool[np.ndarray, "N C"], labels: IntArray, value: FloatArray) -> _Effects:
    """Mean value with each concept minus without it, within labels."""
    total = np.zeros(presence.shape[1])
    weights, variance = total.copy(), total.copy()
    for k in np.unique(labels):
        there, x = presence[labels == k].astype(float), value[labels == k]
        n1 = there.sum(axis=0)
        n0 = len(x) - n1
        weight = n1 * n0 / len(x)
        mean1 = x @ there / np.maximum(n1, 1)
        mean0 = x @ (1 - there) / np.maximum(n0, 1)
        total += weight * (mean1 - mean0)
        weights += weight
        variance += weight * float(x.var())
    safe = np.maximum(weights, 1e-12)
    # Too few images on one side say nothing, however large their difference.
    se = np.where(weights >= MIN_IMAGES / 2, np.sqrt(variance) / safe, np.inf)
    return _Effects(total / safe, np.maximum(se, 1e-12))
