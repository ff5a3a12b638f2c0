from fractions import Fraction

import numpy as np
import pytest

from faultlens.spec.bounds import Total, largest
from faultlens.spec.exact import (
    Vector,
    Witness,
    combine,
    contains,
    embedding,
    holds,
    shows,
    simplex_weights,
    value,
    vector,
    vectors,
)
from faultlens.spec.formula import FALSE, TRUE, Comparison
from faultlens.spec.region import Body, Readout, Region, Shape
from proving import holds_slowly, random_formula, random_readout, random_region

ONE = np.ones(1, np.float32)
NONE = np.empty((0, 1), np.float32)


def region_of(
    *bodies: Body, weights: np.ndarray = NONE, offsets: np.ndarray = NONE[:, 0]
) -> Region:
    return Region("r", bodies, weights, offsets)


LINE = Readout(ONE[None], 0 * ONE, (ONE[None],), (0 * ONE,))


@pytest.mark.parametrize(
    "numbers",
    [[0.1, -3.0, 0.0], [1e-45, 3e38, -1.0], [2.0**-149, 2.0**-126], [2.0**100], [0.0], []],
)
def test_vectors_are_exact_from_the_smallest_float_to_the_largest(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    assert vector(array).values() == [Fraction(float(x)) for x in array]


def test_vectors_keep_float64_too() -> None:
    assert vector(np.array([0.1])).values() == [Fraction(0.1)]


def test_rows_share_their_bits() -> None:
    first, second = vectors(np.array([[1.0, 2.0], [0.125, 0.0]], np.float32))
    assert first.bits == second.bits
    assert second.values() == [Fraction(1, 8), 0]


def test_combine_is_exact() -> None:
    total = combine([(Fraction(1, 4), Vector([3], 1)), (Fraction(-5), Vector([1], 3))], 1)
    assert total.values() == [Fraction(3, 8) - Fraction(5, 8)]


def test_a_value_of_one_half_unit_in_the_last_place_is_seen() -> None:
    z = np.array([1.0], np.float32)
    tiny = Comparison(((0, 1.0),), -1.0 + 2.0**-53)
    assert value(tiny, LINE, z) == Fraction(1, 2**53)
    assert holds(tiny, LINE, z)
    assert not holds(Comparison(((0, 1.0),), -1.0), LINE, z)
    assert holds(Comparison(((0, 1.0),), -1.0, False), LINE, z)


@pytest.mark.parametrize("hidden", [(), (3,), (2, 3)])
def test_formulas_agree_with_fractions(hidden: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    answers = set()
    for _ in range(60):
        readout = random_readout(rng, 3, hidden)
        formula = random_formula(rng, 5)
        z = rng.normal(size=3).astype(np.float32)
        slow = holds_slowly(formula, readout, [Fraction(float(x)) for x in z])
        assert holds(formula, readout, z) is slow
        answers.add(slow)
    assert answers == {True, False}


def test_a_box_holds_its_faces_and_no_more() -> None:
    box = region_of(Body(Shape.BOX, ONE, None, -ONE, ONE))
    assert contains(box, Witness(2 * ONE))
    assert not contains(box, Witness(np.nextafter(2 * ONE, 3 * ONE)))
    assert contains(box, Witness(ONE, 0))
    assert embedding(box, Witness(ONE, 0)).values() == [2]


def test_a_ball_compares_squares() -> None:
    centre = np.zeros(2, np.float32)
    ball = Region("b", (Body(Shape.BALL, centre, radius=5.0),), np.empty((0, 2)), np.empty(0))
    assert contains(ball, Witness(np.array([3, 4], np.float32)))
    assert not contains(ball, Witness(np.array([3, np.nextafter(np.float32(4), 5)], np.float32)))


def test_a_half_space_holds_its_face() -> None:
    body = Body(Shape.BOX, 0 * ONE, None, -9 * ONE, 9 * ONE)
    half = region_of(body, weights=ONE[None], offsets=-ONE)
    assert contains(half, Witness(ONE))
    assert not contains(half, Witness(np.nextafter(ONE, 0)))


def test_a_body_with_a_basis_is_entered_by_its_own_point_only() -> None:
    slanted = Body(Shape.BOX, 0 * ONE, ONE[None], 0 * ONE, ONE)
    assert not contains(region_of(slanted), Witness(ONE / 2))
    assert contains(region_of(slanted), Witness(ONE / 2, 0))
    assert not contains(region_of(slanted, slanted), Witness(ONE / 2, 0))
    plain = Body(Shape.BOX, 0 * ONE, None, 0 * ONE, ONE / 4)
    assert not contains(region_of(slanted, plain), Witness(ONE / 2, 0))
    assert contains(region_of(slanted, plain), Witness(ONE / 4, 0))


def test_simplex_weights_sum_to_one_exactly() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 7, 500):
        weights = simplex_weights(rng.exponential(size=n))
        assert sum(vector(weights).values()) == 1
        assert weights.min() >= 0
        hull = Body(Shape.SIMPLEX, 0 * ONE, np.ones((1, n), np.float32))
        assert contains(region_of(hull), Witness(weights, 0))


def test_shows_needs_region_hypotheses_and_violation() -> None:
    box = region_of(Body(Shape.BOX, 0 * ONE, None, -ONE, ONE))
    big = Comparison(((0, 1.0),))
    assert shows(big, TRUE, box, LINE, Witness(-ONE))
    assert not shows(big, TRUE, box, LINE, Witness(ONE))
    assert not shows(big, FALSE, box, LINE, Witness(-ONE))
    assert not shows(big, TRUE, box, LINE, Witness(-2 * ONE))
    assert not shows(big, TRUE, box, LINE, Witness(np.nan * ONE))


@pytest.mark.parametrize("kind", ["box", "pcabox", "ball", "ellipsoid", "simplex"])
def test_bounds_are_maxima(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        region, readout = random_region(rng, kind, 2), random_readout(rng, 2)
        comparison = Comparison(((0, 1.0), (1, -2.5)), 0.3)
        total = Total()
        total.add(comparison, Fraction(1))
        bound = largest(total, region, 0, readout)
        body = region.bodies[0]
        c = readout.concept_rows.astype(float)
        z = c[0] - 2.5 * c[1]
        base = float(z @ body.centre) + 0.3
        base += float(readout.concept_offsets[0]) - 2.5 * float(readout.concept_offsets[1])
        u = z if body.basis is None else z @ body.basis.astype(float)
        if body.shape is Shape.BOX:
            best = float(np.maximum(u * body.lower, u * body.upper).sum())
        else:
            best = u.max() if kind == "simplex" else body.radius * float(np.linalg.norm(u))
        assert float(bound) == pytest.approx(base + best, rel=1e-9, abs=1e-9)


def test_a_ball_of_whole_numbers_has_an_exact_bound() -> None:
    ball = Region("b", (Body(Shape.BALL, np.zeros(2, np.float32), radius=2.0),), NONE, NONE[:, 0])
    rows = np.array([[3, 4]], np.float32)
    readout = Readout(rows, 0 * ONE, (rows,), (0 * ONE,))
    total = Total()
    total.add(Comparison(((0, 1.0),)), Fraction(1))
    assert largest(total, ball, 0, readout) == 10


def test_the_root_of_a_bound_is_rounded_upwards() -> None:
    ball = Region("b", (Body(Shape.BALL, np.zeros(2, np.float32), radius=1.0),), NONE, NONE[:, 0])
    rows = np.array([[1, 1]], np.float32)
    readout = Readout(rows, 0 * ONE, (rows,), (0 * ONE,))
    total = Total()
    total.add(Comparison(((0, 1.0),)), Fraction(1))
    bound = largest(total, ball, 0, readout)
    assert 2 < bound**2 < 2 + Fraction(1, 2**60)
