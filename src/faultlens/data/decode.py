"""Decoding: from the bytes of a picture file to RGB, whatever the file holds.

Nothing here trusts the file: the format is told by the content, never by the name, the header is
judged before any pixel is decoded, and only the formats below are tried.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile

from faultlens.arrays import Array
from faultlens.errors import ImageError, InputError

MAX_PIXELS = 178_956_970
"""Largest picture that is decoded unless told otherwise: where Pillow itself calls it an attack."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of the formats that are tried."""

_OF_JPEG = ("jpg", "jpeg", "jpe", "jfif")
_OF_PNM = ("ppm", "pgm", "pbm", "pnm")
SUFFIXES = frozenset(
    (*_OF_JPEG, *_OF_PNM, "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2")
)
"""Endings that mark a file as a picture when a folder is listed."""

_WIDE_MODES = frozenset(["I", "I;16", "I;16L", "I;16B", "I;16N", "F"])

_UPRIGHT = {  # what EXIF orientation k asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, max_pixels: int = MAX_PIXELS, name: str = "image") -> Image.Image:
    """Return a picture file as upright 8-bit RGB.

    EXIF orientation is applied. Transparency is laid over white. Of several frames the first is
    taken. 16-bit grey (and 32-bit integers, clipped to 16 bits) is scaled by the full 16-bit
    range; floating-point grey is read as 0–1, or as 0–255 if any value exceeds 1. CMYK JPEG is
    read as inverted, which is what Adobe and Pillow write. Colour profiles are ignored, as
    training pipelines do.

    Args:
        data: All bytes of the file.
        max_pixels: Refuse larger pictures by their header, before decoding. Pillow's own
            protection stays as it is, so a few formats stop at twice its `MAX_IMAGE_PIXELS`.
        name: What to call the picture in a message.

    Raises:
        ImageError: Empty, truncated, damaged, or no picture at all.
        InputError: More than `max_pixels` pixels.

    Example:
        >>> decode(b"P5 2 1 255 " + bytes([0, 255])).getpixel((1, 0))
        (255, 255, 255)
        >>> decode(b"hello", name="a.jpg")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.ImageError: a.jpg must be a picture, got bytes of no known ...
    """
    picture = _open(data, max_pixels, name)
    with _blame_the_file(max_pixels, name):
        picture.load()
        rgb = _to_rgb(picture)
        turn = _UPRIGHT.get(_orientation(picture))
        rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # an orientation left here would be applied a second time
    return rgb


def check_header(data: bytes, max_pixels: int = MAX_PIXELS, name: str = "image") -> None:
    """Judge a picture file by its header alone; no pixel is decoded.

    Args:
        data: All bytes of the file.
        max_pixels: Refuse larger pictures.
        name: What to call the picture in a message.

    Raises:
        ImageError: The header is not that of a picture.
        InputError: More than `max_pixels` pixels.

    Example:
        >>> check_header(b"P5 50000 50000 255 ", name="big.pgm")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: big.pgm must have at most 178,956,970 pixels, got ...
    """
    _open(data, max_pixels, name)


def _open(data: bytes, max_pixels: int, name: str) -> ImageFile.ImageFile:
    # Not Image.open: it warns between one and two times Pillow's limit, warnings cannot be
    # silenced in a thread-safe way, and it would try formats nobody photographs in.
    if not data:
        raise _not_a_picture(name, "an empty file")
    Image.init()
    for known in FORMATS:
        factory, accept = Image.OPEN.get(known, (None, None))
        if factory is None or accept is None or accept(data[:16]) is not True:
            continue
        with _blame_the_file(max_pixels, name):
            picture = factory(io.BytesIO(data), "")
        if picture.width * picture.height > max_pixels:
            raise _too_large(name, max_pixels, f"{picture.width:,} x {picture.height:,}")
        return picture
    raise _not_a_picture(name, f"bytes of no known format ({data[:8].hex()})")


@contextmanager
def _blame_the_file(max_pixels: int, name: str) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, max_pixels, "more than Pillow allows") from error
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # on damaged data Pillow's readers raise whatever they trip over
        raise _not_a_picture(name, f"a damaged file ({error})") from error


def _not_a_picture(name: str, got: str) -> ImageError:
    return ImageError(f"{name} must be a picture, got {got}; repair, convert or remove it")


def _too_large(name: str, max_pixels: int, got: str) -> InputError:
    return InputError(
        f"{name} must have at most {max_pixels:,} pixels, got {got}; "
        "shrink or remove it, or raise max_pixels if you trust it"
    )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF: the pixels are still good
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _WIDE_MODES:
        picture = Image.fromarray(_to_eight_bits(np.asarray(picture)))
    elif picture.has_transparency_data:
        if picture.mode in ("La", "RGBa"):  # colours already multiplied by alpha
            picture = picture.convert(picture.mode.upper())
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("RGB")


def _to_eight_bits(grey: Array) -> Array:
    x = np.nan_to_num(grey.astype(np.float32), nan=0.0)
    if grey.dtype.kind == "f" and x.max() > 1:
        full = 255.0
    else:
        full = 1.0 if grey.dtype.kind == "f" else 65535.0
    scaled: Array = np.rint(np.clip(x / full, 0, 1) * 255).astype(np.uint8)
    return scaled
