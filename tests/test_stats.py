import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

import oracles
from faultlens import stats
from faultlens.errors import InputError
from faultlens.sequential import RateTest, Sprt

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


@given(counts, st.sampled_from([0.8, 0.95, 0.999]))
def test_clopper_pearson_is_what_scipy_says(case, confidence):
    s, n = case
    low, high = stats.clopper_pearson(s, n, confidence)
    expected = sps.binomtest(s, n).proportion_ci(confidence, method="exact")
    assert np.allclose([low, high], [expected.low, expected.high])
    mirrored_low, mirrored_high = stats.clopper_pearson(n - s, n, confidence)
    assert np.allclose([low, high], [1 - mirrored_high, 1 - mirrored_low])


def test_clopper_pearson_without_trials_knows_nothing():
    low, high = stats.clopper_pearson(np.array([0, 3]), np.array([0, 3]))
    assert (low[0], high[0], high[1]) == (0, 1, 1)


def test_clopper_pearson_never_covers_less_than_it_says():
    n = 60
    low, high = stats.clopper_pearson(np.arange(n + 1), n)
    rates = np.linspace(0.001, 0.999, 333)
    chance = sps.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    covers = (low[:, None] <= rates) & (rates <= high[:, None])
    assert (chance * covers).sum(axis=0).min() >= 0.95


@given(counts, st.floats(0.05, 0.95), st.floats(0.01, 0.4))
def test_binomial_tails_are_dual_to_the_interval(case, rate, level):
    s, n = case
    more, fewer = stats.binomial_tails(s, n, rate)
    assert np.isclose(more, sps.binomtest(s, n, rate, alternative="greater").pvalue)
    assert np.isclose(fewer, sps.binomtest(s, n, rate, alternative="less").pvalue)
    low, high = stats.clopper_pearson(s, n, 1 - 2 * level)
    if min(abs(low - rate), abs(high - rate)) > 1e-6:
        assert (more <= level) == (low > rate)
        assert (fewer <= level) == (high < rate)


def _walk(low, high, rate, rng, error=0.001):
    test = Sprt(low, high, error, error)
    while test.verdict is None:
        test.update(rng.random() < rate)
    return test


def test_a_sequential_test_needs_as_many_images_as_wald_says():
    rng = np.random.default_rng(0)
    # Violations of 1 % against 5 %, both errors 0.1 %: 282, 178 and 63 images on average.
    for rate, expected in ((0.99, 282), (0.95, 178), (0.9, 63)):
        lengths = [_walk(0.95, 0.99, rate, rng).n for _ in range(400)]
        assert abs(np.mean(lengths) - expected) < 0.08 * expected


def test_a_sequential_test_errs_as_seldom_as_it_promises():
    rng = np.random.default_rng(1)
    wrong = [_walk(0.9, 0.97, 0.9, rng, 0.05).verdict == "high" for _ in range(2000)]
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)
    wrong = [_walk(0.9, 0.97, 0.97, rng, 0.05).verdict == "low" for _ in range(2000)]
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_decision_is_never_revoked():
    test = Sprt(0.5, 0.9)
    for _ in range(6):
        test.update(True)
    assert (test.verdict, test.n) == ("high", 6)
    for _ in range(100):
        test.update(False)
    assert (test.verdict, test.n) == ("high", 6)


@pytest.mark.parametrize(
    ("rate", "verdict"), [(1.0, "holds"), (0.995, "holds"), (0.6, "fails"), (0.0, "fails")]
)
def test_a_rate_is_told_from_the_required_one(rate, verdict):
    rng = np.random.default_rng(2)
    test = RateTest(0.95)
    for holds in rng.random(3000) < rate:
        test.update(bool(holds))
    assert test.verdict == verdict


def test_a_rate_near_the_required_one_is_seldom_decided_wrongly():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(300):
        test = RateTest(0.9)
        for holds in rng.random(600) < 0.9:
            test.update(bool(holds))
        found.append(test.verdict)
    assert found.count("holds") <= 0.08 * 300
    assert found.count("fails") <= 0.08 * 300
    assert found.count("near") > 200


def test_sequential_tests_refuse_what_makes_no_sense():
    with pytest.raises(InputError, match=r"low < high < 1, got 0\.9 and 0\.5"):
        Sprt(0.9, 0.5)
    with pytest.raises(InputError, match="alpha and beta"):
        Sprt(0.5, 0.9, alpha=0.7)
    with pytest.raises(InputError, match="never be shown by sampling"):
        RateTest(1.0)
