"""Every detector by name: the single ones, second opinions, and what combines them."""

from typing import cast

from faultlens.monitor.detector import DETECTORS, Detector
from faultlens.registry import Registry

ALL = Registry(
    "detector",
    {
        **DETECTORS,
        "refit": "faultlens.monitor.refit:Refit",
        "refit-strengths": "faultlens.monitor.refit:StrengthRefit",
        "fused": "faultlens.monitor.fused:Fused",
        "fused-benign": "faultlens.monitor.fused:FusedBenign",
    },
)


def new(name: str) -> Detector:
    """Return a new detector with its default options, not fitted.

    Raises:
        InputError: Unknown name, with the nearest known ones.

    Example:
        >>> new("refit").name
        'refit'
    """
    return cast(Detector, ALL.load(name)())
