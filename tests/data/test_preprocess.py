import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError

PLAIN = {"resize": None, "mean": (0.0,) * 3, "std": (1.0,) * 3}


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_arithmetic_channels_and_layout():
    image = noise(5, 4)
    pixels = np.asarray(image).astype(np.float64)
    p = Preprocessing(resize=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert p(image).dtype == np.float32
    np.testing.assert_allclose(p(image), expected.transpose(2, 0, 1), atol=1e-5)
    last = p.model_copy(update={"layout": "nhwc"})(image)
    np.testing.assert_allclose(last, expected, atol=1e-5)
    assert last.flags.c_contiguous


def test_bgr_means_belong_to_the_reversed_channels():
    p = Preprocessing(resize=None, mean=(1, 2, 3), std=(1, 2, 4), scale=1, channel_order="bgr")
    image = Image.new("RGB", (1, 1), (10, 20, 30))
    assert p(image)[:, 0, 0].tolist() == [29.0, 9.0, 1.75]


def test_gray_has_one_channel():
    p = Preprocessing(resize=None, mean=(0,), std=(1,), scale=1, channel_order="gray")
    assert p(Image.new("RGB", (3, 2), (255, 0, 0))).tolist() == [[[76.0] * 3] * 2]


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((300, 400), 256, (256, 341)),
        ((400, 300), 256, (341, 256)),
        ((300, 300), 256, (256, 256)),
        ((1000, 3), 2, (666, 2)),
        ((300, 400), (10, 20), (20, 10)),
        ((300, 400), None, (300, 400)),
    ],
)
def test_resize(size, resize, expected):
    p = Preprocessing(**PLAIN | {"resize": resize})
    assert p.resized(Image.new("RGB", size)).size == expected


@given(width=st.integers(1, 40), height=st.integers(1, 40), crop=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_centre_crop_against_padding_then_cutting(width, height, crop):
    image = noise(width, height)
    pixels = np.asarray(image)
    pads = [((max(0, crop - n)) // 2, (max(0, crop - n) + 1) // 2) for n in (height, width)]
    padded = np.pad(pixels, [*pads, (0, 0)])
    top, left = (round((n - crop) / 2) for n in padded.shape[:2])
    expected = padded[top : top + crop, left : left + crop]
    got = Preprocessing(**PLAIN | {"crop": crop}).resized(image)
    assert np.array_equal(np.asarray(got), expected)


def test_rectangular_crop_is_height_then_width():
    assert Preprocessing(**PLAIN | {"crop": (2, 6)}).resized(noise(9, 9)).size == (6, 2)


def test_only_rgb_is_taken():
    with pytest.raises(InputError, match="must be an RGB picture, got mode L; read files with"):
        Preprocessing(**PLAIN)(Image.new("L", (3, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.0,)}, "mean must have 3 values, got 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"std": (1.0, float("nan"), 1.0)}, "finite"),
        ({"mean": (float("inf"), 0, 0)}, "finite"),
        ({"resize": 0}, "resize must be at least 1 pixel"),
        ({"crop": (3, 0)}, "crop must be at least 1 pixel"),
        ({"scale": 0}, "greater than 0"),
        ({"channel_order": "gray"}, "mean must have 1 values, got 3"),
        ({"centre": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_descriptions(change, message):
    with pytest.raises(ValidationError, match=message):
        Preprocessing(**PLAIN | change)


def test_content_hash_follows_every_field():
    base = Preprocessing(**PLAIN)
    changes = [
        {"resize": 8},
        {"crop": 4},
        {"interpolation": "bicubic"},
        {"scale": 1.0},
        {"mean": (0.1, 0.0, 0.0)},
        {"std": (2.0, 1.0, 1.0)},
        {"channel_order": "bgr"},
        {"layout": "nhwc"},
    ]
    hashes = {Preprocessing(**PLAIN | c).content_hash for c in changes}
    assert len(hashes | {base.content_hash}) == 1 + len(changes)
    assert Preprocessing(**PLAIN | {"mean": (0, 0, 0)}).content_hash == base.content_hash
    assert {name for c in changes for name in c} == set(Preprocessing.model_fields)
