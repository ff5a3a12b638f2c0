"""Image processors of Hugging Face transformers, in FaultLens's own terms."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError

_FILTERS: dict[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]]
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_WHOLE = 384  # from here on ConvNeXT's processor does not crop
_TOLERANCE = 1e-4
_SIZES = ((61, 47), (40, 90), (33, 33))


class HuggingFacePreprocessing(Preprocessing):
    """Preprocessing whose centre crop rounds as transformers does, downwards.

    Example:
        >>> p = HuggingFacePreprocessing(resize=None, crop=2, mean=(0,) * 3, std=(1,) * 3)
        >>> grey = Image.fromarray(np.arange(5, dtype=np.uint8)[None].repeat(2, 0))
        >>> np.asarray(p.resized(grey.convert("RGB")))[0, :, 0]
        array([1, 2], dtype=uint8)
    """

    def resized(self, image: Image.Image) -> Image.Image:
        """Return the picture after resize and crop, before any arithmetic."""
        if self.crop is None:
            return super().resized(image)
        image = Preprocessing.resized(self.model_copy(update={"crop": None}), image)
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def preprocessing_of(
    processor: Any, stated: Mapping[str, Any], name: str
) -> HuggingFacePreprocessing:
    """Return what an image processor does, after comparing with it on a few pictures.

    Args:
        processor: An image processor of transformers, of its PIL backend.
        stated: What the checkpoint's file says; a size or a mean that it leaves out is an error
            where it matters, since the library would fill in its own.
        name: The model's, for messages.

    Raises:
        InputError: The file leaves out what matters, or it does what cannot be stated.
    """
    needed = [
        key
        for step, keys in (("do_resize", ("size",)), ("do_normalize", ("image_mean", "image_std")))
        if getattr(processor, step, False)
        for key in keys
        if key not in stated
    ]
    if needed:
        raise InputError(
            f"preprocessor_config.json of {name} must state {', '.join(map(repr, needed))}, got "
            "nothing of it; save the image processor again"
        )
    try:
        made = HuggingFacePreprocessing(**_resize(processor), **_numbers(processor))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unstatable(processor, name, str(error)) from error
    for width, height in _SIZES:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        want = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
        got = made(picture)
        if got.shape != want.shape:
            raise _unstatable(processor, name, f"other sizes for {width} × {height}")
        if np.abs(got - want).max() > _TOLERANCE * max(1.0, float(np.abs(want).max())):
            raise _unstatable(processor, name, f"other numbers for {width} × {height}")
    return made


def _resize(processor: Any) -> dict[str, Any]:
    crop: int | tuple[int, int] | None = None
    if getattr(processor, "do_center_crop", False):
        crop = _side(processor.crop_size)
    if not processor.do_resize:
        return {"resize": None, "crop": crop}
    size = _side(processor.size)
    crop_pct = getattr(processor, "crop_pct", None)
    if crop_pct is not None and isinstance(size, int):
        size, crop = ((size, size), crop) if size >= _WHOLE else (int(size / crop_pct), size)
    return {"resize": size, "crop": crop, "interpolation": _FILTERS[int(processor.resample)]}


def _side(size: Any) -> int | tuple[int, int]:
    if getattr(size, "shortest_edge", None):
        if getattr(size, "longest_edge", None):
            raise ValueError("a longest edge")
        return int(size.shortest_edge)
    return int(size.height), int(size.width)


def _numbers(processor: Any) -> dict[str, Any]:
    scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if processor.do_normalize:
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    if getattr(processor, "rescale_offset", False):  # EfficientNet: from -1
        mean = tuple(m + 1 for m in mean)
    if getattr(processor, "include_top", False):  # EfficientNet divides twice
        std = tuple(s * s for s in std)
    return {"scale": scale, "mean": mean, "std": std}


def _three(values: Any) -> tuple[float, ...]:
    return tuple(map(float, np.broadcast_to(np.asarray(values, dtype=float), 3)))


def _unstatable(processor: Any, name: str, why: str) -> InputError:
    return InputError(
        f"preprocessing of {name} must be a resize, a centre crop, a factor, a mean and a "
        f"deviation, got {type(processor).__name__} with {why}; state what it does with "
        "--preprocess"
    )
