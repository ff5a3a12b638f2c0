import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from faultlens import alignment
from faultlens.alignment import AlignmentSums, align, choose_ridge, normalize, solve
from faultlens.errors import InputError, ShapeError


def data(n=300, d=6, e=4, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) * np.linspace(0.5, 3, d) + 1
    v = z @ rng.normal(size=(d, e)) * 0.05 + rng.normal(size=e) + noise * rng.normal(size=(n, e))
    return z, v


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 10.0])
def test_solve_equals_least_squares_on_augmented_rows(ridge):
    z, v = data(noise=0.3)
    fitted = solve(AlignmentSums.of(z, v), ridge)
    w, b = oracles.ridge(z, unit(v), ridge)
    assert np.allclose(fitted.weight, w, atol=1e-4)
    assert np.allclose(fitted.bias, b, atol=1e-4)


def test_alignment_recovers_a_planted_map():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(500, 5))
    w = np.linalg.qr(rng.normal(size=(8, 5)))[0]
    v = z / np.linalg.norm(z, axis=1, keepdims=True) @ w.T  # unit length already
    fitted = align(z / np.linalg.norm(z, axis=1, keepdims=True), v, np.arange(500) % 5 == 0)
    assert np.allclose(fitted.weight, w, atol=1e-3)
    assert np.allclose(fitted.bias, 0, atol=1e-3)


@given(st.lists(st.integers(1, 299), min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_sums_merge_in_any_order(cuts, random):
    z, v = data(noise=0.1)
    bounds = sorted({0, 300, *cuts})
    parts = [AlignmentSums.of(z[a:b], v[a:b]) for a, b in itertools.pairwise(bounds)]
    random.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    whole = AlignmentSums.of(z, v)
    for name in ("n", "z", "v", "zz", "zv", "vv"):
        assert np.allclose(getattr(total, name), getattr(whole, name))


def test_choose_ridge_equals_trying_each_on_the_held_out_images():
    z, v = data(n=60, d=30, noise=2.0)
    tune = np.arange(60) % 3 == 0
    chosen = choose_ridge(AlignmentSums.of(z[~tune], v[~tune]), AlignmentSums.of(z[tune], v[tune]))
    errors = []
    for ridge in alignment.RIDGE_GRID:
        w, b = oracles.ridge(z[~tune], unit(v[~tune]), ridge)
        errors.append(((unit(v[tune]) - z[tune] @ w.T - b) ** 2).sum())
    assert chosen == alignment.RIDGE_GRID[int(np.argmin(errors))]
    assert chosen > 1e-3  # with this much noise, some shrinkage must pay


def test_a_constant_dimension_does_no_harm():
    z, v = data(noise=0.1)
    z[:, 2] = 7.0
    fitted = align(z, v, np.arange(300) % 5 == 0)
    assert np.isfinite(fitted.weight).all()
    assert np.abs(fitted.weight[:, 2]).max() < 1e-5


def test_evaluate_reports_what_it_says():
    z, v = data(noise=0.2)
    directions = normalize(np.random.default_rng(3).normal(size=(3, 4)))
    labels = np.argmax(unit(v) @ directions.T, axis=1)
    fitted = align(z, v, np.arange(300) % 5 == 0)
    mapped = fitted(z)
    report = alignment.evaluate(v, mapped, directions, directions, labels)
    u = unit(v)
    assert report.zero_shot_vlm == 1.0
    assert np.isclose(
        report.r2, 1 - ((u - mapped) ** 2).sum() / ((u - u.mean(axis=0)) ** 2).sum(), atol=1e-4
    )
    for c, q in enumerate(directions):
        t, p = u @ q, mapped @ q
        assert np.isclose(
            report.r2_concepts[c], 1 - ((t - p) ** 2).sum() / ((t - t.mean()) ** 2).sum(), atol=1e-4
        )
        expected = np.corrcoef(t, p)[0, 1] ** 2
        assert np.isclose(report.correlation2_concepts[c], expected, atol=1e-4)
    perfect = alignment.evaluate(v, u, directions, directions, labels)
    assert np.isclose(perfect.r2, 1)
    assert np.isclose(perfect.mean_cosine, 1)
    assert perfect.zero_shot_map == perfect.zero_shot_vlm


def test_an_unrelated_space_gives_no_r2():
    rng = np.random.default_rng(4)
    z, v = rng.normal(size=(400, 5)), rng.normal(size=(400, 4))
    fitted = align(z[:200], v[:200], np.arange(200) % 5 == 0)
    directions = np.eye(4)
    report = alignment.evaluate(
        v[200:], fitted(z[200:]), directions, directions, np.zeros(200, int)
    )
    assert report.r2 < 0.05


def test_wrong_arrays_are_refused():
    z, v = data()
    with pytest.raises(ShapeError, match="one row an image, got 300, 299 and 300"):
        align(z, v[1:], np.zeros(300, bool))
    with pytest.raises(InputError, match="at least 4 images"):
        align(z, v, np.zeros(300, bool))
    z[3, 2] = np.nan
    with pytest.raises(ShapeError, match="embeddings must be finite, got 1 NaN"):
        align(z, v, np.arange(300) % 5 == 0)
    fitted = align(*data(), np.arange(300) % 5 == 0)
    with pytest.raises(ShapeError, match="embeddings must have 6 dimensions, got 3"):
        fitted(np.zeros((2, 3), np.float32))
