from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from faultlens.data.world.names import ATTRIBUTES, BACKGROUNDS, CLASSES, COLORS, FREQUENCIES
from faultlens.data.world.render import MIN_PIXELS, render
from faultlens.data.world.scene import Recipe, draw, scenes

#: Nothing before or over the object, no tint.
BARE = Recipe(lights=("neutral",), occluded=0.0, marked=0.0)
PAIRS = [(label, a) for label in CLASSES for a in FREQUENCIES[label]]


def bare(label, seed):
    return draw(np.random.default_rng([seed, CLASSES.index(label)]), BARE, label=label)


def with_and_without(label, attribute, seed):
    """One scene with an attribute and the same without it."""
    scene = bare(label, seed)
    related = {"floppy-ears"} if attribute == "ears" else set()
    needed = {"ears"} if attribute == "floppy-ears" else set()
    others = (scene.attributes - {attribute} - related) | needed
    return replace(scene, attributes=others | {attribute}), replace(scene, attributes=others)


def test_the_same_scene_gives_the_same_picture():
    for scene in scenes(10, seed=1):
        a, b = render(scene), render(replace(scene))
        np.testing.assert_array_equal(a.pixels, b.pixels)
        np.testing.assert_array_equal(a.masks, b.masks)
        assert not np.array_equal(a.pixels, render(replace(scene, seed=scene.seed + 1)).pixels)


def test_attributes_are_those_with_enough_pixels():
    for scene in scenes(60, seed=2):
        picture = render(scene)
        area = picture.masks.sum(axis=(1, 2))
        np.testing.assert_array_equal(picture.attributes, area >= MIN_PIXELS)
        for attribute, pixels in zip(ATTRIBUTES, area, strict=True):
            if attribute not in scene.attributes:
                assert pixels == 0, (scene.label, attribute)


@pytest.mark.parametrize(("label", "attribute"), PAIRS)
def test_an_attribute_is_visible_and_changes_the_picture(label, attribute):
    k = ATTRIBUTES.index(attribute)
    visible = 0
    for seed in range(5):
        shown, hidden = (render(s) for s in with_and_without(label, attribute, seed))
        visible += bool(shown.attributes[k])
        assert not hidden.masks[k].any()
        assert (shown.pixels != hidden.pixels).any(axis=-1).sum() >= MIN_PIXELS
    assert visible >= 4, f"{visible} of 5"


@pytest.mark.parametrize("label", CLASSES)
def test_another_background_is_seen_around_the_same_object(label):
    scene = bare(label, 0)
    scene = replace(scene, attributes=scene.attributes | {"patterned"}, background="sky")
    before = render(scene)
    inside = binary_erosion(before.masks.any(axis=0), np.ones((3, 3)))
    assert inside.any()
    for background in set(BACKGROUNDS) - {"sky"}:
        after = render(replace(scene, background=background))
        np.testing.assert_array_equal(after.masks, before.masks)
        is_changed = (after.pixels != before.pixels).any(axis=-1)
        assert is_changed[inside].mean() <= 0.05  # lines thinner than a pixel let it through
        assert is_changed[:3].mean() > 0.5


@pytest.mark.parametrize("scene", list(scenes(8, 3, BARE)), ids=lambda s: s.label)
def test_each_other_nuisance_changes_only_what_it_says(scene):
    before = render(scene)

    def same_object(**change):
        after = render(replace(scene, **change))
        np.testing.assert_array_equal(after.masks, before.masks)
        return after.pixels.astype(int) - before.pixels

    assert same_object(light="dark").mean() < -20
    assert same_object(light="bright").mean() > 10
    warm, cold = same_object(light="warm"), same_object(light="cold")
    assert warm[..., 0].mean() > 0 > warm[..., 2].mean()
    assert cold[..., 0].mean() < 0 < cold[..., 2].mean()
    rows, columns = np.nonzero(same_object(watermark=True).any(axis=-1))
    assert 0 < np.ptp(rows) < 48
    assert 0 < np.ptp(columns) < 48
    for color in set(COLORS) - {scene.color}:
        after = render(replace(scene, color=color))
        assert (after.masks != before.masks).mean() < 0.001  # what stands out from it may differ
        assert (after.pixels != before.pixels).any(axis=-1).sum() > 100


@pytest.mark.parametrize("occluder", ["pole", "leaves"])
def test_an_occluder_takes_from_the_masks_and_adds_nothing(occluder):
    areas = []
    for scene in scenes(40, 4, BARE):
        before, after = render(scene), render(replace(scene, occluder=occluder))
        assert not (after.masks & ~before.masks).any()
        assert (after.pixels != before.pixels).any()
        areas.append((before.masks.sum(), after.masks.sum()))
    before, after = np.array(areas).T
    assert 0.6 * before.sum() < after.sum() < before.sum()


def test_a_mirrored_object_looks_the_other_way():
    scene = replace(bare("truck", 0), angle=0.0, shift=(0.0, 0.0), is_mirrored=False)
    scene = replace(scene, attributes=scene.attributes | {"text"})
    columns = [
        np.nonzero(render(replace(scene, is_mirrored=m)).masks[ATTRIBUTES.index("text")])[1].mean()
        for m in (False, True)
    ]
    assert abs(sum(columns) - 63) < 2


def test_size_scales_the_object():
    scene = replace(bare("cat", 1), angle=0.0, shift=(0.0, 0.0))
    scene = replace(scene, attributes=frozenset({"patterned", "ears"}))
    small, large = (render(replace(scene, size=s)).masks.any(axis=0).sum() for s in (0.6, 0.9))
    assert large / small == pytest.approx(2.25, rel=0.15)
