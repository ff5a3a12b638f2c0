"""The VLM `open_clip`: an architecture of the package open_clip with a checkpoint of its own.

How pictures are prepared is read from `open_clip_config.json` beside the checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray, check_array
from faultlens.errors import InputError, MissingDependencyError, nearest
from faultlens.files import read_json, sha256_file
from faultlens.vlm.options import TorchOptions, parse_options
from faultlens.vlm.texts import check_texts, first_line

CONFIG = "open_clip_config.json"
_NEEDED = ("mean", "std")
_KNOWN = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
_TEXTS = 64  # at once
_FORM = "ARCHITECTURE@FILE.safetensors"


class OpenClipBackend:
    """A dual encoder of the package open_clip.

    Args:
        architecture: One of open_clip's names, such as `ViT-B-16`.
        file: Its weights; `open_clip_config.json` must stand beside them.
        options: Device, precision, and whether pickled weights are opened.

    Attributes:
        name: `open_clip:` and the architecture.
        content_hash: SHA-256 over architecture, weights, preprocessing and precision.
        dimension: E, length of both embeddings.
        tensor_hashes: SHA-256 of the float32 bytes of each weight of the image tower with at
            least 64 values.
        model: The model of open_clip, on its device.

    Raises:
        InputError: The architecture is unknown, or a file is missing or wrong.
        MissingDependencyError: The extra `open-clip` is not installed.
    """

    def __init__(self, architecture: str, file: Path, options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        library = _library()
        if architecture not in library.list_models():
            hint = nearest(architecture, library.list_models())
            raise InputError(
                f"architecture must be one of open_clip's, got '{architecture}'; {hint}"
            )
        from faultlens.vlm.pytorch import TorchRunner, weight_hashes  # noqa: PLC0415

        self._run_pictures = TorchRunner(options)
        self._run_texts = TorchRunner(options, _TEXTS)
        _check_file(file, options)
        preprocessing = _preprocessing(file.parent / CONFIG)
        self.model = _model(library, architecture, file)
        self._transform = _transform(library, self.model, preprocessing, file.parent / CONFIG)
        self._tokenizer = _tokenizer(library, architecture)
        named = self.model.named_parameters()
        self.tensor_hashes = weight_hashes(w for key, w in named if key.startswith("visual."))
        self.model.to(device=self._run_pictures.device, dtype=self._run_pictures.dtype)
        self.name = f"open_clip:{architecture}"
        shape = library.get_model_config(architecture)
        parts = [architecture, shape, sha256_file(file), preprocessing, options.dtype]
        self.content_hash = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        blank = self.prepare(Image.new("RGB", (48, 32)))
        self.dimension = int(self.encode(blank[None])["embedding"].shape[1])

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the image tower's input, (3, H, W)."""
        return np.asarray(self._transform(image).numpy(), np.float32)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch.

        Raises:
            ShapeError: The batch does not have four axes, or is not finite.
            InputError: One picture alone does not fit into memory.
        """
        x = check_array(batch, "N C H W", name="batch").astype(np.float32, copy=False)
        return {"embedding": self._run_pictures(self.model.encode_image, {"image": x})}

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text.

        Raises:
            InputError: A text is empty, or longer than the model takes; it is not cut.
        """
        return self._run_texts(self.model.encode_text, {"text": self._tokens(check_texts(texts))})

    def _tokens(self, texts: list[str]) -> Array:
        length = int(self.model.context_length)
        # What a row of four times the length has beyond it is filling, or the text is too long.
        rows: Array = self._tokenizer(texts, context_length=4 * length).numpy()
        for text, beyond in zip(texts, rows[:, length:], strict=True):
            if (beyond != beyond[-1]).any():
                raise InputError(
                    f"text must have at most {length} tokens, got more in '{text}'; shorten it"
                )
        tokens: Array = self._tokenizer(texts, context_length=length).numpy()
        return tokens


def load(argument: str = "") -> OpenClipBackend:
    """Load an architecture of open_clip with a checkpoint.

    Args:
        argument: `ARCHITECTURE@FILE.safetensors`, and perhaps settings: `,device=cuda`,
            `,dtype=float16` (or `bfloat16`), `,allow_pickle=true`.

    Raises:
        InputError: The target is missing or wrong, or a setting is.
        MissingDependencyError: The extra `open-clip` is not installed.

    Example:
        >>> load("ViT-B-16")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'open_clip:ARCHITECTURE@FILE.safetensors', got \
'open_clip:ViT-B-16'
    """
    target, options = parse_options("open_clip", argument, _FORM)
    architecture, at, file = target.partition("@")
    if not (architecture and at and file):
        raise InputError(f"vlm must be 'open_clip:{_FORM}', got 'open_clip:{target}'")
    return OpenClipBackend(architecture, Path(file), options)


def _library() -> Any:
    try:
        import open_clip  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError("open_clip_torch", "open-clip") from error
    return open_clip


def _check_file(file: Path, options: TorchOptions) -> None:
    if not file.is_file():
        raise InputError(f"checkpoint must be an existing file, got '{file}'; check the path")
    if file.suffix != ".safetensors" and not options.allow_pickle:
        raise InputError(
            f"checkpoint must be a .safetensors file, got '{file}', which can run code when "
            "opened; save its state dict with safetensors, or add ',allow_pickle=true' if you "
            "trust where it comes from"
        )


def _preprocessing(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(
            f"folder of open_clip must hold '{CONFIG}', got none in '{file.parent}'; copy it from "
            "where the checkpoint comes from, or state how it was trained: "
            '{"preprocess_cfg": {"mean": […], "std": […], "interpolation": …, "resize_mode": …}}'
        )
    found = read_json(file)
    given = found.get("preprocess_cfg") if isinstance(found, dict) else None
    values: dict[str, Any] = given if isinstance(given, dict) else {}
    for key in _NEEDED:
        if values.get(key) is None:
            raise InputError(
                f"{file} must state '{key}' in 'preprocess_cfg', got none; copy the file that "
                "belongs to the checkpoint: nothing is guessed"
            )
    return {key: values[key] for key in _KNOWN if key in values}


def _model(library: Any, architecture: str, file: Path) -> Any:
    try:
        model = library.create_model(
            architecture, pretrained=str(file.resolve()), require_pretrained=True
        )
    except Exception as error:  # The library's errors for a wrong file share no class.
        raise InputError(
            f"checkpoint must be one of {architecture}, got '{file}' ({first_line(error)}); check "
            "that the architecture is the one that was trained"
        ) from error
    return model.eval()


def _transform(library: Any, model: Any, given: dict[str, Any], file: Path) -> Callable[..., Any]:
    side = model.visual.image_size
    try:
        cfg = library.transform.PreprocessCfg(**({"size": side} | given))
        transform: Callable[..., Any] = library.transform.image_transform_v2(cfg, is_train=False)
        shape = tuple(transform(Image.new("RGB", (48, 32))).shape)
    except Exception as error:  # The library's errors for a wrong value share no class.
        raise InputError(
            f"{file} must describe how pictures are prepared, got: {first_line(error)}; copy it "
            "again"
        ) from error
    wanted = (3, *((side, side) if isinstance(side, int) else side))
    if shape != wanted:
        raise InputError(
            f"{file} must prepare pictures of shape {wanted} for this model, got {shape}; copy "
            "the file that belongs to the checkpoint"
        )
    return transform


def _tokenizer(library: Any, architecture: str) -> Any:
    try:
        return library.get_tokenizer(architecture)
    except Exception as error:  # The hub's and the library's errors share no class.
        raise InputError(
            f"tokenizer of {architecture} must be at hand, got: {first_line(error)}; open_clip "
            "fetches it from the Hugging Face hub: load the model once while it can be reached"
        ) from error
