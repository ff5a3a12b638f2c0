from dataclasses import replace

import numpy as np
import pytest

from faultlens.data.world.names import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLASSES,
    COLORS,
    FREQUENCIES,
    LIGHTS,
    OCCLUDERS,
)
from faultlens.data.world.scene import Recipe, draw, scenes
from faultlens.errors import InputError

N = 1000


@pytest.fixture(scope="module")
def drawn():
    """N scenes of each class."""
    return {
        label: [draw(np.random.default_rng([k, i]), label=label) for i in range(N)]
        for k, label in enumerate(CLASSES)
    }


def is_near(share, n, expected):
    """Within five standard errors of a binomial share."""
    return abs(share - expected) <= 5 * np.sqrt(max(expected * (1 - expected), 1 / n) / n)


def test_the_same_seed_gives_the_same_scenes_whatever_their_number():
    few, many = list(scenes(5, seed=3)), list(scenes(50, seed=3))
    assert few == many[:5]
    assert few != list(scenes(5, seed=4))


@pytest.mark.parametrize("label", CLASSES)
def test_a_class_shows_each_attribute_with_its_own_frequency_and_no_other(drawn, label):
    expected = dict(FREQUENCIES[label])
    if "floppy-ears" in expected:  # they are ears too
        expected["ears"] += (1 - expected["ears"]) * expected["floppy-ears"]
    for attribute in ATTRIBUTES:
        share = np.mean([attribute in s.attributes for s in drawn[label]])
        if attribute in expected:
            assert 0 < share < 1
            assert is_near(share, N, expected[attribute]), attribute
        else:
            assert share == 0, attribute


def test_nuisances_are_even_and_tell_nothing_of_the_class(drawn):
    for label in CLASSES:
        for field, names in (("background", BACKGROUNDS), ("color", tuple(COLORS))):
            for name in names:
                share = np.mean([getattr(s, field) == name for s in drawn[label]])
                assert is_near(share, N, 1 / len(names)), (label, name)
        lights = [s.light for s in drawn[label]]
        assert is_near(lights.count("neutral") / N, N, 0.5)
        for light in LIGHTS[1:]:
            assert is_near(lights.count(light) / N, N, 0.125), (label, light)
        for occluder in OCCLUDERS:
            assert is_near(np.mean([s.occluder == occluder for s in drawn[label]]), N, 0.1)
        assert is_near(np.mean([s.watermark for s in drawn[label]]), N, 0.15)
        assert is_near(np.mean([s.is_mirrored for s in drawn[label]]), N, 0.5)


def test_classes_are_even():
    labels = [s.label for s in scenes(3000, seed=0)]
    for label in CLASSES:
        assert is_near(labels.count(label) / 3000, 3000, 0.1)


def test_numbers_stay_within_the_recipe():
    recipe = Recipe(size=(0.7, 0.8), turn=0.05, shift=0.02)
    for s in scenes(300, 0, recipe):
        assert 0.7 <= s.size <= 0.8
        assert abs(s.angle) <= 0.05
        assert max(map(abs, s.shift)) <= 0.02


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"backgrounds": ("snow",)}, {"background": "snow"}),
        ({"colors": ("red",)}, {"color": "red"}),
        ({"lights": ("dark",)}, {"light": "dark"}),
        ({"lights": ("neutral",)}, {"light": "neutral"}),
        ({"occluded": 0.0}, {"occluder": None}),
        ({"marked": 0.0}, {"watermark": False}),
        ({"marked": 1.0}, {"watermark": True}),
        ({"turn": 0.0}, {"angle": 0.0}),
        ({"shift": 0.0}, {"shift": (0.0, 0.0)}),
    ],
)
def test_a_switch_of_the_recipe_changes_only_what_it_says(change, fields):
    usual, switched = scenes(30, 5), scenes(30, 5, Recipe(**change))
    for a, b in zip(usual, switched, strict=True):
        assert b == replace(a, **fields)


def test_a_given_background_changes_nothing_else():
    usual = draw(np.random.default_rng(1), label="cat")
    given = draw(np.random.default_rng(1), label="cat", background="snow")
    assert given == replace(usual, background="snow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backgrounds": ("snwo",)}, "backgrounds must be known names, got 'snwo'; did you mean"),
        ({"classes": ("dogs",)}, "did you mean 'dog'"),
        ({"lights": ()}, "lights must name at least one, got none; leave it out for all"),
        ({"colors": ("rde",)}, "did you mean 'red'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(change, message):
    with pytest.raises(InputError, match=message):
        Recipe(**change)
    with pytest.raises(InputError, match="did you mean 'bird'"):
        draw(np.random.default_rng(0), label="brid")
