"""The VLM `clip`: CLIP, SigLIP, SigLIP 2 and other dual encoders of Hugging Face transformers.

Preprocessing, tokenizer and weights all come from the checkpoint; nothing is filled in.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from faultlens.arrays import FloatArray, check_array
from faultlens.errors import InputError, MissingDependencyError
from faultlens.quiet import quiet
from faultlens.vlm.clip_folder import ClipFolder
from faultlens.vlm.clip_inputs import ClipPictures, ClipTexts
from faultlens.vlm.options import TorchOptions, parse_options
from faultlens.vlm.texts import first_line

_TOWERS = ("get_image_features", "get_text_features")
_TEXTS = 64  # at once


class ClipBackend:
    """A dual encoder of transformers, from a folder or from the Hugging Face hub.

    Args:
        target: A folder that `save_pretrained` wrote (model and processor), or an id on the hub.
        options: Device, precision, and whether pickled weights are opened.

    Attributes:
        name: `clip:` and the target.
        content_hash: SHA-256 over every file used, and the precision.
        dimension: E, length of both embeddings.
        tensor_hashes: SHA-256 of the float32 bytes of each weight of the image tower with at
            least 64 values.
        logit_scale: By what the checkpoint multiplies a cosine to get a logit.
        logit_bias: What it adds then; 0 but for SigLIP.
        model: The model of transformers, on its device.
        pictures: From a picture to the image tower's input.
        texts: From texts to the text tower's input.

    Raises:
        InputError: A file is missing or wrong, or it is no dual encoder; the message names it.
        MissingDependencyError: The extra `clip` is not installed.
    """

    def __init__(self, target: str, options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        torch, transformers = _libraries()
        from faultlens.vlm.pytorch import TorchRunner, weight_hashes  # noqa: PLC0415

        self._run_pictures = TorchRunner(options)
        self._run_texts = TorchRunner(options, _TEXTS)
        folder = ClipFolder.open(target, allow_pickle=options.allow_pickle)
        with quiet(transformers.logging):
            self.model = _model(transformers, torch, folder)
            self.pictures = ClipPictures.load(transformers, folder, self.model.config)
            self.texts = ClipTexts.load(transformers, folder, self.model.config)
        self.logit_scale = _scalar(self.model, "logit_scale", torch.exp, 1.0)
        self.logit_bias = _scalar(self.model, "logit_bias", torch.clone, 0.0)
        named = self.model.named_parameters()
        self.tensor_hashes = weight_hashes(w for k, w in named if not k.startswith(("text", "log")))
        self.model.to(device=self._run_pictures.device, dtype=self._run_pictures.dtype)
        self.name = f"clip:{target}"
        parts = f"{folder.content_hash}\n{options.dtype}"
        self.content_hash = hashlib.sha256(parts.encode()).hexdigest()
        self.dimension = self._check(folder)

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the image tower's input, as the checkpoint prepares it."""
        return self.pictures(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch.

        A batch that does not fit into the device's memory is halved until it does.

        Raises:
            ShapeError: The batch has another number of axes, or is not finite.
            InputError: One picture alone does not fit into memory.
        """
        inputs = self.pictures.inputs(check_array(batch, self.pictures.axes, name="batch"))
        return {"embedding": self._run_pictures(self._tower(_TOWERS[0]), inputs)}

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text.

        Raises:
            InputError: A text is empty, or longer than the model takes; it is not cut.
        """
        return self._run_texts(self._tower(_TOWERS[1]), self.texts(texts))

    def _tower(self, name: str) -> Any:
        def run(**inputs: Any) -> Any:
            found = getattr(self.model, name)(**inputs)
            return getattr(found, "pooler_output", found)

        return run

    def _check(self, folder: ClipFolder) -> int:
        """Run both towers once and return E."""
        blank = self.prepare(Image.new("RGB", (48, 32)))
        try:
            picture, text = self.encode(blank[None])["embedding"], self.encode_text(["a photo"])
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{folder.path} must hold a model with the preprocessing and the tokenizer it was "
                f"trained with, got: {first_line(error)}; copy the whole checkpoint again"
            ) from error
        if picture.shape != text.shape or picture.ndim != 2:
            raise InputError(
                f"clip must be a dual encoder with embeddings of one length, got {picture.shape} "
                f"for a picture and {text.shape} for a text"
            )
        return int(picture.shape[1])


def load(argument: str = "") -> ClipBackend:
    """Load a dual encoder of Hugging Face transformers.

    Args:
        argument: A folder or an id on the hub, and perhaps settings: `FOLDER,device=cuda`,
            `,dtype=float16` (or `bfloat16`), `,allow_pickle=true`.

    Raises:
        InputError: The target is missing or wrong, or a setting is.
        MissingDependencyError: The extra `clip` is not installed.

    Example:
        >>> load("")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'clip:FOLDER or clip:ID', got 'clip:'
    """
    target, options = parse_options("clip", argument, "FOLDER or clip:ID")
    return ClipBackend(target, options)


def _libraries() -> tuple[Any, Any]:
    try:
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(error.name or "transformers", "clip") from error
    return torch, transformers


def _model(transformers: Any, torch: Any, folder: ClipFolder) -> Any:
    """Return the model in float32, with no weight left to chance."""
    try:
        model, info = transformers.AutoModel.from_pretrained(
            folder.path,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=folder.weights[0].suffix == ".safetensors",
            output_loading_info=True,
        )
    except Exception as error:  # The library's errors for a wrong file share no class.
        raise InputError(
            f"{folder.path} must hold a checkpoint that transformers {transformers.__version__} "
            f"can load, got: {first_line(error)}"
        ) from error
    if not all(hasattr(model, name) for name in _TOWERS):
        raise InputError(
            f"clip must be a dual encoder for images and texts, got {type(model).__name__} in "
            f"'{folder.path}'; a classifier goes to --model"
        )
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"{folder.weights[0].name} must hold every weight of the model, got {len(missing)} "
            f"missing ({', '.join(missing[:3])}); copy the whole checkpoint again"
        )
    return model.eval()


def _scalar(model: Any, name: str, function: Any, default: float) -> float:
    value = getattr(model, name, None)
    return default if value is None else float(function(value.detach().float()))
