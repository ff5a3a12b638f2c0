import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import localize_oracles as oracles
from faultlens.alignment import AffineMap
from faultlens.concepts import strengths
from faultlens.errors import InputError, ShapeError
from faultlens.localize.erase import embedding_directions, leace_eraser, orthogonal_eraser

seeds = st.integers(0, 2**31)


def cloud(seed, n=200, d=6):
    """Correlated embeddings away from the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3 * rng.normal(size=d), rng


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_orthogonal_erasure_equals_gram_schmidt(seed):
    z, rng = cloud(seed)
    directions = rng.normal(size=(3, 6))
    mean = rng.normal(size=6)
    erase = orthogonal_eraser(directions, mean)
    assert np.allclose(erase(z), oracles.project_out(z, mean, directions), atol=1e-8)
    assert np.allclose(erase.only([2, 0])(z), oracles.project_out(z, mean, directions[[2, 0]]))


def test_orthogonal_erasure_sets_the_reading_to_its_mean_and_nothing_else():
    z, rng = cloud(1)
    directions = rng.normal(size=(2, 6))
    erase = orthogonal_eraser(directions, z.mean(axis=0))
    erased = erase(z)
    assert np.allclose(erased @ directions.T, (z @ directions.T).mean(axis=0))
    assert np.allclose(erased.mean(axis=0), z.mean(axis=0))
    assert np.allclose(erase(erased), erased)
    across = np.linalg.svd(directions)[2][2:]
    assert np.allclose(erased @ across.T, z @ across.T)


def test_synonyms_and_silent_concepts_are_erased_once_or_not_at_all():
    z, rng = cloud(2)
    u = rng.normal(size=6)
    once = orthogonal_eraser(u[None], z.mean(axis=0))(z)
    twice = orthogonal_eraser(np.stack([u, -3 * u]), z.mean(axis=0))(z)
    assert np.allclose(once, twice)
    silent = orthogonal_eraser(np.zeros((1, 6)), z.mean(axis=0))
    assert (silent(z) == z).all()


def test_pulled_back_directions_read_what_the_map_reads():
    z, rng = cloud(3)
    fitted = AffineMap(rng.normal(size=(4, 6)).astype(np.float32), np.ones(4, np.float32), 0.1, 9)
    q = np.eye(4)[[1, 3]]
    difference = z @ embedding_directions(fitted, q).T - fitted(z) @ q.T
    assert np.allclose(difference, difference[0], atol=1e-4)


def test_erasing_through_the_map_evens_out_the_mapped_concept():
    z, rng = cloud(4)
    fitted = AffineMap(rng.normal(size=(4, 6)).astype(np.float32), np.zeros(4, np.float32), 0.1, 9)
    q = np.eye(4)[[2]]
    erased = orthogonal_eraser(embedding_directions(fitted, q), z.mean(axis=0))(z)
    assert np.ptp(fitted(erased) @ q.T) < 1e-3
    assert np.ptp(strengths(fitted(z), q)) > 0.1


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_leace_equals_the_theorem(seed):
    z, rng = cloud(seed)
    scores = z @ rng.normal(size=(6, 2)) + rng.normal(size=(200, 2))
    expected = oracles.leace(z, scores)
    assert np.allclose(leace_eraser(z, scores)(z), expected, atol=1e-6 * np.abs(z).max())


def test_leace_leaves_no_cross_covariance_and_equal_class_means():
    z, rng = cloud(5, n=600)
    y = (z @ rng.normal(size=(6, 3)) + rng.normal(size=(600, 3))).argmax(axis=1)
    one_hot = np.eye(3)[y]
    before = np.stack([z[y == k].mean(axis=0) for k in range(3)])
    erased = leace_eraser(z, one_hot)(z)
    means = np.stack([erased[y == k].mean(axis=0) for k in range(3)])
    assert np.ptp(before, axis=0).max() > 0.5
    assert np.abs(np.ptp(means, axis=0)).max() < 1e-9
    centred = erased - erased.mean(axis=0)
    assert np.abs(centred.T @ one_hot).max() < 1e-9 * len(z)


def test_leace_changes_least_of_all_that_hide_the_concept():
    z, rng = cloud(6, n=400)
    s = z @ rng.normal(size=(6, 1)) + rng.normal(size=(400, 1))
    fitted = leace_eraser(z, s)
    least = (fitted.change(z) ** 2).sum()
    x = z - z.mean(axis=0)
    cross = x.T @ (s - s.mean()) / len(z)
    assert least < (orthogonal_eraser(cross.T, z.mean(axis=0)).change(z) ** 2).sum()
    for _ in range(20):  # every oblique projection that removes the same covariance
        right = fitted.right + 0.1 * rng.normal(size=(1, 6))
        change = (x @ right.T) @ cross.T / (right @ cross)
        assert np.abs((x - change).T @ (s - s.mean())).max() < 1e-6
        assert (change**2).sum() > least


def test_leace_of_linear_readings_holds_on_new_images_even_with_few():
    z, rng = cloud(7, n=30, d=50)
    direction = rng.normal(size=(1, 50))
    fitted = leace_eraser(z, z @ direction.T)
    assert np.ptp(fitted(z) @ direction.T) < 1e-8
    # With fewer images than dimensions only what they span can be read.
    basis = np.linalg.svd(z - z.mean(axis=0))[2][:29]
    assert np.allclose(fitted.right, direction @ basis.T @ basis)


def test_constant_dimensions_and_scores_do_no_harm():
    z, _ = cloud(8)
    z[:, 2] = 5
    s = np.c_[z[:, 0], np.ones(200)]
    erased = leace_eraser(z, s)(z)
    assert np.isfinite(erased).all()
    assert (erased[:, 2] == 5).all()
    assert abs(np.corrcoef(z[:, 1], s[:, 0])[0, 1]) > 1e-3
    assert np.abs((erased - erased.mean(axis=0)).T @ z[:, 0]).max() < 1e-8 * 200


def test_mistakes_are_told():
    z, _ = cloud(9)
    with pytest.raises(ShapeError, match="mean must have 6 entries"):
        orthogonal_eraser(np.ones((1, 6)), np.zeros(5))
    with pytest.raises(ShapeError, match="scores must have one row an embedding"):
        leace_eraser(z, np.ones((3, 1)))
    with pytest.raises(InputError, match="at least 2 images"):
        leace_eraser(z[:1], np.ones((1, 1)))
    with pytest.raises(ShapeError, match="embeddings must have 6 columns"):
        orthogonal_eraser(np.ones((1, 6)), np.zeros(6))(z[:, :5])
