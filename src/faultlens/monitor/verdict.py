"""What a monitor says of predictions, and the map that gives it words."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from faultlens.arrays import FloatArray
from faultlens.errors import ShapeError
from faultlens.monitor.reasons import Reason


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the monitor says of N predictions.

    Attributes:
        accept: (N,) whether to trust the prediction.
        score: (N,) of the detector, higher = more abnormal.
        p_value: (N,) share of correct calibration images at least as abnormal; a prediction is
            rejected where it is at most the false-alarm rate.
        reasons: N tuples of concept pairs that contradict the predicted class, strongest first;
            empty for what is accepted.
    """

    accept: Bool[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]
    p_value: Float[np.ndarray, "N"]
    reasons: tuple[tuple[Reason, ...], ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one JSON object an image."""
        return [
            {
                "accept": bool(self.accept[i]),
                "score": float(self.score[i]),
                "p_value": float(self.p_value[i]),
                "reasons": [asdict(r) for r in reasons],
            }
            for i, reasons in enumerate(self.reasons)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class ConceptMap:
    """Concept strengths as an affine function of the classifier's embedding.

    Attributes:
        weight: (C, D).
        offset: (C,).
        concepts: C names.
    """

    weight: Float[np.ndarray, "C D"]
    offset: Float[np.ndarray, "C"]
    concepts: tuple[str, ...]

    def __call__(self, embeddings: FloatArray) -> FloatArray:
        """Return (N, C) strengths; ShapeError for embeddings of another width."""
        if embeddings.shape[1] != self.weight.shape[1]:
            raise ShapeError(
                f"embeddings must be {self.weight.shape[1]} wide, got {embeddings.shape[1]}; "
                "use the network that the monitor was fitted for"
            )
        return np.asarray(embeddings @ self.weight.T + self.offset)
