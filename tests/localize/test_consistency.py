"""Consistency: how heatmaps change under changes that keep the label."""

import numpy as np
import pytest

from faultlens.errors import ShapeError
from faultlens.heatmaps import single
from faultlens.localize.consistency import (
    Consistency,
    by_class,
    inconsistency,
    training_weights,
)


def test_inconsistency_is_one_minus_the_agreement_of_the_cells():
    rng = np.random.default_rng(0)
    own, views = rng.normal(size=(6, 5)), rng.normal(size=(3, 6, 5))
    expected = np.zeros(6)
    for i in range(6):
        for view in views:
            same = single(own[i]) == single(view[i])
            expected[i] += (1 - same[~np.eye(5, dtype=bool)].mean()) / 3
    assert inconsistency(own, views) == pytest.approx(expected)


def test_a_common_shift_of_all_strengths_changes_nothing_and_a_reversal_everything():
    own = np.random.default_rng(1).normal(size=(4, 6))
    assert (inconsistency(own, own[None] + 3.0) == 0).all()
    assert (inconsistency(own, -own[None]) == 1).all()


def test_mistakes_are_told():
    own = np.zeros((4, 3))
    with pytest.raises(ShapeError, match=r"views must be \(changes, 4, 3\), got \(2, 5, 3\)"):
        inconsistency(own, np.zeros((2, 5, 3)))
    with pytest.raises(ShapeError, match="at least 2 concepts, got 1"):
        inconsistency(own[:, :1], np.zeros((2, 4, 1)))


def test_weights_ask_for_all_three():
    excess = np.array([0.4, 0.4, 0.1, 0.3])
    wrong = np.array([1.0, 0.0, 1.0, 1.0])
    right = np.array([True, True, True, False])
    weights = training_weights(excess, wrong, right)
    assert weights[0] > weights[2] > 0
    assert weights[1] == weights[3] == 0
    assert weights.max() <= 1


def found(model: np.ndarray, vlm: np.ndarray) -> Consistency:
    none = np.zeros(len(model))
    return Consistency(np.arange(len(model)), model, vlm, none, none)


def test_a_class_that_loses_more_than_its_pictures_stands_out():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 25)
    vlm = 0.1 + 0.05 * (labels == 3) + rng.normal(0, 0.01, 100)
    model = vlm + 0.04 * (labels == 1) + rng.normal(0, 0.01, 100)
    compared = by_class(found(model, vlm), labels)
    first = compared[0]
    assert first.k == 1
    assert first.difference == pytest.approx(0.04, abs=0.01)
    assert first.interval[0] < first.difference < first.interval[1]
    assert first.p_value < 1e-4
    # Class 3 loses much, but so do its pictures.
    assert next(c for c in compared if c.k == 3).p_value > 0.05


def test_noise_alone_seldom_makes_a_class_stand_out():
    labels = np.repeat(np.arange(10), 25)
    n_false = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(0.1, 0.03, (2, 250))
        n_false += any(c.p_value <= 0.05 for c in by_class(found(*noise), labels))
    assert n_false <= 7


def test_too_few_images_or_classes_give_nothing():
    x = np.linspace(0, 1, 18)
    assert by_class(found(x, x), np.repeat([0, 1], 9)) == []
    assert by_class(found(x, x), np.zeros(18, int)) == []


def test_no_spread_is_no_difference():
    x = np.full(40, 0.1)
    assert {c.p_value for c in by_class(found(x, x), np.repeat([0, 1], 20))} == {1.0}
