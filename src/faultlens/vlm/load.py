"""From what a user writes, such as `offline` or `bridge:FILE.yaml`, to a vision-language model."""

from collections.abc import Sequence
from typing import cast

from faultlens.errors import InputError
from faultlens.registry import VLMS
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.bridge_file import BridgeFile
from faultlens.vlm.labels import PrecomputedBridge
from faultlens.vlm.sentences import CachedTextEncoder, SentenceEncoder


def load_vlm(spec: str) -> VlmBackend:
    """Load a vision-language model.

    Args:
        spec: `demo` (pictures of ConceptWorld only), `offline`, `bridge:FILE.yaml`,
            `clip:FOLDER|ID`, `onnx-clip:FOLDER`, `open_clip:ARCHITECTURE@FILE`, or
            `NAME:ARGUMENT` of a registered backend. Those that run in PyTorch take settings
            after the target, such as `,device=cuda`; see `faultlens.vlm.options.TorchOptions`.

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


def load_precomputed(spec: str, labels: Sequence[str]) -> PrecomputedBridge:
    """Load the text side of a label bridge whose logits are stored already.

    Args:
        spec: `offline` (the sentence encoder, with the labels' names alone) or `bridge:FILE.yaml`
            (texts of the labels; its classifier is not used).
        labels: K' names, in the order of the logits.

    Raises:
        InputError: Another kind of VLM: it has no use for stored logits.
        MissingDependencyError: The sentence encoder is not installed.

    Example:
        >>> load_precomputed("clip:folder", ["cat", "dog"])
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'offline' or 'bridge:FILE.yaml' for stored \
vlm_logits, got 'clip:folder'; store vlm_embedding instead
    """
    name, _, argument = spec.partition(":")
    if name == "offline" and not argument:
        return PrecomputedBridge(labels, CachedTextEncoder(SentenceEncoder()))
    if name != "bridge" or not argument:
        raise InputError(
            f"vlm must be 'offline' or 'bridge:FILE.yaml' for stored vlm_logits, got '{spec}'; "
            "store vlm_embedding instead"
        )
    file = BridgeFile.read(argument)
    return PrecomputedBridge(labels, file.load_text(), file.label_texts(), **file.settings)
