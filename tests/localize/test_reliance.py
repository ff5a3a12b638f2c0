"""Reliance: logits that lean on a concept, apart from what classes differ in."""

import numpy as np
import pytest

from faultlens.localize.reliance import reliances

K, C, N = 5, 6, 2000


def world(seed: int):
    """Labels, presence of concepts independent of the label, and logits of a sound network."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, N)
    presence = rng.random((N, C)) < 0.3
    logits = 6.0 * np.eye(K)[labels] + rng.normal(0, 1.5, (N, K))
    return labels, presence, logits


NONE = np.zeros((K, C), bool)


@pytest.mark.parametrize("push", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_cue_is_found(push, seed):
    labels, presence, logits = world(seed)
    logits[:, 3] += push * presence[:, 2]
    found = reliances(presence, labels, logits, NONE)
    assert [(r.concept, r.k) for r in found] == [(2, 3)]
    assert found[0].effect == min(found[0].attracted, found[0].own) > 0.35


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_network_leans_on_nothing(seed):
    labels, presence, logits = world(seed)
    assert reliances(presence, labels, logits, NONE) == []


def test_classes_that_show_a_concept_more_often_do_not_count():
    labels, presence, logits = world(1)
    rng = np.random.default_rng(0)
    presence[:, 4] = rng.random(N) < np.where(labels == 2, 0.45, 0.3)
    assert reliances(presence, labels, logits, NONE) == []


def test_one_side_alone_is_no_cue():
    labels, presence, logits = world(2)
    logits[:, 3] += 5 * (presence[:, 2] & (labels != 3))
    assert reliances(presence, labels, logits, NONE) == []


def test_a_property_of_the_class_is_left_out():
    labels, presence, logits = world(3)
    logits[:, 3] += 4 * presence[:, 2]
    relevant = NONE.copy()
    relevant[3, 2] = True
    assert reliances(presence, labels, logits, relevant) == []
    rng = np.random.default_rng(0)
    presence[:, 2] = rng.random(N) < np.where(labels == 3, 0.8, 0.2)
    logits[:, 3] += 4 * presence[:, 2]
    assert reliances(presence, labels, logits, NONE) == []


def test_swapped_rows_are_no_cue():
    """Class 3 answers for class 1, and so for what images of class 1 show."""
    labels, presence, logits = world(6)
    rng = np.random.default_rng(0)
    presence[:, 2] = rng.random(N) < np.where(labels == 1, 0.8, 0.1)
    logits[:, 1] += 3 * presence[:, 2]
    swapped = logits.copy()
    swapped[:, [1, 3]] = logits[:, [3, 1]]
    assert reliances(presence, labels, swapped, NONE) == []


def test_two_cues_are_both_found():
    labels, presence, logits = world(4)
    logits[:, 3] += 4 * presence[:, 2]
    logits[:, 0] += 4 * presence[:, 5]
    found = {(r.concept, r.k) for r in reliances(presence, labels, logits, NONE)}
    assert found == {(2, 3), (5, 0)}


def test_equal_logits_are_no_mistake():
    labels, presence, logits = world(5)
    assert reliances(presence, labels, np.zeros_like(logits), NONE) == []
