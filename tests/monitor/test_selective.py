import math

import numpy as np
import pytest
from scipy import stats as sps

from faultlens.errors import InputError, ShapeError
from faultlens.monitor.selective import select


def draw(rng, n):
    """Scores whose errors grow from 0 to 60 %: among those below t the rate is 0.3 t."""
    s = rng.uniform(size=n)
    return s, rng.uniform(size=n) < 0.6 * s


def test_the_limit_holds_on_fresh_images_with_the_stated_confidence():
    rng = np.random.default_rng(0)
    found = [select(*draw(rng, 2000), max_error=0.1, delta=0.1) for _ in range(200)]
    # The true error rate below t is 0.3 t, so the limit is broken where t > 1/3.
    n_broken = sum(f.threshold > 1 / 3 for f in found)
    assert n_broken <= sps.binom.ppf(0.999, 200, 0.1)
    assert 0.2 < np.mean([f.coverage for f in found]) < 1 / 3


def test_the_bound_is_exact_and_below_the_limit():
    rng = np.random.default_rng(1)
    scores, wrong = draw(rng, 3000)
    found = select(scores, wrong, max_error=0.12, delta=0.05)
    accepted = found.accepts(scores)
    k, n = int((wrong & accepted).sum()), int(accepted.sum())
    assert found.coverage == n / 3000
    assert found.error_rate == k / n
    assert found.bound == pytest.approx(sps.beta.ppf(1 - 0.05 / 5, k + 1, n - k))
    assert found.bound <= 0.12


def test_more_errors_allowed_accept_more():
    scores, wrong = draw(np.random.default_rng(2), 3000)
    covered = [select(scores, wrong, r).coverage for r in (0.05, 0.1, 0.2, 0.5)]
    assert covered == sorted(covered)
    assert covered[-1] > 0.99


def test_nothing_is_accepted_where_the_limit_cannot_be_held():
    found = select(np.arange(50.0), np.ones(50, bool), max_error=0.01)
    assert (found.threshold, found.coverage) == (-math.inf, 0.0)
    assert math.isnan(found.error_rate)
    assert not found.accepts(np.arange(50.0)).any()


def test_equal_scores_are_accepted_together_or_not_at_all():
    scores, wrong = np.repeat([0.0, 1.0], 500), np.repeat([False, True], 500)
    found = select(scores, wrong, max_error=0.05)
    assert (found.threshold, found.coverage, found.error_rate) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize(("max_error", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 2.0)])
def test_rates_must_be_rates(max_error, delta):
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        select(np.arange(5.0), np.zeros(5, bool), max_error, delta)


def test_lengths_must_match():
    with pytest.raises(ShapeError, match="wrong must have one entry a score, got 2 for 3"):
        select(np.zeros(3), np.zeros(2, bool), 0.1)
