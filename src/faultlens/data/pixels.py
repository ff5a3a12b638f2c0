"""Pixels in memory: images given as an array instead of files."""

from typing import Any

import numpy as np

from faultlens.arrays import Array, read_only
from faultlens.errors import ShapeError


def check_pixels(images: Any) -> Array:
    """Return a read-only view of images given as an array.

    Args:
        images: uint8, (N, H, W, 3) RGB or (N, H, W) grey.

    Raises:
        ShapeError: Anything else.

    Example:
        >>> check_pixels(np.zeros((2, 8, 8, 3), np.uint8)).shape
        (2, 8, 8, 3)
        >>> check_pixels(np.zeros((2, 3, 8, 8), np.uint8))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.ShapeError: images must have axes (N, H, W, 3) or (N, H, W), got ...
    """
    pixels = np.asarray(images).view()
    if pixels.dtype != np.uint8:
        raise ShapeError(
            f"images must be uint8 from 0 to 255, got {pixels.dtype}; "
            "scale to 0–255 and cast, before any normalisation"
        )
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
        raise ShapeError(
            f"images must have axes (N, H, W, 3) or (N, H, W), got shape {pixels.shape}; "
            "move the channels last"
        )
    if 0 in pixels.shape:
        raise ShapeError(f"images must not be empty, got shape {pixels.shape}")
    return read_only(pixels)


def to_file(pixels: Array) -> bytes:
    r"""Return one image's pixels as the bytes of a PPM or PGM file, which anything can decode.

    Args:
        pixels: uint8, (H, W, 3) or (H, W).

    Example:
        >>> to_file(np.array([[7, 8]], np.uint8))
        b'P5 2 1 255\n\x07\x08'
    """
    kind = "P5" if pixels.ndim == 2 else "P6"
    return f"{kind} {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + bytes(pixels.tobytes())
