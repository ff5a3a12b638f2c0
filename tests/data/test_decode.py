import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from faultlens.data.decode import MAX_PIXELS, SUFFIXES, check_header, decode
from faultlens.errors import ImageError, InputError

RED, WHITE = (255, 0, 0), (255, 255, 255)
MODES = {
    "1": "PNG",
    "L": "PNG",
    "LA": "PNG",
    "P": "PNG",
    "RGB": "PNG",
    "RGBA": "PNG",
    "I;16": "PNG",
    "I;16B": "TIFF",
    "I": "TIFF",
    "F": "TIFF",
    "CMYK": "TIFF",
    "YCbCr": "JPEG",
    "PA": "TIFF",
}


def one_pixel(mode, value):
    image = Image.new(mode, (1, 1))
    image.putpixel((0, 0), value)
    return image


@pytest.mark.parametrize("mode", MODES)
@given(width=st.integers(1, 9), height=st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_every_mode_becomes_rgb_of_the_same_size(encode, mode, width, height):
    if mode == "PA":
        image = Image.new("LA", (width, height)).convert("PA")
    else:
        image = Image.new(mode, (width, height))
    rgb = decode(encode(image, MODES[mode]))
    assert (rgb.mode, rgb.size) == ("RGB", (width, height))
    assert np.asarray(rgb).dtype == np.uint8


def test_rgb_pixels_are_untouched(encode, textured):
    image = textured(0)
    assert np.array_equal(np.asarray(decode(encode(image))), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("LA", (0, 0), WHITE),
        ("LA", (0, 255), (0, 0, 0)),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("1", 1, WHITE),
        ("L", 7, (7, 7, 7)),
        ("I;16", 65535, WHITE),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I;16", 255, (1, 1, 1)),
    ],
)
def test_values(encode, mode, value, expected):
    assert decode(encode(one_pixel(mode, value))).getpixel((0, 0)) == expected


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("I;16B", 257 * 200, 200),
        ("I", 257 * 200, 200),
        ("I", 1_000_000, 255),
        ("I", -5, 0),
        ("F", 0.2, 51),
        ("F", 1.0, 255),
        ("F", 200.4, 200),
        ("F", 300.0, 255),
        ("F", float("nan"), 0),
    ],
)
def test_wide_grey_values(encode, mode, value, expected):
    assert decode(encode(one_pixel(mode, value), "TIFF")).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_palette_entry_is_white(encode, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    rgb = decode(encode(image, transparency=transparency))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_transparent_colour_of_rgb_is_white(encode):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (1, 2, 3))
    rgb = decode(encode(image, transparency=(1, 2, 3)))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_cmyk_jpeg_is_not_a_negative(encode):
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = decode(data).getpixel((4, 4))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_of_several_frames(encode, kind):
    frames = [Image.new("RGB", (8, 8), c) for c in (RED, (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert decode(data).getpixel((0, 0)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_orientation_is_applied_once(encode, textured, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(textured(1), kind, exif=exif)
    rgb = decode(data)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(rgb), np.asarray(reference))
    assert rgb.size == ((96, 80) if orientation < 5 else (80, 96))
    assert ImageOps.exif_transpose(rgb).size == rgb.size


def test_damaged_exif_is_ignored(encode):
    data = encode(Image.new("RGB", (4, 3), RED), "PNG", exif=b"Exif\0\0not exif at all")
    assert decode(data).size == (4, 3)


def test_the_name_of_a_format_does_not_matter(encode):
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        assert decode(encode(Image.new("RGB", (5, 4)), kind), name="photo.jpg").size == (5, 4)


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "an empty file"),
        (bytes(100), "bytes of no known format (0000000000000000)"),
        (b"<html>not found</html>", "bytes of no known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "bytes of no known format"),
        (b"\xff\xd8\xff\xe0", "a damaged file"),
        (b"GIF89a", "a damaged file"),
    ],
)
def test_what_is_no_picture(data, got):
    with pytest.raises(ImageError, match=r"^cat/1.jpg must be a picture, got ") as error:
        decode(data, name="cat/1.jpg")
    assert got in str(error.value)
    with pytest.raises(ImageError):
        check_header(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@given(cut=st.floats(0.0, 0.8), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_truncated_files(encode, textured, kind, cut, seed):
    data = encode(textured(seed), kind)
    with pytest.raises(ImageError):
        decode(data[: int(cut * len(data))])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@given(st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")  # Pillow may remark on what it meets
def test_damaged_bytes_never_escape_as_another_error(encode, textured, kind, data):
    raw = bytearray(encode(textured(0), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(len(raw), 400) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert decode(bytes(raw), max_pixels=100_000).mode == "RGB"


def test_a_huge_header_is_refused_with_little_memory(png_header):
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="got 50,000 x 50,000; shrink or remove it") as error:
            decode(png_header(50_000, 50_000), name="bomb.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not isinstance(error.value, ImageError)
    assert str(error.value).startswith("bomb.png must have at most 178,956,970 pixels")
    assert peak < 5_000_000
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS // 2


def test_the_limit_is_exact(encode):
    data = encode(Image.new("RGB", (10, 10)))
    assert decode(data, max_pixels=100).size == (10, 10)
    with pytest.raises(InputError, match="at most 99 pixels, got 10 x 10"):
        decode(data, max_pixels=99)
    with pytest.raises(InputError, match="at most 99 pixels, got 10 x 10"):
        check_header(data, max_pixels=99)


def test_between_pillows_warning_and_its_error_nothing_is_said(png_header):
    check_header(png_header(10_000, 10_000))  # 100 million pixels; a warning would fail the test


def test_pillows_own_refusal_is_an_input_error(monkeypatch, encode):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    frames = [Image.new("RGB", (8, 8), c) for c in (RED, WHITE)]
    data = encode(frames[0], "GIF")
    wide = data[:6] + b"\x01\x00\x01\x00" + data[10:]  # screen of 1 x 1 around a frame of 8 x 8
    with pytest.raises(InputError, match="more than Pillow allows"):
        decode(wide)


def test_header_check_does_not_decode(encode, textured):
    data = encode(textured(0), "JPEG")
    check_header(data[: len(data) // 2])
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: len(data) // 2])


def test_running_out_of_memory_is_not_the_files_fault(monkeypatch, encode):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", lambda self: {})
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(MemoryError):
        decode(encode(Image.new("RGB", (2, 2)), "BMP"))


def test_suffixes_are_bare_and_lower():
    assert all(s == s.lower().strip(".") for s in SUFFIXES)
    assert {"jpg", "jpeg", "png", "webp"} <= SUFFIXES
