"""Judging trials of other inputs, from arrays alone."""

import numpy as np
import pytest

from faultlens.data.preprocess import Preprocessing
from faultlens.localize.inputs import (
    InputStatistics,
    InputTrial,
    as_good,
    best,
    decidedness,
    gain_of,
)

PLAIN = Preprocessing(resize=None, mean=(0,) * 3, std=(1,) * 3)
LABELS = np.zeros(200, int)


def trial(n_right, name="other", n=200, decided=(2.0, 1.0), n_now=100):
    """The first n_right of n images are right; the first n_now were before."""
    predictions = np.where(np.arange(n) < n_right, 0, 1)
    gain = gain_of(predictions == LABELS[:n], np.arange(n) < n_now)
    return InputTrial(name, PLAIN, np.arange(n), predictions, gain, decided)


def test_a_gain_counts_both_sides():
    gain = gain_of(np.array([True, True, False, False]), np.array([True, False, True, False]))
    assert (gain.gained, gain.lost, gain.n, gain.gain, gain.share) == (1, 1, 4, 0.0, 0.0)
    assert not gain.is_significant


@pytest.mark.parametrize(
    ("now", "then", "is_fault"),
    [
        (100, 100, False),
        (100, 104, False),
        (100, 140, True),
        (100, 200, True),
        (182, 194, True),  # few errors, most of them repaired
        (20, 44, True),  # a large gain, although most errors stay
        (20, 34, False),
    ],
)
def test_a_third_of_the_errors_or_a_large_gain_is_a_fault(now, then, is_fault):
    assert trial(then, n_now=now).is_fault is is_fault


def test_without_errors_there_is_no_gain():
    everything = np.ones(50, bool)
    gain = gain_of(everything, everything)
    assert np.isnan(gain.share)
    assert not gain.is_fault


def test_a_network_less_decided_is_not_fed_better():
    """A cue hidden by other colours: more is right, but the network is not at home."""
    hidden = trial(190, decided=(1.7, 1.9))
    assert hidden.gain.is_fault
    assert not hidden.is_fault
    assert best([hidden], LABELS, np.arange(200) < 100, 1.9) is None


def test_the_best_gains_most_and_the_most_decided_of_equals_wins():
    present = np.arange(200) < 100
    trials = [
        trial(150, "a", decided=(9.0, 1.0)),
        trial(180, "b"),
        trial(178, "c", decided=(2.1, 1.0)),
        trial(64, "d", n=64, decided=(9.0, 1.0)),
    ]
    assert best(trials, LABELS, present, 1.0).name == "c"
    assert best(trials[:2], LABELS, present, 1.0).name == "b"
    assert best([trial(102)], LABELS, present, 1.0) is None
    assert best([trial(64, n=64)], LABELS, present, 1.0) is None
    assert best([], LABELS, present, 1.0) is None


def test_others_as_good_are_named():
    chosen = trial(180, "chosen")
    others = [trial(178, "close"), trial(140, "worse"), trial(60, "early", n=64)]
    assert as_good([chosen, *others], chosen, LABELS) == ["close"]


def test_large_numbers_and_constant_answers_are_not_decided():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 5))
    sure = noise + 8 * np.eye(5)[rng.integers(0, 5, 500)]
    constant = noise + np.array([1000.0, 0, 0, 0, 0])
    assert decidedness(sure) > 1.5 * decidedness(noise)
    assert decidedness(1000 * noise) == pytest.approx(decidedness(noise))
    assert decidedness(constant) == pytest.approx(decidedness(noise))


@pytest.mark.parametrize(
    ("mean", "std", "is_far"),
    [(0, 1, False), (0.5, 0.25, False), (-2, 2, False), (110, 60, True), (0, 0.001, True)],
)
def test_inputs_far_from_usual_are_known(mean, std, is_far):
    assert InputStatistics((0.0, float(mean)), (1.0, float(std))).is_far is is_far
