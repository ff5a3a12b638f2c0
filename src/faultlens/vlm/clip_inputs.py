"""Pictures and texts as a Hugging Face checkpoint wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.errors import InputError, MissingDependencyError
from faultlens.vlm.clip_folder import ClipFolder
from faultlens.vlm.texts import check_texts, check_tokens, first_line

#: Values that count only where their switch is on.
_NEEDED = {
    "do_resize": ("size",),
    "do_center_crop": ("crop_size",),
    "do_normalize": ("image_mean", "image_std"),
}
_PATCHES = ("pixel_attention_mask", "spatial_shapes")


class ClipPictures:
    """Prepares pictures with the checkpoint's own image processor, on Pillow.

    Models that take a picture as a list of patches, whose number follows its shape, need three
    arrays: patches, which of them are real, and rows and columns. They travel as one array, with
    three more columns.

    Args:
        processor: The image processor of transformers.

    Attributes:
        processor: As given.
        axes: Axis letters of a prepared batch.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._is_patches = set(_PATCHES) <= set(processor.model_input_names)
        self.axes = "N P F" if self._is_patches else "N C H W"

    @classmethod
    def load(cls, transformers: Any, folder: ClipFolder, config: Any) -> "ClipPictures":
        """Load a checkpoint's image processor and check it against the model.

        Raises:
            InputError: Its file lacks a value, or makes pictures of another size than the
                model's; the message names the file.
        """
        file = folder.preprocessing_file
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder.path, backend="pil", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # The library's errors for a wrong file share no class.
            raise InputError(
                f"{file} must describe an image processor, got: {first_line(error)}; copy it again"
            ) from error
        for switch, keys in _NEEDED.items():
            for key in keys:
                is_used = getattr(processor, switch, False) and getattr(processor, key, None)
                if is_used and folder.preprocessing.get(key) is None:
                    raise InputError(
                        f"{file} must state '{key}', got none; copy the file that belongs to the "
                        "checkpoint: nothing is guessed"
                    )
        pictures = cls(processor)
        pictures._check_size(folder, config)
        return pictures

    def __call__(self, image: Image.Image) -> FloatArray:
        """Return one RGB picture as the model's input: (3, H, W), or (patches, values + 3)."""
        found = self.processor(images=image, return_tensors="np")
        pixels = np.asarray(found["pixel_values"][0], np.float32)
        if not self._is_patches:
            return pixels
        mask, shape = (np.asarray(found[key][0], np.float32) for key in _PATCHES)
        more = (mask[:, None], np.broadcast_to(shape, (len(mask), 2)))
        return np.concatenate((pixels, *more), axis=1)

    def inputs(self, batch: Array) -> dict[str, Array]:
        """Return the arrays of a prepared batch by the names of the model's arguments."""
        batch = batch.astype(np.float32, copy=False)
        if not self._is_patches:
            return {"pixel_values": batch}
        mask, shapes = batch[:, :, -3].astype(np.int64), batch[:, 0, -2:].astype(np.int64)
        return {
            "pixel_values": batch[:, :, :-3],
            **dict(zip(_PATCHES, (mask, shapes), strict=True)),
        }

    def _check_size(self, folder: ClipFolder, config: Any) -> None:
        side = getattr(config.vision_config, "image_size", None)
        if self._is_patches or not isinstance(side, int):
            return
        # Neither square nor of the size wanted.
        shape = self(Image.new("RGB", (2 * side + 6, side + 2))).shape
        if shape != (3, side, side):
            raise InputError(
                f"{folder.preprocessing_file} must prepare pictures of {side} x {side} pixels for "
                f"this model, got {' x '.join(map(str, shape[1:]))}; copy the file that belongs "
                "to the checkpoint"
            )


class ClipTexts:
    """Turns texts into rows of token numbers as the checkpoint was trained.

    Args:
        tokenizer: The tokenizer of transformers.
        length: Most tokens in a text.
        n_tokens: Tokens that the model knows.
        is_padded: Fill every row up to `length`, as SigLIP was trained; otherwise up to the
            longest row.

    Attributes:
        tokenizer: As given.
        length: As given.
        is_padded: As given.
    """

    def __init__(self, tokenizer: Any, length: int, n_tokens: int, is_padded: bool) -> None:
        self.tokenizer, self.length, self.is_padded = tokenizer, length, is_padded
        self._n_tokens = n_tokens

    @classmethod
    def load(cls, transformers: Any, folder: ClipFolder, config: Any) -> "ClipTexts":
        """Load a checkpoint's tokenizer.

        Raises:
            InputError: Its files are wrong.
            MissingDependencyError: It needs `sentencepiece`.
        """
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # The library's errors for a wrong file share no class.
            if isinstance(error, ImportError) or "sentencepiece" in str(error).lower():
                raise MissingDependencyError("sentencepiece", "clip") from error
            raise InputError(
                f"folder of clip must hold a tokenizer of transformers, got in '{folder.path}': "
                f"{first_line(error)}; copy its files again"
            ) from error
        text = config.text_config
        length = min(int(text.max_position_embeddings), int(tokenizer.model_max_length))
        return cls(tokenizer, length, int(text.vocab_size), config.model_type.startswith("siglip"))

    def __call__(self, texts: Sequence[str]) -> dict[str, IntArray]:
        """Return the arrays of some texts by the names of the model's arguments, (P, length).

        Raises:
            InputError: There is no text, one is empty or too long, or a token is not the model's.
        """
        texts = check_texts(texts)
        for text, ids in zip(texts, self.tokenizer(texts)["input_ids"], strict=True):
            check_tokens(text, len(ids), self.length)
            if max(ids) >= self._n_tokens:
                raise InputError(
                    f"tokenizer must be that of the model, which knows {self._n_tokens} tokens, "
                    f"got token {max(ids)} for '{text}'; copy its files again"
                )
        filled = {"padding": "max_length", "max_length": self.length}
        padding = filled if self.is_padded else {"padding": True}
        return dict(self.tokenizer(texts, return_tensors="np", **padding))
