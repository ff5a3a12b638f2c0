"""Scores of logits against their formulas, written out."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from faultlens.monitor.detector import load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.pnorm import pnorm_score, risk_area
from faultlens.monitor.softmax import doubt, probabilities
from faultlens.monitor.temperature import negative_log_likelihood


def score(name, reference, fresh, **options):
    return load_detector(name, **options).fit(*reference).score(fresh[0])


def test_simple_scores_are_their_formulas(reference, fresh):
    z = fresh[0].logits
    p = softmax(z, axis=1)
    ranked = np.sort(z, axis=1)
    g = (p**2).sum(axis=1)
    want = {
        "msp": 1 - p.max(axis=1),
        "max-logit": -z.max(axis=1),
        "margin": ranked[:, -2] - ranked[:, -1],
        "energy": -logsumexp(z, axis=1),
        "entropy": -(p * np.log(p)).sum(axis=1),
        "doctor-alpha": (1 - g) / g,
        "doctor-beta": (1 - p.max(axis=1)) / p.max(axis=1),
    }
    for name, values in want.items():
        np.testing.assert_allclose(score(name, reference, fresh), values, 1e-9, 1e-13, err_msg=name)


def test_temperatures_divide_the_logits(reference, fresh):
    z = fresh[0].logits / 3
    g = (softmax(z, axis=1) ** 2).sum(axis=1)
    np.testing.assert_allclose(
        score("energy", reference, fresh, temperature=3.0), -3 * logsumexp(z, axis=1)
    )
    np.testing.assert_allclose(
        score("doctor-alpha", reference, fresh, temperature=3.0), (1 - g) / g
    )


@pytest.mark.parametrize("name", ["msp", "doctor-alpha", "doctor-beta", "entropy", "margin"])
def test_confident_images_do_not_tie(name):
    z = np.array([[0.0, -60.0, -70.0], [0.0, -90.0, -90.0], [0.0, -300.0, -301.0]])
    features = Features(np.ones((3, 1)), z)
    scores = load_detector(name).fit(features, np.array([0, 1, 2])).score(features)
    assert scores[0] > scores[1] > scores[2]


def test_softmax_agrees_with_scipy():
    z = np.random.default_rng(0).normal(size=(50, 4)) * 20
    np.testing.assert_allclose(probabilities(z, 2.0), softmax(z / 2, axis=1), atol=1e-15)
    np.testing.assert_allclose(doubt(z), 1 - softmax(z, axis=1).max(axis=1), atol=1e-14)


def test_equal_logits_leave_all_but_one_class_in_doubt():
    assert doubt(np.zeros((1, 4))).tolist() == [0.75]


def test_temperature_recovers_the_one_that_labels_were_drawn_with():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 5)) * 6
    labels = (softmax(z / 2.5, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    labels = np.minimum(labels, 4)
    features = Features(np.ones((20_000, 1)), z)
    fitted = load_detector("temperature").fit(features, labels)
    assert float(fitted.fitted()["temperature"]) == pytest.approx(2.5, rel=0.05)
    t = float(fitted.fitted()["temperature"])
    np.testing.assert_allclose(fitted.score(features), doubt(z, t))
    want = -np.log(softmax(z / t, axis=1)[np.arange(20_000), labels]).mean()
    assert negative_log_likelihood(z, labels, t) == pytest.approx(want)


def test_a_network_without_errors_gets_a_low_temperature_within_bounds():
    z = np.eye(3) * 5
    fitted = load_detector("temperature").fit(Features(z, z), np.arange(3))
    assert 0.05 <= float(fitted.fitted()["temperature"]) < 0.2


def test_pnorm_is_its_formula_and_zero_power_does_not_normalise():
    z = np.random.default_rng(0).normal(size=(30, 6))
    centred = z - z.mean(axis=1, keepdims=True)
    for p in (1, 2, 5):
        want = -centred.max(axis=1) / np.linalg.norm(centred, ord=p, axis=1)
        np.testing.assert_allclose(pnorm_score(z, p), want)
    np.testing.assert_allclose(pnorm_score(z, 0), -centred.max(axis=1))
    assert pnorm_score(np.ones((1, 3)), 3).tolist() == [0.0]


def test_pnorm_chooses_the_power_with_the_smallest_risk_area(reference, fresh):
    features, labels = reference
    wrong = features.predictions != labels
    areas = {p: risk_area(pnorm_score(features.logits, p), wrong) for p in range(9)}
    best = min(areas, key=areas.get)
    chosen = int(load_detector("pnorm").fit(features, labels).fitted()["p"])
    falls_back = areas[best] > risk_area(doubt(features.logits), wrong)
    assert chosen == (-1 if falls_back else best)
    want = doubt(fresh[0].logits) if falls_back else pnorm_score(fresh[0].logits, best)
    np.testing.assert_allclose(score("pnorm", reference, fresh), want)


def test_pnorm_falls_back_where_only_the_softmax_knows():
    # The sum of the small logits, not their size, tells errors apart.
    rng = np.random.default_rng(0)
    top = rng.uniform(0, 3, size=2000)
    z = np.stack([top, np.zeros(2000)], axis=1)  # with two classes every norm gives one value
    labels = (rng.random(2000) > 1 / (1 + np.exp(-top))).astype(int)
    detector = load_detector("pnorm").fit(Features(z, z), labels)
    np.testing.assert_allclose(
        np.argsort(detector.score(Features(z, z)), kind="stable"),
        np.argsort(doubt(z), kind="stable"),
    )


def test_risk_area_is_the_mean_of_selective_risks_and_shares_ties():
    rng = np.random.default_rng(0)
    scores, wrong = rng.permutation(50) * 1.0, rng.random(50) < 0.3
    order = np.argsort(scores)
    want = np.mean([wrong[order[: n + 1]].mean() for n in range(50)])
    assert risk_area(scores, wrong) == pytest.approx(want)
    assert risk_area(np.zeros(50), wrong) == pytest.approx(wrong.mean())


def test_relative_uncertainty_is_its_closed_form(reference, fresh):
    features, labels = reference
    p = softmax(features.logits, axis=1)
    wrong = features.predictions != labels
    errors = np.mean([np.outer(q, q) for q in p[wrong]], axis=0)
    correct = np.mean([np.outer(q, q) for q in p[~wrong]], axis=0)
    d = np.maximum(0.3 * errors - 0.7 * correct, 0)
    np.fill_diagonal(d, 0)
    d /= np.sqrt((d**2).sum())
    want = [q @ d @ q for q in softmax(fresh[0].logits, axis=1)]
    np.testing.assert_allclose(
        score("relative-uncertainty", reference, fresh, balance=0.3), want, rtol=1e-6, atol=1e-12
    )


def test_relative_uncertainty_without_errors_orders_as_the_gini_coefficient():
    z = np.random.default_rng(0).normal(size=(80, 4))
    detector = load_detector("relative-uncertainty").fit(Features(z, z), z.argmax(axis=1))
    gini = 1 - (softmax(z.astype(np.float64), axis=1) ** 2).sum(axis=1)
    np.testing.assert_allclose(detector.score(Features(z, z)), gini / np.sqrt(12))
