"""Subclasses: planted ones are found and named, and what only looks like one is not."""

import numpy as np
import pytest

from faultlens.localize.subclasses import subclasses

K, C, N = 5, 8, 3000


def world(seed: int, n: int = N, share: float = 0.3):
    """Labels, which concepts are there (independent of the label), and noisy strengths."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    there = rng.random((n, C)) < share
    return labels, there, there + rng.normal(0, 0.12, (n, C))


def with_errors(labels: np.ndarray, rate: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < rate
    return np.where(wrong, (labels + rng.integers(1, K, len(labels))) % K, labels)


def call(predictions, part, answer, rate, seed=0) -> np.ndarray:
    """Call a share of a part's images something."""
    hit = np.random.default_rng([seed, 9]).random(len(part)) < rate
    return np.where(part & hit, answer, predictions)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("is_with", [True, False])
def test_a_planted_subclass_is_found_and_named(rate, is_with):
    labels, there, strengths = world(1)
    part = (labels == 2) & (there[:, 4] == is_with)
    predictions = call(with_errors(labels, 0.03, 1), part, 0, rate)
    (found,) = subclasses(strengths, labels, predictions, K)
    assert (found.k, found.concepts, found.presence, found.called) == (2, (4,), (is_with,), 0)
    assert (found.group == part).mean() > 0.995
    assert found.share.value == pytest.approx(rate, abs=0.08)
    assert found.share.interval[0] < found.share.value < found.share.interval[1]
    assert found.rest.value < 0.08
    assert found.gap[0] > 0.1
    assert not found.is_cue
    assert abs(found.drawn.value) < 0.02


def test_what_few_images_show_strongly_is_cut_off():
    """Like colours: a tenth has it, a third something like it; one cut would take both."""
    labels, _, strengths = world(2)
    rng = np.random.default_rng(2)
    red, orange = rng.random(N) < 0.1, rng.random(N) < 0.35
    strengths[:, 3] = np.where(red, 1.0, np.where(orange, 0.55, 0.0)) + rng.normal(0, 0.06, N)
    predictions = call(labels, (labels == 1) & red, 4, 0.9)
    (found,) = subclasses(strengths, labels, predictions, K)
    assert (found.concepts, found.presence) == ((3,), (True,))
    assert (found.group == ((labels == 1) & red)).mean() > 0.995


def test_a_second_concept_narrows_a_part_down():
    labels, there, strengths = world(3, share=0.5)
    part = (labels == 3) & there[:, 0] & ~there[:, 5]
    (found,) = subclasses(strengths, labels, call(labels, part, 1, 0.9), K)
    assert dict(zip(found.concepts, found.presence, strict=True)) == {0: True, 5: False}
    assert (found.group == part).mean() > 0.995


def test_two_parts_of_one_class_are_both_found_and_compared_with_what_is_sound():
    labels, there, strengths = world(4)
    predictions = call(labels, (labels == 2) & there[:, 1], 0, 0.9, seed=1)
    predictions = call(predictions, (labels == 2) & there[:, 6], 4, 0.6, seed=2)
    found = subclasses(strengths, labels, predictions, K)
    assert {g.concepts[0] for g in found} >= {1, 6}
    assert found[0].concepts == (1,)
    assert found[1].rest.value < 0.1
    assert not (found[0].group & found[1].group).any()


def test_other_classes_that_follow_too_make_it_a_cue():
    labels, there, strengths = world(5)
    predictions = call(labels, there[:, 2], 3, 0.7)
    found = subclasses(strengths, labels, predictions, K)
    assert {g.k for g in found} == {0, 1, 2, 4}
    assert all(g.is_cue and g.concepts == (2,) and g.called == 3 for g in found)
    assert all(g.drawn.interval[0] < 0.7 < g.drawn.interval[1] for g in found)


def test_a_concept_that_no_other_class_shows_draws_nobody():
    labels, there, _ = world(6)
    there[:, 2] &= labels == 1
    strengths = there + np.random.default_rng(6).normal(0, 0.1, there.shape)
    (found,) = subclasses(strengths, labels, call(labels, there[:, 2], 0, 0.8), K)
    assert np.isnan(found.drawn.value)
    assert not found.is_cue


def test_errors_by_chance_have_no_subclass():
    n_false = 0
    for seed in range(40):
        labels, _, strengths = world(100 + seed, 600)
        rng = np.random.default_rng(seed)
        hard = rng.random(len(labels)) < rng.uniform(0, 0.5, K)[labels]
        predictions = np.where(hard, (labels + 1) % K, labels)
        n_false += bool(subclasses(strengths, labels, predictions, K))
    assert n_false <= 2


def test_a_class_that_always_fails_has_no_part():
    labels, _, strengths = world(7)
    assert subclasses(strengths, labels, np.where(labels == 2, 0, labels), K) == []
    assert subclasses(strengths[:, :0], labels, labels, K) == []


def test_a_small_difference_is_not_told():
    labels, there, strengths = world(8, 10_000)
    predictions = call(labels, (labels == 2) & there[:, 4], 0, 0.08)
    assert subclasses(strengths, labels, predictions, K) == []


def test_the_order_of_images_does_not_matter():
    labels, there, strengths = world(9)
    predictions = call(labels, (labels == 0) & there[:, 7], 1, 0.5)
    order = np.random.default_rng(0).permutation(N)
    (a,) = subclasses(strengths, labels, predictions, K)
    (b,) = subclasses(strengths[order], labels[order], predictions[order], K)
    assert (a.group[order] == b.group).all()
    assert a.p_value == pytest.approx(b.p_value)
    assert a.drawn.value == pytest.approx(b.drawn.value)
