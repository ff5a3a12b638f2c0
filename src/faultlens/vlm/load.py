"""From what a user writes, such as `offline` or `bridge:FILE.yaml`, to a vision-language model."""

from typing import cast

from faultlens.registry import VLMS
from faultlens.vlm.backend import VlmBackend


def load_vlm(spec: str) -> VlmBackend:
    """Load a vision-language model.

    Args:
        spec: `offline`, or `bridge:FILE.yaml`, or `NAME:ARGUMENT` of a registered backend.

    Raises:
        InputError: The name is unknown, or what follows the colon is missing or wrong.
        MissingDependencyError: The backend needs an extra that is not installed.

    Example:
        >>> load_vlm("offlne")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be a known name, got 'offlne'; did you mean 'offline'?
    """
    name, _, argument = spec.partition(":")
    return cast(VlmBackend, VLMS.load(name)(argument))
