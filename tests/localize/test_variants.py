"""The usual mistakes undone: each one once, and only where the network takes it."""

import numpy as np
import pytest
from PIL import Image

from faultlens.data.preprocess import Preprocessing
from faultlens.localize.variants import variants

PLAIN = Preprocessing(resize=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
OWN = ((0.3, 0.4, 0.5), (0.1, 0.2, 0.3))
FIXED = (None, 3, 16, 16)


def changed(stated, **changes):
    return Preprocessing(**(stated.model_dump() | changes))


def inputs_of(preprocessing):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    return preprocessing(Image.fromarray(pixels))


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        ({"channel_order": "bgr"}, "RGB channel order"),
        ({"scale": 1}, "a scale of 1/255"),
        ({"resize": (8, 8)}, "twice the size (16 × 16)"),
        ({"resize": (32, 32)}, "half the size (16 × 16)"),
        ({"resize": (24, 24)}, "two thirds of the size (16 × 16)"),
        ({"resize": (12, 12)}, "4/3 the size (16 × 16)"),
        ({"crop": 12}, "pictures squeezed to 16 × 16"),
        ({"resize": 24, "crop": 16}, "pictures squeezed to 16 × 16"),
    ],
)
def test_every_mistake_is_undone_exactly(mistake, name):
    found = variants(changed(PLAIN, **mistake))
    np.testing.assert_allclose(inputs_of(found[name]), inputs_of(PLAIN), atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "scale", "name"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255, "ImageNet's mean and deviation"),
        ((0, 0, 0), (1, 1, 1), 1, "values of 0 to 255"),
        ((0, 0, 0), (1, 1, 1), 1 / 255, "values of 0 to 1"),
        ((0.5,) * 3, (0.5,) * 3, 1 / 255, "values of -1 to 1"),
        (*OWN, 1 / 255, "the pictures' own mean and deviation"),
    ],
)
def test_usual_normalisations_are_tried(mean, std, scale, name):
    one = variants(PLAIN, own=OWN)[name]
    np.testing.assert_allclose(one.mean, mean)
    np.testing.assert_allclose(one.std, std)
    assert one.scale == scale


def test_numbers_follow_the_channels():
    bgr = variants(changed(PLAIN, channel_order="bgr"), own=OWN)
    assert bgr["the pictures' own mean and deviation"].mean == (0.5, 0.4, 0.3)
    grey = variants(changed(PLAIN, channel_order="gray", mean=(0.5,), std=(0.5,)), own=OWN)
    assert not any("BGR" in name for name in grey)
    assert grey["the pictures' own mean and deviation"].mean == pytest.approx((0.3815,))


@pytest.mark.parametrize("stated", [PLAIN, changed(PLAIN, resize=20, crop=16, scale=1)])
@pytest.mark.parametrize("shape", [FIXED, (None,) * 4])
def test_nothing_equals_the_stated_one_or_comes_twice(stated, shape):
    found = [stated, *variants(stated, input_shape=shape, own=OWN).values()]
    assert len(found) > 6
    texts = {p.model_dump_json() for p in found}
    assert len(texts) == len(found)
    assert len(found) <= 26


def test_scaled_bytes_are_the_stated_ones_when_only_written_otherwise():
    stated = Preprocessing(resize=(16, 16), scale=1, mean=(127.5,) * 3, std=(127.5,) * 3)
    assert "values of -1 to 1" not in variants(stated)


def test_a_fixed_network_gets_its_size_only():
    for stated in (PLAIN, changed(PLAIN, resize=8, crop=16)):
        for name, one in variants(stated, input_shape=FIXED).items():
            assert inputs_of(one).shape == (3, 16, 16), name


def test_the_layout_says_where_the_size_is():
    stated = changed(PLAIN, layout="nhwc")
    found = variants(stated, input_shape=(None, 16, 16, 3))
    assert {inputs_of(one).shape for one in found.values()} == {(16, 16, 3)}
    assert "the middle 16 × 16 of pictures resized to 18" in found


def test_pictures_of_any_size_are_not_resized():
    stated = changed(PLAIN, resize=None)
    assert {p.resize for p in variants(stated).values()} == {None}


def test_what_was_tried_is_not_tried_again():
    first = variants(PLAIN)
    after = variants(first["twice the size (32 × 32)"], tried=[PLAIN, *first.values()])
    assert "half the size (16 × 16)" not in after
    assert "1.5 times the size (48 × 48)" in after
    assert "values of 0 to 1" in after
    assert len(variants(PLAIN, tried=first.values())) == 0
