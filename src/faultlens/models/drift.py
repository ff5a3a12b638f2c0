"""What a network's normalisation layers remember of training, beside what they are fed now."""

from collections.abc import Sequence
from dataclasses import dataclass


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
