import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultlens.errors import ShapeError
from faultlens.monitor.risk import Quality, augrc, aurc, excess_aurc, fpr_at_tpr, risk_coverage

cases = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=6)


def both(case):
    return np.array([float(s) for s, _ in case]), np.array([w for _, w in case])


def orders(scores):
    """Every order that accepts lower scores first."""
    return [o for o in itertools.permutations(range(len(scores)))
            if all(scores[a] <= scores[b] for a, b in itertools.pairwise(o))]  # fmt: skip


@given(cases)
def test_figures_are_means_over_every_order_of_equal_scores(case):
    scores, wrong = both(case)
    n, selective, general = len(scores), [], []
    for order in orders(scores):
        errors = [sum(wrong[list(order[:i])]) for i in range(1, n + 1)]
        selective.append(np.mean([e / i for i, e in enumerate(errors, 1)]))
        general.append(np.mean([e / n for e in errors]))
    assert aurc(scores, wrong) == pytest.approx(np.mean(selective))
    assert augrc(scores, wrong) == pytest.approx(np.mean(general))


@given(cases)
def test_augrc_is_a_function_of_auroc_and_accuracy(case):
    scores, wrong = both(case)
    e, c, n = wrong.sum(), (~wrong).sum(), len(wrong)
    if e and c:
        pairs = [(wins := float(scores[i] > scores[j])) + (scores[i] == scores[j]) / 2 - 0 * wins
                 for i in np.flatnonzero(wrong) for j in np.flatnonzero(~wrong)]  # fmt: skip
        found = Quality.of(scores, wrong)
        assert found.auroc == pytest.approx(np.mean(pairs))
        assert found.augrc == pytest.approx(((1 - found.auroc) * e * c + e * (e + 1) / 2) / n**2)


@given(cases)
def test_figures_depend_on_ranks_alone(case):
    scores, wrong = both(case)
    assert aurc(np.exp(scores), wrong) == pytest.approx(aurc(scores, wrong))
    order = np.random.default_rng(0).permutation(len(scores))
    assert aurc(scores[order], wrong[order]) == pytest.approx(aurc(scores, wrong))


def test_a_score_without_information_has_the_error_rate_everywhere():
    wrong = np.array([True, False, False, False])
    coverage, risk = risk_coverage(np.zeros(4), wrong)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == [0.25] * 4
    assert Quality.of(np.zeros(4), wrong).auroc == 0.5


def test_the_perfect_score_has_no_excess():
    wrong = np.arange(10) >= 7
    assert excess_aurc(np.arange(10.0), wrong) == pytest.approx(0, abs=1e-15)
    assert excess_aurc(-np.arange(10.0), wrong) > 0.3


@given(cases, st.sampled_from([0.5, 0.95, 1.0]))
def test_the_false_positive_rate_is_the_smallest_at_the_asked_recall(case, tpr):
    scores, wrong = both(case)
    if not wrong.any() or wrong.all():
        assert np.isnan(fpr_at_tpr(scores, wrong, tpr))
        return
    slow = min(
        (scores[~wrong] >= t).mean()
        for t in scores if (scores[wrong] >= t).mean() >= tpr - 1e-12
    )  # fmt: skip
    assert fpr_at_tpr(scores, wrong, tpr) == slow


def test_lengths_must_match():
    with pytest.raises(ShapeError, match="wrong must have one entry a score, got 2 for 3"):
        Quality.of(np.zeros(3), np.zeros(2, bool))
