"""With which concepts a class loses its lead."""

import numpy as np
import pytest

from faultlens.localize.margins import MIN_IMAGES, margin_correlations


def case(n: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    s = rng.normal(size=(n, 4))
    logits = 5 * np.eye(3)[labels] + rng.normal(0, 0.5, (n, 3))
    return labels, logits, s


def test_the_concept_that_costs_the_lead_is_negative():
    labels, logits, s = case()
    logits[labels == 1, 2] += 2 * s[labels == 1, 3]
    r = margin_correlations(logits, labels, s, 1, 2)
    assert r[3] == pytest.approx(-0.94, abs=0.04)
    assert np.abs(r[:3]).max() < 0.3


def test_it_is_the_correlation_of_numpy():
    labels, logits, s = case(seed=3)
    r = margin_correlations(logits, labels, s, 0, 1)
    rows = labels == 0
    lead = logits[rows, 0] - logits[rows, 1]
    assert r == pytest.approx([np.corrcoef(lead, c)[0, 1] for c in s[rows].T])


def test_other_classes_play_no_part():
    labels, logits, s = case()
    changed = np.where((labels == 1)[:, None], logits, 0.0)
    np.testing.assert_array_equal(
        margin_correlations(logits, labels, s, 1, 2), margin_correlations(changed, labels, s, 1, 2)
    )


def test_few_images_and_constant_values_say_nothing():
    labels, logits, s = case(n=3 * MIN_IMAGES - 3)
    assert margin_correlations(logits, labels, s, 1, 2).tolist() == [0.0] * 4
    labels, logits, s = case()
    s[:, 2] = 1.0
    assert margin_correlations(logits, labels, s, 1, 2)[2] == 0
