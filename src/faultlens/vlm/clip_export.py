"""Write a dual encoder of transformers as a folder that needs no PyTorch (`onnx-clip`)."""

import io
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from faultlens.arrays import FloatArray
from faultlens.errors import InputError, MissingDependencyError
from faultlens.files import sha256_file, write_atomic, write_json
from faultlens.vlm.clip import ClipBackend
from faultlens.vlm.onnx_clip import OnnxClipBackend
from faultlens.vlm.onnx_clip_folder import (
    EMBEDDING,
    IMAGE,
    MANIFEST,
    MASK,
    PIXELS,
    TEXT,
    TOKENIZER,
    TOKENS,
    CheckpointPreprocessing,
    Manifest,
    TextPlan,
)
from faultlens.vlm.options import parse_options
from faultlens.vlm.texts import first_line

try:
    import torch
except ImportError as error:
    raise MissingDependencyError("torch", "clip") from error

#: Largest difference between unit embeddings, and between prepared pictures.
TOLERANCE = 1e-4
_OPSET = 17
_MOST_BYTES = 2**31 - 2**20  # An ONNX file cannot hold more.
_FILTERS: dict[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}
_TRIAL = ("a photo", "A photo of a dog, with long ears!", "something with wheels", "snow; 7 birds")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        dimension: E, length of both embeddings.
        n_bytes: Size of all files.
        difference: Largest difference between unit embeddings of the folder and the original.
    """

    folder: Path
    dimension: int
    n_bytes: int
    difference: float


def export(spec: str, folder: str | os.PathLike[str]) -> Exported:
    """Load `clip:FOLDER` or `clip:ID` and write it as ONNX files; see `export_clip`.

    Raises:
        InputError: Another kind of VLM, or what `export_clip` refuses.

    Example:
        >>> export("offline", "out")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'clip:FOLDER' or 'clip:ID' to be exported, got \
'offline'
    """
    kind, _, argument = spec.partition(":")
    if kind != "clip":
        raise InputError(f"vlm must be 'clip:FOLDER' or 'clip:ID' to be exported, got '{spec}'")
    target, options = parse_options("clip", argument, "FOLDER or clip:ID")
    return export_clip(ClipBackend(target, options.model_copy(update={"device": "cpu"})), folder)


def export_clip(vlm: ClipBackend, folder: str | os.PathLike[str]) -> Exported:
    """Write a dual encoder as ONNX files, compared with the original before they get their name.

    Args:
        vlm: Loaded on the CPU in float32.
        folder: A new or empty folder.

    Raises:
        InputError: The folder is in use; the model is elsewhere, too large or has a tokenizer or
            preprocessing that cannot be written; or the folder does not give its numbers.
        StoreError: The folder cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out must be a new or empty folder, got '{folder}'; give another name")
    weight = next(vlm.model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise InputError(
            f"vlm must be on the CPU in float32 to be exported, got {weight.dtype} on "
            f"'{weight.device}'; load it with device=cpu,dtype=float32"
        )
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write(vlm, draft)
        difference = _compare(vlm, OnnxClipBackend(draft))
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return Exported(folder, vlm.dimension, size, difference)


def _write(vlm: ClipBackend, folder: Path) -> None:
    preprocessing = _preprocessing(vlm)
    tokens = vlm.texts(list(_TRIAL[:2]))
    plan = _plan(vlm, MASK in tokens)
    pixels = np.stack([vlm.prepare(picture) for picture in _pictures(2)])
    full = vlm.texts.tokenizer(
        list(_TRIAL[:2]), padding="max_length", max_length=plan.length, return_tensors="np"
    )
    rows = {name: full[name] for name in ((TOKENS, MASK) if plan.has_mask else (TOKENS,))}
    content = {
        IMAGE: _tower(vlm, "get_image_features", {PIXELS: pixels}),
        TEXT: _tower(vlm, "get_text_features", rows),
        TOKENIZER: _tokenizer(vlm).encode(),
    }
    for name, data in content.items():
        write_atomic(folder / name, data)
    manifest = Manifest(
        name=Path(vlm.name.removeprefix("clip:")).name,
        source=vlm.content_hash,
        preprocessing=preprocessing,
        text=plan,
        logit_scale=vlm.logit_scale,
        logit_bias=vlm.logit_bias,
        tensor_hashes=tuple(sorted(vlm.tensor_hashes)),
        sha256={name: sha256_file(folder / name) for name in content},
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def _preprocessing(vlm: ClipBackend) -> CheckpointPreprocessing:
    """Return the image processor's steps in our own words; `_compare` proves them right."""
    p = vlm.pictures.processor
    if vlm.pictures.axes != "N C H W":
        raise InputError(
            f"vlm must prepare all pictures in one size to be exported, but {vlm.name} takes "
            "patches of any shape; use clip:FOLDER as it is"
        )
    if getattr(p, "do_pad", False):
        raise InputError(f"preprocessing of {vlm.name} must not pad, to be exported; it does")
    size = p.size if p.do_resize else None
    resize = None if size is None else size.shortest_edge or (size.height, size.width)
    crop = (p.crop_size.height, p.crop_size.width) if getattr(p, "do_center_crop", False) else None
    return CheckpointPreprocessing(
        resize=resize,
        crop=crop,
        interpolation=_FILTERS.get(int(p.resample), "bilinear"),
        scale=p.rescale_factor if p.do_rescale else 1.0,
        mean=tuple(p.image_mean) if p.do_normalize else (0.0,) * 3,
        std=tuple(p.image_std) if p.do_normalize else (1.0,) * 3,
    )


def _plan(vlm: ClipBackend, has_mask: bool) -> TextPlan:
    tokenizer = vlm.texts.tokenizer
    return TextPlan(
        length=vlm.texts.length,
        pad=tokenizer.pad_token_id,
        is_left=tokenizer.padding_side == "left",
        has_mask=has_mask,
    )


def _tokenizer(vlm: ClipBackend) -> str:
    """Return the tokenizer in the format of the package `tokenizers`."""
    fast = getattr(vlm.texts.tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return str(fast.to_str())
    beside = Path(vlm.texts.tokenizer.name_or_path) / TOKENIZER
    if beside.is_file():
        return json.dumps(json.loads(beside.read_text(encoding="utf-8")))
    raise InputError(
        f"folder of {vlm.name} must hold '{TOKENIZER}' to be exported, got a tokenizer of "
        "sentencepiece alone; download that file too"
    )


class _Tower(torch.nn.Module):
    """One tower as a module of its own, with arguments in the order of the trace."""

    def __init__(self, model: Any, method: str, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.method, self.names = model, method, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found = getattr(self.model, self.method)(**dict(zip(self.names, inputs, strict=True)))
        return getattr(found, "pooler_output", found)  # type: ignore[no-any-return]


def _tower(vlm: ClipBackend, method: str, arrays: Mapping[str, Any]) -> bytes:
    size = sum(w.numel() * w.element_size() for w in vlm.model.parameters())
    names = tuple(arrays)
    out = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # Of the tracer, about shapes that are fixed here.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Tower(vlm.model, method, names).eval(),
                tuple(torch.tensor(a) for a in arrays.values()),
                out,  # type: ignore[arg-type]  # a stream is taken too
                input_names=list(names),
                output_names=[EMBEDDING],
                dynamic_axes={name: {0: "n"} for name in (*names, EMBEDDING)},
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as error:  # The exporter's errors share no narrower class.
        hint = f" ({size / 1e9:.1f} GB of weights)" if size > _MOST_BYTES else ""
        raise InputError(
            f"{vlm.name} must be a model that PyTorch can export{hint}, got: {first_line(error)}; "
            "use clip:FOLDER as it is"
        ) from error
    return out.getvalue()


def _compare(vlm: ClipBackend, made: OnnxClipBackend) -> float:
    """Return the largest difference of unit embeddings; InputError where it is too large."""
    pictures, texts = _pictures(6), list(_TRIAL)
    here, there = (np.stack([v.prepare(p) for p in pictures]) for v in (vlm, made))
    differences = {
        "prepared pictures": float(np.abs(here - there).max()),
        "images": _difference(lambda v: v.encode(here)["embedding"], vlm, made),
        "texts": _difference(lambda v: v.encode_text(texts), vlm, made),
    }
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise InputError(
                f"export of {vlm.name} must give the same {what}, got a difference of "
                f"{difference:.2g}; use clip:FOLDER as it is"
            )
    return max(differences["images"], differences["texts"])


def _difference(
    encode: Callable[[Any], FloatArray], vlm: ClipBackend, made: OnnxClipBackend
) -> float:
    here, there = (encode(v) for v in (vlm, made))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (here, there)]
    return float(np.abs(unit[0] - unit[1]).max())


def _pictures(n: int) -> list[Image.Image]:
    """Noise of odd and even sizes, wide and high: the same for every export."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(150, 500, (n, 2))
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]
