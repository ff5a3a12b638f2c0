import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultlens.spec.thresholds import calibrate, youden

RELEVANT = np.array([[True, False, False], [False, True, False]])


def planted(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    strengths = rng.normal(size=(n, 3)) * 0.2
    strengths[:, 0] += labels == 0
    strengths[:, 1] += labels == 1
    return strengths, labels


def test_thresholds_lie_between_with_and_without():
    strengths, labels = planted()
    found = calibrate(strengths, labels, RELEVANT)
    assert np.all((found.values[:2] > 0.3) & (found.values[:2] < 0.7))
    assert np.all(found.j[:2] > 0.95)


def test_a_concept_of_no_class_has_no_threshold():
    found = calibrate(*planted(), RELEVANT)
    assert np.isnan(found.values[2])
    assert "no class lists it as relevant" in found.reasons[2]


def test_attribute_labels_win_over_the_classes():
    strengths, labels = planted()
    has = np.where(strengths[:, 0] > 0.9, 1, 0)
    found = calibrate(strengths, labels, RELEVANT, {0: has})
    assert found.values[0] == pytest.approx(0.9, abs=0.02)
    assert found.j[0] == 1


def test_unknown_attribute_labels_do_not_count():
    strengths, labels = planted()
    has = np.full(len(labels), -1)
    has[:9], has[9:200] = 1, 0
    found = calibrate(strengths, labels, RELEVANT, {2: has})
    assert found.reasons[2] == "9 reference images are with it and 191 without, fewer than 10"


def test_a_strength_that_tells_nothing_has_no_threshold():
    strengths, labels = planted()
    strengths[:, 0] = np.random.default_rng(1).normal(size=len(labels))
    found = calibrate(strengths, labels, RELEVANT)
    assert np.isnan(found.values[0])
    assert "no threshold tells images with it" in found.reasons[0]
    strengths[:, 0] = 0.5
    assert np.isnan(calibrate(strengths, labels, RELEVANT).values[0])


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({has for _, has in rows}) == 2 and len({s for s, _ in rows}) > 1
    )
)
def test_no_other_threshold_is_better(rows):
    strengths = np.array([r[0] for r in rows], float)
    has = np.array([r[1] for r in rows])
    value, j = youden(strengths, has)

    def at(threshold):
        return (strengths[has] > threshold).mean() - (strengths[~has] > threshold).mean()

    assert at(value) == pytest.approx(j)
    cuts = [t for t in np.arange(-3.5, 4) if strengths.min() < t < strengths.max()]
    assert j >= max(at(t) for t in cuts) - 1e-12
