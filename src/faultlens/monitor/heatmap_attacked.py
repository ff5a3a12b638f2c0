"""Is an image's heatmap nearer to that of attacked images than to that of correct ones?

References:
    Hu et al., Debugging and Runtime Analysis of Neural Networks with VLMs (A Case Study), CAIN
    2025, arXiv:2503.17416 (`H_out,adv`). Deviations: those of `faultlens.monitor.heatmap`.
"""

from dataclasses import dataclass
from typing import ClassVar

from faultlens.arrays import Array, IntArray
from faultlens.errors import InputError, InsufficientDataError
from faultlens.monitor.features import ATTACKED, Features
from faultlens.monitor.heatmap import CosineHeatmap


@dataclass(eq=False)
class AttackedHeatmap(CosineHeatmap):
    """Cosine over centred cells to the heatmap of attacked images, less that to the right one.

    Fitted on features with a layer `attacked`, (N, 1): 1 for images that an attack turned
    into the class they are predicted as, 0 for benign ones. Wrong predictions of benign images are
    left out. Scores need no such layer; in [-2, 2].

    Example:
        >>> import numpy as np
        >>> s = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]])
        >>> attacked = np.array([[0.0], [0.0], [1.0]])
        >>> features = Features(s, np.array([[1.0, 0.0]] * 3), s, {"attacked": attacked})
        >>> AttackedHeatmap().fit(features, np.array([0, 0, 1])).score(features).tolist()
        [-2.0, -2.0, 2.0]
    """

    family: ClassVar[str] = "heatmap-attacked"

    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        if ATTACKED not in features.layers:
            raise InputError(
                "layers must hold 'attacked', 1 for attacked images and 0 for benign ones, to fit "
                "this detector, got none; attack some, see faultlens.models.attacks"
            )
        attacked = features.space(ATTACKED)[:, 0] > 0
        right = ~attacked & (features.predictions == labels)
        if not attacked.any() or not right.any():
            raise InsufficientDataError(
                f"features must hold attacked images and right predictions of benign ones, got "
                f"{int(attacked.sum())} and {int(right.sum())}; attack some, see "
                "faultlens.models.attacks"
            )
        # The wrong heatmap's place is taken: whatever their labels, attacked images count as wrong.
        n_classes = features.logits.shape[1]
        told = (features.predictions + attacked) % n_classes
        kept = attacked | right
        return super()._learn(features.select(kept), told[kept])
