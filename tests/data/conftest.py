import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encode a picture as a file of some format."""

    def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
        buffer = BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def png_header() -> Callable[[int, int], bytes]:
    """A PNG by hand that claims any size and holds one scanline of zeros at most."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    def build(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(1000))
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + chunk(b"IDAT", pixels)
            + chunk(b"IEND", b"")
        )

    return build


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Make files below a folder; pictures are tiny, each of its own colour."""

    def make(*paths: str) -> Path:
        for i, path in enumerate(paths):
            file = tmp_path / path
            if path.endswith("/"):
                file.mkdir(parents=True)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix.lower() in (".png", ".jpg", ".bmp"):
                kind = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP"}[file.suffix.lower()]
                Image.new("RGB", (4, 3), (i, 100, 200)).save(file, kind)
            else:
                file.write_bytes(b"text")
        return tmp_path

    return make


@pytest.fixture(scope="session")
def textured() -> Callable[[int], Image.Image]:
    """A smooth random picture with plenty of texture."""

    def make(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)

    return make
