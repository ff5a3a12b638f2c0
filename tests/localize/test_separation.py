import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.localize.separation import separation


def slow(strengths, is_wrong, labels):
    """Mean over classes of the share of (wrong, right) pairs in order, by pairs."""
    total, weight = 0.0, 0.0
    for k in set(labels):
        wrong = [s for s, w, y in zip(strengths, is_wrong, labels, strict=True) if w and y == k]
        right = [s for s, w, y in zip(strengths, is_wrong, labels, strict=True) if not w and y == k]
        if wrong and right:
            pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in wrong for b in right]
            w = len(pairs) / (len(wrong) + len(right) + 1)
            total, weight = total + w * sum(pairs) / len(pairs), weight + w
    return total / weight if weight else float("nan")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_counting_pairs(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 40))
    s, labels = rng.integers(0, 5, n) / 4, rng.integers(0, 3, n)
    wrong = rng.random(n) < 0.4
    found = separation(s[:, None], wrong, labels)
    assert found.auroc[0] == pytest.approx(slow(s, wrong, labels), nan_ok=True)
    turned = separation(-s[:, None], wrong, labels)
    assert turned.auroc[0] == pytest.approx(1 - found.auroc[0], nan_ok=True)


def draws(rng, shift):
    """Three classes of unlike strength and unlike share of errors; wrong ones stronger by shift."""
    labels = np.repeat([0, 1, 2], (80, 60, 40))
    wrong = rng.random(180) < np.array([0.1, 0.3, 0.6])[labels]
    s = rng.normal(size=(180, 50)) + 2.0 * labels[:, None] + shift * wrong[:, None]
    return s, wrong, labels


def test_a_word_that_only_tells_hard_classes_from_easy_ones_separates_nothing():
    rng = np.random.default_rng(0)
    p = np.concatenate([separation(*draws(rng, 0.0)).p_value for _ in range(20)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_intervals_cover_the_true_area():
    rng = np.random.default_rng(1)
    true = 0.7602  # of normals one standard deviation apart, 1/sqrt(2) through the normal's curve
    found = [separation(*draws(rng, 1.0)) for _ in range(20)]
    covered = np.concatenate([(f.low <= true) & (true <= f.high) for f in found])
    assert covered.mean() >= 0.93
    assert np.mean([f.high - f.low for f in found]) < 0.25


def test_nothing_to_compare_is_told():
    found = separation(np.ones((3, 2)), np.array([True, False, False]), np.array([0, 1, 1]))
    assert np.isnan(found.auroc).all()
    assert (found.n_wrong, found.n_right) == (0, 0)
