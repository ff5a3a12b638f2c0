import numpy as np
import pytest

from faultlens.errors import ShapeError, StoreError
from faultlens.monitor.reasons import Expected

CONCEPTS, CLASSES = ("wheels", "fur", "water", "beak"), ("truck", "cat", "rare")


@pytest.fixture
def expected():
    """Trucks: wheels > beak > water > fur always, but 5 % have water above beak. Cats: fur."""
    rng = np.random.default_rng(0)
    trucks = np.array([4.0, 1, 2, 3]) + rng.uniform(-0.3, 0.3, (100, 4))
    trucks[:5, 2] = 3.5
    cats = np.array([1.0, 4, 1.5, 2]) + rng.uniform(-1, 1, (50, 4))
    rare = np.array([[4.0, 1, 2, 3]] * 9)
    strengths = np.concatenate([trucks, cats, rare])
    labels = np.repeat([0, 1, 2], [100, 50, 9])
    return Expected.of(strengths, labels, labels, CONCEPTS, CLASSES)


def test_an_image_as_usual_is_not_contradicted(expected):
    assert expected.reasons(np.array([4.0, 1, 2, 3]), 0) == ()


def test_contradicting_pairs_come_strongest_first_and_name_each_concept_once(expected):
    found = expected.reasons(np.array([1.0, 4, 2.5, 2]), 0)
    assert [(r.stronger, r.weaker) for r in found] == [("fur", "wheels"), ("water", "beak")]
    assert [r.rate for r in found] == [1.0, 0.95]
    assert found[0].n == 100
    assert found[0].gap == 3.0
    assert found[1].told == (
        "water above beak: in 95 % of 100 correct images called truck it is below"
    )


def test_only_reliable_cells_speak(expected):
    # In cats, water and beak come in either order.
    rate = expected.wins[1, 3, 2] / 50
    assert 0.1 < rate < 0.9
    assert expected.reasons(np.array([1.0, 4, 3, 2]), 1) == ()


def test_a_class_with_few_images_gives_no_reason(expected):
    assert expected.reasons(np.array([1.0, 4, 2.5, 2]), 2) == ()


def test_wrong_images_do_not_blur_a_class_unless_it_has_no_correct_ones():
    strengths = np.repeat([[4.0, 1, 2, 3], [1.0, 4, 2, 3]], [20, 20], axis=0)
    labels, image = np.zeros(40, int), np.array([1.0, 4, 3, 2])
    half = Expected.of(strengths, labels, np.repeat([0, 1], [20, 20]), CONCEPTS, CLASSES)
    assert half.reasons(image, 0)[0].n == 20
    none = Expected.of(strengths[:20], labels[:20], np.ones(20, int), CONCEPTS, CLASSES)
    first = none.reasons(image, 0)[0]
    assert first.told == "fur above wheels: in 100 % of 20 images labelled truck it is below"


def test_the_state_gives_the_same_reasons(expected):
    again = Expected.restore(expected.state(), CONCEPTS, CLASSES)
    image = np.array([1.0, 4, 2.5, 2])
    assert again.reasons(image, 0) == expected.reasons(image, 0)
    with pytest.raises(StoreError, match="2 classes and 4 concepts"):
        Expected.restore(expected.state(), CONCEPTS, CLASSES[:2])


def test_names_must_match():
    with pytest.raises(ShapeError, match="concepts must have one name a strength, got 4 for 2"):
        Expected.of(np.zeros((3, 2)), np.zeros(3, int), np.zeros(3, int), CONCEPTS, CLASSES)
