import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

import oracles
from faultlens import stats

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_is_ordered_contains_the_rate_and_mirrors(case):
    s, n = case
    low, high = stats.wilson(s, n)
    assert 0 <= low <= s / n <= high <= 1
    mirrored_low, mirrored_high = stats.wilson(n - s, n)
    assert np.isclose(low, 1 - mirrored_high)
    assert np.isclose(high, 1 - mirrored_low)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_wilson_covers_at_its_rate(p):
    rng = np.random.default_rng(0)
    s = rng.binomial(50, p, 20_000)
    low, high = stats.wilson(s, 50)
    assert 0.92 < ((low <= p) & (p <= high)).mean() < 0.985


@pytest.mark.parametrize(("p1", "p2"), [(0.1, 0.1), (0.5, 0.3), (0.9, 0.2)])
def test_newcombe_covers_at_its_rate(p1, p2):
    rng = np.random.default_rng(1)
    s1, s2 = rng.binomial(40, p1, 20_000), rng.binomial(25, p2, 20_000)
    low, high = stats.newcombe(s1, 40, s2, 25)
    assert 0.92 < ((low <= p1 - p2) & (p1 - p2 <= high)).mean() < 0.985


@given(counts, counts)
def test_fisher_equals_enumeration(first, second):
    expected = oracles.fisher(*first, *second)
    assert np.isclose(stats.fisher_exact(*first, *second), expected, atol=1e-9)


def test_fisher_works_on_matrices_with_repeated_tables():
    s = np.array([[3, 3], [0, 9]])
    p = stats.fisher_exact(s, 10, 5, 12)
    assert p.shape == (2, 2)
    assert p[0, 0] == p[0, 1]
    assert np.isclose(p[1, 0], oracles.fisher(0, 10, 5, 12))


def test_fisher_keeps_its_level_under_the_null():
    rng = np.random.default_rng(2)
    s1, s2 = rng.binomial(30, 0.4, 20_000), rng.binomial(20, 0.4, 20_000)
    assert (stats.fisher_exact(s1, 30, s2, 20) <= 0.05).mean() <= 0.05


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_tail(gained, lost):
    n = gained + lost
    expected = sum(sps.binom.pmf(k, n, 0.5) for k in range(gained, n + 1)) if n else 1.0
    assert np.isclose(stats.mcnemar_exact(gained, lost), expected)


def test_paired_gain_covers_at_its_rate():
    rng = np.random.default_rng(3)
    draws = rng.multinomial(200, [0.12, 0.05, 0.83], size=10_000)
    intervals = [stats.paired_gain(int(g), int(lost), 200)[1:] for g, lost, _ in draws]
    inside = np.mean([low <= 0.07 <= high for low, high in intervals])
    assert 0.93 < inside < 0.97


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_larger_and_keep_the_order(p):
    p = np.array(p)
    order = np.argsort(p, kind="stable")
    for adjust in (stats.holm, stats.benjamini_hochberg):
        q = adjust(p)
        assert (q >= p - 1e-12).all()
        assert (q <= 1).all()
        assert (np.diff(q[order]) >= -1e-12).all()
    assert (stats.holm(p) >= stats.benjamini_hochberg(p) - 1e-12).all()


def test_benjamini_hochberg_ignores_nan():
    q = stats.benjamini_hochberg(np.array([0.01, np.nan, 0.02]))
    assert np.isnan(q[1])
    assert np.allclose(q[[0, 2]], [0.02, 0.02])


def test_benjamini_hochberg_controls_false_discoveries():
    rng = np.random.default_rng(4)
    rates = []
    for _ in range(400):
        effect = np.r_[np.full(20, 3.5), np.zeros(80)]
        p = 2 * sps.norm.sf(np.abs(rng.normal(effect)))
        found = stats.benjamini_hochberg(p) <= 0.1
        rates.append(found[20:].sum() / max(found.sum(), 1))
    assert np.mean(rates) <= 0.1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({b for _, b in rows}) == 2
    )
)
def test_auroc_equals_pair_counting(rows):
    scores, positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    assert np.isclose(stats.auroc(scores, positive), oracles.auroc(scores, positive))
    assert np.isclose(stats.auroc(-scores, positive), 1 - stats.auroc(scores, positive))


def test_auroc_without_one_side_is_unknown():
    assert np.isnan(stats.auroc(np.arange(3.0), np.ones(3, bool)))


def test_kappa_is_one_zero_or_undefined():
    a = np.array([0, 1, 0, 1])
    assert stats.cohen_kappa(a, a) == 1
    assert stats.cohen_kappa(a, np.array([0, 0, 1, 1])) == 0
    assert np.isnan(stats.cohen_kappa(np.zeros(3, int), np.zeros(3, int)))
