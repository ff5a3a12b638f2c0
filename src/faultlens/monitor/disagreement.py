"""What the vision-language model thinks of the predicted class.

References:
    Zero-shot classification: Radford et al., Learning Transferable Visual Models From Natural
    Language Supervision, ICML 2021, arXiv:2103.00020.
    Deviation: it is asked for a second opinion, not for the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.monitor.detector import CheckedDetector
from faultlens.monitor.features import VLM, Features
from faultlens.monitor.margin import behind


@dataclass(eq=False)
class Disagreement(CheckedDetector):
    """By how much the predicted class is behind the best other one in the VLM's own scores.

    Reads `vlm`, (N, K) scores of the classes. Each class is centred on the fitting images, since
    a VLM likes some words better than others.

    Example:
        >>> logits = np.array([[2.0, 0.0], [0.0, 2.0]])
        >>> features = Features(logits, logits, layers={"vlm": [[0.2, 0.3], [0.1, 0.4]]})
        >>> Disagreement().fit(features, np.array([0, 1])).score(features).round(2).tolist()
        [-0.1, -0.1]
    """

    family: ClassVar[str] = "vlm-disagreement"

    def _read(self, features: Features) -> tuple[str, ...]:
        return ("logits", *features.named(VLM))

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        return {"centre": features.space(VLM).mean(axis=0, dtype=np.float64)}

    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        return behind(features.space(VLM) - fitted["centre"], features.predictions)
