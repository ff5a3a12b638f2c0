"""Damage by JPEG: seen, measured, and done again."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from faultlens.data.world.dataset import render_all
from faultlens.data.world.scene import scenes
from faultlens.localize.compression import (
    MIN_BLOCKINESS,
    blockiness,
    compressed_again,
    quality_of,
)

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def coded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.fixture(scope="module")
def drawn():
    return [Image.fromarray(p) for p in render_all(list(scenes(40, seed=4100))).pixels]


def share(images):
    return np.mean([blockiness(i) >= MIN_BLOCKINESS for i in images])


def test_undamaged_pictures_are_not_blocky(drawn):
    assert np.median([blockiness(i) for i in drawn]) == pytest.approx(1, abs=0.1)
    assert share(drawn) <= 0.05
    assert share([coded(i, 95) for i in drawn]) <= 0.15


@pytest.mark.parametrize("quality", [5, 10, 20])
def test_hard_compression_is_blocky_and_its_quality_is_read(drawn, quality):
    damaged = [coded(i, quality) for i in drawn]
    assert share(damaged) >= 0.85
    assert np.mean([quality_of(i) == quality for i in damaged]) >= 0.9


@pytest.mark.parametrize("change", [lambda i: i, lambda i: coded(i, 75), lambda i: coded(i, 50)])
def test_fine_or_no_compression_has_no_quality(drawn, change):
    assert {quality_of(change(i)) for i in drawn} == {None}


def test_a_grid_of_the_picture_itself_is_no_compression():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    tiles = Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8)))
    assert blockiness(tiles) > MIN_BLOCKINESS
    assert quality_of(tiles.filter(ImageFilter.GaussianBlur(0.5))) is None


def test_the_middle_of_a_large_picture_is_on_the_grid(drawn):
    tiled = np.concatenate([np.concatenate([np.asarray(i) for i in drawn[:9]], axis=1)] * 6)
    large = Image.fromarray(tiled[:, :570])
    assert quality_of(coded(large, 12)) == 12
    assert blockiness(coded(large, 12)) > MIN_BLOCKINESS > blockiness(large)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 3), (7, 40)])
def test_tiny_pictures_have_no_borders(size):
    assert blockiness(Image.new("RGB", size, "red")) == pytest.approx(1)
    assert compressed_again(Image.new("RGB", size, "red"), 10).size == size


def test_the_same_damage_again_changes_nothing_but_elsewhere_it_does(drawn):
    def difference(a, b):
        return np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()

    once = [coded(i, 8) for i in drawn]
    done = np.mean([difference(a, b) for a, b in zip(drawn, once, strict=True)])
    same = np.mean([difference(i, coded(i, 8)) for i in once])
    again = np.mean([difference(i, compressed_again(i, 8)) for i in once])
    assert same < 0.1 * done
    assert 0.7 * done < again < 1.4 * done


@pytest.mark.shared
def test_photographs_of_usual_quality_are_not_damaged():
    files = sorted(PHOTOS.glob("train/*/*.jpg"))[::25]
    if not files:
        pytest.skip(f"no photographs in {PHOTOS}")
    photographs = [Image.open(file).convert("RGB") for file in files]
    assert share(photographs) <= 0.1
    assert {quality_of(i) for i in photographs} == {None}
    assert share([coded(i, 15) for i in photographs]) >= 0.85
