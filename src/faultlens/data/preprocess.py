"""Preprocessing: from a picture to the numbers a network was trained on, stated in full.

It is part of a model's description and stored with every result; nothing is guessed.
"""

import hashlib
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from faultlens.arrays import FloatArray
from faultlens.errors import InputError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(BaseModel):
    """How an RGB picture becomes a network's input: `(resized crop * scale - mean) / std`.

    Attributes:
        resize: Shorter side in pixels (keeps the aspect), or exact `(height, width)`;
            None leaves the size alone.
        crop: Centre crop, one number for a square or `(height, width)`; None keeps all. A crop
            larger than the picture pads with zeros before normalisation, as torchvision does.
        interpolation: Filter of the resize (Pillow's, antialiased).
        scale: Factor on the 0–255 pixel values; 1/255 unless stated.
        mean: Per channel, in scaled units, in the order of `channel_order`.
        std: Likewise.
        channel_order: `rgb`, `bgr` or `gray`.
        layout: `nchw` or `nhwc`.

    Example:
        >>> p = Preprocessing(resize=256, crop=224, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> p(Image.new("RGB", (300, 400), "white")).shape
        (3, 224, 224)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resize: int | tuple[int, int] | None
    crop: int | tuple[int, int] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: float = Field(default=1 / 255, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    _source: str = PrivateAttr("")

    @model_validator(mode="after")
    def _check(self) -> "Preprocessing":
        channels = 1 if self.channel_order == "gray" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise ValueError(f"{name} must have {channels} values, got {len(values)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and min(np.atleast_1d(size)) < 1:
                raise ValueError(f"{name} must be at least 1 pixel, got {size}")
        return self

    @property
    def content_hash(self) -> str:
        """SHA-256 of the whole description.

        Example:
            >>> len(Preprocessing(resize=8, mean=(0,) * 3, std=(1,) * 3).content_hash)
            64
        """
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def source(self) -> str:
        """Whose record it was taken from; empty where it was stated."""
        return self._source

    def taken_from(self, source: str) -> "Preprocessing":
        """Return the same with a note of whose record it is, which changes nothing else.

        Example:
            >>> p = Preprocessing(resize=8, mean=(0,) * 3, std=(1,) * 3)
            >>> noted = p.taken_from("the library's record")
            >>> noted.source, noted.content_hash == p.content_hash
            ("the library's record", True)
        """
        noted = self.model_copy()
        noted._source = source
        return noted

    @property
    def told(self) -> str:
        """Everything that is done to a picture, in one line.

        Example:
            >>> Preprocessing(resize=8, crop=6, mean=(0,) * 3, std=(1,) * 3).told
            'resize 8 (bilinear), crop 6, mean 0 0 0, std 1 1 1'
        """
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        shown = (
            f"resize {self.resize} ({self.interpolation}), crop {self.crop}, mean {mean}, std {std}"
        )
        return shown.replace("None (bilinear)", "none").replace("crop None", "no crop")

    def __call__(self, image: Image.Image) -> FloatArray:
        """Return the network's input for one RGB picture: float32, (3, H, W) or (H, W, 3).

        With `channel_order="gray"` there is one channel instead of three.

        Raises:
            InputError: The picture is not RGB.

        Example:
            >>> p = Preprocessing(resize=None, scale=1, mean=(0, 0, 0), std=(1, 1, 2))
            >>> p(Image.new("RGB", (1, 1), (10, 20, 30))).ravel()
            array([10., 20., 15.], dtype=float32)
        """
        if image.mode != "RGB":
            raise InputError(
                f"image must be an RGB picture, got mode {image.mode}; "
                "read files with faultlens.data.decode.decode, or convert it"
            )
        image = self.resized(image)
        if self.channel_order == "gray":
            image = image.convert("L")
        # Planes are sorted while they are bytes, and the arithmetic is done in place: four times
        # quicker than the formula as written.
        bytes_ = np.asarray(image).reshape(image.height, image.width, -1)
        if self.channel_order == "bgr":
            bytes_ = bytes_[:, :, ::-1]
        x = np.ascontiguousarray(bytes_.transpose(2, 0, 1)).astype(np.float32)
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        x *= np.float32(self.scale) / std
        x -= mean / std
        return x if self.layout == "nchw" else np.ascontiguousarray(x.transpose(1, 2, 0))

    def resized(self, image: Image.Image) -> Image.Image:
        """Return the picture after resize and crop, before any arithmetic.

        Example:
            >>> p = Preprocessing(resize=8, crop=6, mean=(0,) * 3, std=(1,) * 3)
            >>> p.resized(Image.new("RGB", (20, 10))).size
            (6, 6)
        """
        size = self._target(image.width, image.height)
        if size != image.size:
            image = image.resize(size, _FILTERS[self.interpolation])
        if self.crop is None:
            return image
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        left, top = _margin(image.width, width), _margin(image.height, height)
        return image.crop((left, top, left + width, top + height))

    def _target(self, width: int, height: int) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        if self.resize is None:
            return width, height
        side = self.resize
        # The longer side is cut, not rounded: what torchvision's Resize does.
        if width <= height:
            return side, max(1, int(side * height / width))
        return max(1, int(side * width / height)), side


def _margin(size: int, crop: int) -> int:
    """Pixels before the crop; negative for padding. Rounded as torchvision's CenterCrop does."""
    return round((size - crop) / 2) if crop <= size else -((crop - size) // 2)
