"""Cues: planted ones are found, and what only looks like one is not."""

import numpy as np
import pytest

from faultlens.localize.cues import Cue, cues, present

K, C, N = 5, 6, 3000


def world(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, which concepts are there (independent of the label), and noisy strengths."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    there = rng.random((n, C)) < 0.3
    return labels, there, there + rng.normal(0, 0.12, (n, C))


def with_errors(labels: np.ndarray, rate: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < rate
    return np.where(wrong, (labels + rng.integers(1, K, len(labels))) % K, labels)


def take(labels, predictions, cue, k, share, seed=0) -> np.ndarray:
    """Let a share of the model's answers follow a cue for class k."""
    rng = np.random.default_rng([seed, k])
    follows = rng.random(len(labels)) < share
    out = np.where(follows & cue, k, predictions)
    lost = follows & ~cue & (labels == k)
    return np.where(lost, (k + 1) % K, out)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_cue_is_found(share, seed):
    labels, there, strengths = world(seed)
    predictions = take(labels, with_errors(labels, 0.05, seed), there[:, 2], 3, share)
    (found,) = cues(strengths, labels, predictions, K)
    assert (found.concept, found.k) == (2, 3)
    assert found.attracted.value == pytest.approx(share, abs=0.06)
    assert found.missed.value == pytest.approx(share, abs=0.12)
    low, high = found.attracted.interval
    assert low < found.attracted.value < high
    follows = ((predictions == 3) & there[:, 2]) | ((labels == 3) & ~there[:, 2])
    assert (found.errors == (follows & (labels != predictions))).mean() > 0.995


def test_two_cues_of_one_class_are_both_found():
    labels, there, strengths = world(1)
    predictions = take(labels, labels, there[:, 0], 1, 0.5, seed=1)
    predictions = take(labels, predictions, there[:, 4], 1, 0.5, seed=2)
    found = cues(strengths, labels, predictions, K)
    assert {(f.concept, f.k) for f in found} == {(0, 1), (4, 1)}


def test_a_concept_that_only_goes_with_the_cue_is_not_named():
    labels, there, _ = world(2)
    rng = np.random.default_rng(0)
    there[:, 3] = np.where(rng.random(N) < 0.8, there[:, 2], there[:, 3])
    strengths = there + rng.normal(0, 0.1, there.shape)
    predictions = take(labels, labels, there[:, 2], 3, 0.9)
    assert [(f.concept, f.k) for f in cues(strengths, labels, predictions, K)] == [(2, 3)]


def test_what_a_class_shows_is_no_cue_for_its_neighbour():
    """Two classes that are confused share a concept; within each label it changes nothing."""
    labels, there, _ = world(3)
    there[:, 2] = np.isin(labels, (3, 4))
    strengths = there + np.random.default_rng(0).normal(0, 0.1, there.shape)
    swapped = np.random.default_rng(1).random(N) < 0.4
    predictions = np.where(swapped & (labels == 3), 4, labels)
    predictions = np.where(swapped & (labels == 4), 3, predictions)
    assert cues(strengths, labels, predictions, K) == []


def test_exchanged_classes_have_no_cue():
    labels, _, strengths = world(4)
    predictions = np.where(labels == 0, 1, np.where(labels == 1, 0, labels))
    assert cues(strengths, labels, predictions, K) == []


def test_attraction_without_loss_is_no_cue():
    labels, there, strengths = world(5)
    predictions = with_errors(labels, 0.2, 5)
    predictions = np.where(there[:, 2] & (labels != 3), 3, predictions)
    assert cues(strengths, labels, predictions, K) == []


def test_errors_by_chance_have_no_cue():
    n_false = 0
    for seed in range(60):
        labels, _, strengths = world(100 + seed, 600)
        n_false += len(cues(strengths, labels, with_errors(labels, 0.3, seed), K))
    assert n_false <= 1


def test_too_few_errors_or_no_concept_give_nothing():
    labels, there, strengths = world(6, 100)
    predictions = take(labels, labels, there[:, 0], 1, 0.1)
    assert (labels != predictions).sum() < 20
    assert cues(strengths, labels, predictions, K) == []
    assert cues(strengths[:, :0], labels, predictions, K) == []


def test_a_cue_of_few_of_the_errors_is_not_told():
    labels, there, strengths = world(8)
    rng = np.random.default_rng(8)
    there[:, 2] = rng.random(N) < 0.1
    strengths[:, 2] = there[:, 2] + rng.normal(0, 0.1, N)
    predictions = take(labels, labels, there[:, 2], 3, 0.3)
    assert [c.concept for c in cues(strengths, labels, predictions, K)] == [2]
    # Errors around the same class, for another reason.
    lost = (rng.random(N) < 0.7) & np.isin(labels, (0, 4))
    predictions = np.where(lost, 3, predictions)
    assert cues(strengths, labels, predictions, K) == []


def test_the_order_of_images_does_not_matter():
    labels, there, strengths = world(7)
    predictions = take(labels, labels, there[:, 1], 2, 0.6)
    order = np.random.default_rng(0).permutation(N)
    (a,) = cues(strengths, labels, predictions, K)
    (b,) = cues(strengths[order], labels[order], predictions[order], K)
    assert isinstance(a, Cue)
    assert a.attracted.value == pytest.approx(b.attracted.value)
    assert (a.errors[order] == b.errors).all()


def test_presence_cuts_between_two_groups_of_any_size():
    rng = np.random.default_rng(0)
    truth = rng.random((2000, 2)) < (0.1, 0.7)
    s = truth * (0.4, 3.0) + rng.normal(0, (0.05, 0.4), truth.shape)
    assert (present(s) == truth).mean(axis=0).min() > 0.99
