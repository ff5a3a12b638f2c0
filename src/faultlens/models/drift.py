"""What a network's normalisation layers remember of training, beside what they are fed now."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, slots=True)
class NormDrift:
    """One batch-normalisation layer.

    Attributes:
        layer: Its name in the network, in the order of computation.
        shift: By how many of the remembered standard deviations the mean of its input moved, root
            mean square over channels.
        stretch: By what factor the spread of its input changed, mean of |ln| over channels.
        n: Images.
    """

    layer: str
    shift: float
    stretch: float
    n: int

    @property
    def size(self) -> float:
        """The larger of the two."""
        return max(self.shift, self.stretch)


#: A channel is off if it reaches the next layer at less than half or more than twice its size.
OFF = 2.0
#: At most this share of the channels can be off and still be told from the others.
MAX_OFF = 0.75
#: Scaled channels explain a drift if they leave no more of it open than this; a stage with other
#: weights or lost statistics leaves 0.4 and more, scaled or silenced channels 0.01 to 0.1.
MAX_UNEXPLAINED = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class ChannelScales:
    """At what size the channels of one tensor arrive, as the layers that read it remember them.

    Attributes:
        source: Module whose output it is.
        reader: Normalisation layer that is fed from it.
        factors: (L,) size of each channel as a multiple of that in training; 0 for silent ones.
        unexplained: Share of the drift of its readers that such factors do not explain, corrected
            for their number.
        pooled: (n, L) mean of each channel over an image; of silent channels where they were last
            alive; NaN for images that were not asked about.
    """

    source: str
    reader: str
    factors: Float[np.ndarray, " L"]
    unexplained: float
    pooled: Float[np.ndarray, "n L"]

    @property
    def is_off(self) -> Bool[np.ndarray, " L"]:
        """Channels that arrive at another size; none where that does not explain the drift."""
        off = np.asarray((self.factors >= OFF) | (self.factors <= 1 / OFF))
        # Where nearly all are off it is the memory that is wrong: lost statistics look like that.
        is_told = self.unexplained <= MAX_UNEXPLAINED and off.mean() <= MAX_OFF
        return off if is_told else np.zeros_like(off)


#: Layers of sound networks on images like those of training stay below 0.1, on recompressed ones
#: below 0.22 (a ResNet-20 on CIFAR-10 JPEG); with a stage re-initialised, statistics lost or
#: channels scaled, the first layer after it shows 0.3 and more.
MIN_DRIFT = 0.25


def first_break(drifts: Sequence[NormDrift]) -> int | None:
    """Return the first layer that is fed what it does not know; None if all know their input.

    A fault shows in the layer after it and in all later ones: only the first one is where it is.

    Example:
        >>> layers = [NormDrift("a", 0.01, 0.02, 400), NormDrift("b", 0.4, 0.3, 400)]
        >>> first_break(layers), first_break(layers[:1])
        (1, None)
    """
    return next((i for i, d in enumerate(drifts) if d.size >= MIN_DRIFT), None)
