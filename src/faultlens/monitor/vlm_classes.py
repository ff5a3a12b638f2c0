"""The classes as a vision-language model knows them, kept with a monitor that asks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from faultlens.arrays import Array, FloatArray
from faultlens.concepts import strengths


@dataclass(frozen=True, slots=True, eq=False)
class VlmClasses:
    """Directions of the classes in the space of a vision-language model.

    Attributes:
        spec: What loads the model, such as `clip:FOLDER`.
        content_hash: Of the model: another one has another space.
        directions: (K, E) of unit length.

    Example:
        >>> classes = VlmClasses("demo", "0" * 64, np.eye(2))
        >>> classes.scores(np.array([[3.0, 4.0]])).round(2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    spec: str
    content_hash: str
    directions: Float[np.ndarray, "K E"]

    def scores(self, embeddings: FloatArray) -> FloatArray:
        """Return (N, K) cosines of (N, E) embeddings of images with the classes."""
        return np.asarray(strengths(embeddings, self.directions))

    @property
    def facts(self) -> dict[str, str]:
        """What is stored beside the directions."""
        return {"spec": self.spec, "content_hash": self.content_hash}

    @classmethod
    def restore(cls, state: Mapping[str, Array], facts: Mapping[str, Any]) -> "VlmClasses":
        """Read what was stored: `directions`, and the facts."""
        return cls(str(facts["spec"]), str(facts["content_hash"]), state["directions"])
