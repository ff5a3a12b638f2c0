"""The VLM `onnx-clip`: an exported dual encoder, run by ONNX Runtime without PyTorch.

`faultlens export-vlm` makes its folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray, check_array
from faultlens.errors import InputError, MissingDependencyError
from faultlens.files import sha256_file
from faultlens.onnx_session import first_line, open_session
from faultlens.vlm.onnx_clip_folder import (
    EMBEDDING,
    IMAGE,
    MANIFEST,
    MASK,
    PIXELS,
    TEXT,
    TOKENIZER,
    TOKENS,
    TextPlan,
    read_manifest,
)
from faultlens.vlm.texts import check_texts, check_tokens

_TEXTS = 64  # at once


class OnnxClipBackend:
    """Two towers, a tokenizer and their preprocessing in one folder.

    Args:
        folder: What `faultlens export-vlm` made.

    Attributes:
        name: `onnx-clip:` and the name of the checkpoint.
        content_hash: SHA-256 of `vlm.json`, which holds those of the other files.
        dimension: E, length of both embeddings.
        tensor_hashes: Those of the checkpoint.
        logit_scale: By what the checkpoint multiplies a cosine to get a logit.
        logit_bias: What it adds then; 0 but for SigLIP.
        preprocessing: Of pictures.
        tokens: From texts to the text tower's input.

    Raises:
        InputError: A file is missing, damaged or cannot be run; the message names it.
        MissingDependencyError: The extra `onnx-clip` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        manifest = read_manifest(folder)
        self.name = f"onnx-clip:{manifest.name}"
        self.content_hash = sha256_file(folder / MANIFEST)
        self.tensor_hashes = frozenset(manifest.tensor_hashes)
        self.logit_scale, self.logit_bias = manifest.logit_scale, manifest.logit_bias
        self.preprocessing = manifest.preprocessing
        self.tokens = TokenRows(folder / TOKENIZER, manifest.text)
        self._image, self._text = (_session(folder / name) for name in (IMAGE, TEXT))
        self.dimension = self._check()

    def prepare(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the image tower's input, (3, H, W)."""
        return self.preprocessing(image)

    def encode(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return `{"embedding": (N, E)}`, float32, for a prepared batch.

        Raises:
            ShapeError: The batch does not have four axes, or is not finite.
            InputError: The tower cannot take it.
        """
        x = check_array(batch, "N C H W", name="batch").astype(np.float32, copy=False)
        return {"embedding": self._run(self._image, {PIXELS: x})}

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """Return (P, E) float32, one row a text.

        Raises:
            InputError: A text is empty, or longer than the model takes; it is not cut.
        """
        arrays = self.tokens(texts)
        return np.concatenate([
            self._run(self._text, {k: a[i : i + _TEXTS] for k, a in arrays.items()})
            for i in range(0, len(texts), _TEXTS)
        ])  # fmt: skip

    def _check(self) -> int:
        """Run both towers once and return E."""
        blank = self.prepare(Image.new("RGB", (48, 32)))
        picture, text = self.encode(blank[None])["embedding"], self.encode_text(["a photo"])
        if picture.shape != text.shape or picture.ndim != 2:
            raise InputError(
                f"towers of {self.name} must give embeddings of one length, got {picture.shape} "
                f"for a picture and {text.shape} for a text; export the model again"
            )
        return int(picture.shape[1])

    def _run(self, session: Any, feeds: dict[str, Array]) -> FloatArray:
        try:
            (embedding,) = session.run([EMBEDDING], feeds)
        except Exception as error:  # ONNX Runtime's errors share no narrower class.
            shapes = {key: value.shape for key, value in feeds.items()}
            raise InputError(
                f"input must be one that {self.name} can take, got {shapes} "
                f"({first_line(error)}); use prepare of the same folder"
            ) from error
        return np.asarray(embedding, np.float32)


class TokenRows:
    """Turns texts into rows of token numbers, with the package `tokenizers` alone.

    Args:
        file: A tokenizer in the format of that package.
        plan: How rows are filled.

    Raises:
        InputError: The file is no tokenizer.
        MissingDependencyError: The extra `onnx-clip` is not installed.
    """

    def __init__(self, file: Path, plan: TextPlan) -> None:
        try:
            import tokenizers  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError("tokenizers", "onnx-clip") from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # The package raises nothing narrower.
            raise InputError(f"{file} must be a tokenizer, got: {first_line(error)}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.plan = plan

    def __call__(self, texts: Sequence[str]) -> dict[str, Array]:
        """Return the text tower's arrays by name, (P, length) int64.

        Raises:
            InputError: There is no text, or one is empty or too long.
        """
        texts, plan = check_texts(texts), self.plan
        tokens = np.full((len(texts), plan.length), plan.pad, np.int64)
        mask = np.zeros_like(tokens)
        for row, found in enumerate(self._tokenizer.encode_batch(texts)):
            n = len(found.ids)
            check_tokens(texts[row], n, plan.length)
            place = slice(plan.length - n, None) if plan.is_left else slice(n)
            tokens[row, place], mask[row, place] = found.ids, 1
        return {TOKENS: tokens, MASK: mask} if plan.has_mask else {TOKENS: tokens}


def load(argument: str = "") -> OnnxClipBackend:
    """Load an exported dual encoder.

    Args:
        argument: The folder.

    Raises:
        InputError: There is no folder, or a file in it is missing or wrong.
        MissingDependencyError: The extra `onnx-clip` is not installed.

    Example:
        >>> load("")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must be 'onnx-clip:FOLDER', got no folder
    """
    if not argument:
        raise InputError("vlm must be 'onnx-clip:FOLDER', got no folder")
    if not Path(argument).is_dir():
        raise InputError(f"onnx-clip must be a folder, but '{argument}' is none; check the path")
    return OnnxClipBackend(argument)


def _session(path: Path) -> Any:
    try:
        return open_session(path.read_bytes())
    except Exception as error:  # ONNX Runtime's errors share no narrower class.
        raise InputError(
            f"{path} must be an ONNX file that can be run, got: {first_line(error)}; export the "
            "model again"
        ) from error
