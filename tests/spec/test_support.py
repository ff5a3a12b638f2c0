import itertools
from fractions import Fraction

import numpy as np
import pytest

from faultlens.errors import InputError, ShapeError
from faultlens.spec.boxes import stronger
from faultlens.spec.region import Body, Region, Shape
from faultlens.spec.regions import axis_box
from faultlens.spec.support import (
    Rows,
    affine_frame,
    check_region,
    combine,
    contains,
    coordinates,
    gamma,
    reach,
    rows_over,
    signals_at,
    space_of,
)  # fmt: skip
from spec_cases import box_around, readout_of, rows_exactly


def bodies(rng, n_dims=3):
    centre = rng.normal(size=n_dims).astype(np.float32)
    basis = rng.normal(size=(n_dims, n_dims)).astype(np.float32)
    side = np.float32([0.5, 1.0, 0.25])
    return [
        Body(Shape.BOX, 0 * centre, None, centre - side, centre + side),
        Body(Shape.BOX, centre, basis, -side, 2 * side),
        Body(Shape.BALL, centre, basis, radius=1.5),
        Body(Shape.SIMPLEX, centre, basis),
    ]


@pytest.mark.parametrize("which", range(4))
def test_maximum_is_reached_by_its_maximizer_and_by_no_sample_exceeded(which):
    rng = np.random.default_rng(which)
    body = bodies(rng)[which]
    weights, offsets = rng.normal(size=(5, 3)).astype(np.float32), np.float32([0, 1, 2, 3, 4])
    rows, space = rows_over(body, weights, offsets), space_of(body)
    found = space.maxima(rows.weights, rows.offsets)
    for i in range(5):
        u = space.best(rows.weights[i])
        z = body.centre + (u if body.basis is None else body.basis.astype(float) @ u)
        assert weights[i].astype(float) @ z + offsets[i] == pytest.approx(found[i])
        assert (np.abs(z) <= reach(body)).all()
    if which == 3:
        corners = body.centre[:, None] + body.basis
    elif which == 2:
        u = rng.normal(size=(2000, 3))
        u *= 1.5 / np.linalg.norm(u, axis=1, keepdims=True)
        corners = body.centre[:, None] + body.basis @ u.T
    else:
        u = np.array(list(itertools.product(*zip(body.lower, body.upper, strict=True)))).T
        corners = u if body.basis is None else body.centre[:, None] + body.basis @ u
    values = (weights @ corners + offsets[:, None]).max(axis=1)
    assert (values <= found + 1e-5).all()
    assert values == pytest.approx(found, abs=0.2 if which == 2 else 1e-5)


def test_bound_is_above_the_exact_maximum_and_close_to_it():
    rng = np.random.default_rng(0)
    for _ in range(30):
        n_dims = int(rng.integers(1, 40))
        readout, region = readout_of(rng, n_dims), box_around(rng, n_dims, 0.5)
        frame = affine_frame(region, readout)
        leaf = stronger(0, 1)
        row = combine(frame.signals, [leaf])
        bound = float(frame.space.bound(row, 4)[0])
        rows = rows_exactly(readout)
        body = region.bodies[0]
        exact = rows[0][-1] - rows[1][-1]
        for d in range(n_dims):
            w = rows[0][d] - rows[1][d]
            exact += max(w * Fraction(float(body.lower[d])), w * Fraction(float(body.upper[d])))
        assert Fraction(bound) >= exact
        assert Fraction(bound) - exact < Fraction(1e-11)


def test_error_bound_grows_with_terms_and_a_sum_of_rows_adds_sizes():
    assert gamma(100) < gamma(1000) < 1e-12
    rows = Rows(np.ones((2, 1)), np.zeros(2), np.array([2.0, 3.0]))
    total = combine(rows, [stronger(0, 1)])
    assert total.sizes[0] == pytest.approx(5.0)
    assert total.weights.tolist() == [[0.0]]


def test_membership_of_every_body():
    rng = np.random.default_rng(1)
    for body in bodies(rng):
        region = Region("body", (body,), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
        space = space_of(body)
        middle = space.middle()
        z = middle if body.basis is None else body.centre + body.basis.astype(float) @ middle
        assert contains(region, np.array([z, z + 100.0])).tolist() == [True, False]
        assert coordinates(body, z[None])[0] == pytest.approx(
            middle - (body.centre if body.basis is None else 0), abs=1e-6
        )


def test_halfspaces_cut_the_body():
    box = axis_box(np.zeros(2), np.ones(2))
    region = Region("cut", box.bodies, np.float32([[1, 1]]), np.float32([-1]))
    assert contains(region, np.array([[0.5, 0.5], [0.4, 0.5]])).tolist() == [True, False]


def test_signals_go_through_the_relu():
    readout = readout_of(np.random.default_rng(2), 3, hidden=(4,))
    z = np.random.default_rng(3).normal(size=(5, 3))
    first = np.maximum(z @ readout.head_weights[0].T + readout.head_biases[0], 0)
    logits = first @ readout.head_weights[1].T + readout.head_biases[1]
    assert signals_at(readout, z)[:, 4:] == pytest.approx(logits)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lower": np.float32([2, 0])}, InputError, "lower must be at most upper, got 2.0 > 1.0"),
        ({"lower": np.float32([np.nan, 0])}, ShapeError, "must be finite"),
        ({"lower": None}, InputError, "a box must have lower and upper bounds"),
        ({"shape": Shape.BALL}, InputError, "a ball must have a basis"),
    ],
)
def test_a_region_that_is_none_is_refused(change, error, message):
    one = np.ones(2, np.float32)
    fields = {"shape": Shape.BOX, "centre": 0 * one, "lower": -one, "upper": one} | change
    region = Region("r", (Body(**fields),), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    with pytest.raises(error, match=message):
        check_region(region)


def test_a_region_needs_a_body():
    with pytest.raises(InputError, match="must have a body"):
        check_region(Region("r", (), np.zeros((0, 2), np.float32), np.zeros(0, np.float32)))
