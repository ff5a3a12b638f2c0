import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from faultlens.errors import InputError, InsufficientDataError, ShapeError
from faultlens.monitor.conformal import Calibration, p_values, threshold

scores_lists = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=60)


@given(scores_lists, scores_lists, st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 0.9]))
def test_a_score_is_above_the_threshold_exactly_where_its_p_value_is_small(cal, new, alpha):
    cal, new = np.sort(np.array(cal)), np.array(new)
    assert ((new > threshold(cal, alpha)) == (p_values(cal, new) <= alpha + 1e-12)).all()


@given(scores_lists, scores_lists)
def test_p_values_equal_their_definition(cal, new):
    cal, new = np.sort(np.array(cal)), np.array(new)
    slow = [(1 + sum(c >= s for c in cal)) / (len(cal) + 1) for s in new]
    np.testing.assert_allclose(p_values(cal, new), slow)


@pytest.mark.parametrize("n", [19, 99, 199, 399])
def test_the_threshold_is_the_finite_sample_quantile(n):
    scores = np.random.default_rng(n).permutation(n).astype(float) + 1
    # (n + 1) * 0.95 is whole for these n.
    assert threshold(scores, 0.05) == round((n + 1) * 0.95)


def test_too_few_scores_have_no_threshold():
    assert threshold(np.arange(18.0), 0.05) == math.inf
    with pytest.raises(InsufficientDataError, match="at least 19 correct predictions, got 18"):
        Calibration.of(np.arange(18.0), np.zeros(18, int), 1, alpha=0.05)


def test_the_realised_rate_is_within_binomial_error_over_20_splits():
    rng = np.random.default_rng(0)
    n_cal, n_new, alpha, rejected = 1000, 4000, 0.05, []
    for _ in range(20):
        cal, new = rng.lognormal(size=n_cal), rng.lognormal(size=n_new)
        found = Calibration.of(cal, np.zeros(n_cal, int), 1, alpha=alpha)
        rejected.append(found.rejects(new, np.zeros(n_new, int)).sum())
    # Given the calibration set the rate is beta distributed, so counts are beta-binomial.
    k = math.floor((n_cal + 1) * alpha)
    exact = sps.betabinom(n_new, k, n_cal + 1 - k)
    assert abs(np.mean(rejected) - exact.mean()) < 4 * exact.std() / np.sqrt(20)
    inside = [exact.ppf(0.005) <= r <= exact.ppf(0.995) for r in rejected]
    assert sum(inside) >= 18


def test_per_class_thresholds_hold_the_rate_in_every_class():
    rng = np.random.default_rng(1)

    def draw(n):
        k = rng.integers(0, 3, n)
        return rng.normal(size=n) * (1 + k) + 5 * k, k

    cal, new = draw(9000), draw(60_000)
    common = Calibration.of(*cal, 3, alpha=0.1)
    own = Calibration.of(*cal, 3, alpha=0.1, per_class=True)
    rates = [own.rejects(*new)[new[1] == k].mean() for k in range(3)]
    assert np.abs(np.array(rates) - 0.1).max() < 0.02
    assert common.rejects(*new)[new[1] == 2].mean() > 0.25
    assert abs(common.rejects(*new).mean() - 0.1) < 0.01
    assert ((own.p_values(*new) <= 0.1) == own.rejects(*new)).all()
    assert own.pooled == ()


def test_a_small_class_falls_back_to_the_common_threshold_and_is_named():
    scores = np.r_[np.arange(200.0), 1000 + np.arange(20.0)]
    k = np.repeat([0, 1], [200, 20])
    found = Calibration.of(scores, k, 3, alpha=0.05, per_class=True)
    assert found.pooled == (1, 2)
    assert found.thresholds[1] == found.thresholds[2] == threshold(scores, 0.05)
    assert found.thresholds[0] == threshold(scores[:200], 0.05)
    assert found.p_values(np.array([150.0, 150.0]), np.array([0, 1])) == pytest.approx(
        [51 / 201, 71 / 221]
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_alpha_must_be_a_rate(alpha):
    with pytest.raises(InputError, match=r"alpha must be in \(0, 1\), got"):
        Calibration.of(np.arange(100.0), np.zeros(100, int), 1, alpha=alpha)


def test_lengths_must_match():
    with pytest.raises(ShapeError, match="predictions must have one entry a score, got 3 for 100"):
        Calibration.of(np.arange(100.0), np.zeros(3, int), 1)
