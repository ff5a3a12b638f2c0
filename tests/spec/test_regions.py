import numpy as np
import pytest
from scipy import stats

from faultlens.errors import InputError, InsufficientDataError
from faultlens.registry import Registry
from faultlens.spec import regions
from faultlens.spec.boxes import stronger
from faultlens.spec.formula import TRUE, all_of, negate
from faultlens.spec.region import Shape
from faultlens.spec.regions import REGIONS, Reference, axis_box, coverage, fit_region, intersect
from faultlens.spec.support import contains
from faultlens.spec.syntax import RegionExpr, RegionPart
from faultlens.spec.verify import PROVED, verify
from spec_cases import readout_of

SCALED = ("box", "pcabox", "ellipsoid", "slabs")


def expr(**parts):
    return RegionExpr("r", tuple(RegionPart(kind, options) for kind, options in parts.items()))


def embeddings(rng, n=400, n_dims=6):
    mix = rng.normal(size=(n_dims, n_dims))
    return (rng.normal(size=(n, n_dims)) @ mix + 3).astype(np.float32)


def fit(z, seed=0, **parts):
    rng = np.random.default_rng(seed)
    readout = readout_of(np.random.default_rng(9), z.shape[1])
    formula = all_of(stronger(0, 1), negate(stronger(2, 3)))
    return fit_region(expr(**parts), z, readout, formula, rng)


@pytest.mark.parametrize("kind", SCALED)
def test_coverage_is_kept_on_fresh_embeddings(kind):
    """Over 20 splits the mean coverage is the nominal one, within binomial error."""
    inside = total = 0
    for split in range(20):
        z = embeddings(np.random.default_rng(0), 1000)[
            np.random.default_rng(split).permutation(1000)
        ]
        k, n = coverage(fit(z[:500], split, **{kind: {"coverage": 0.8}}), z[500:])
        inside, total = inside + k, total + n
    # Calibration is itself random: a Beta law of 250 embeddings a split, beside the binomial one.
    sd = np.sqrt(0.8 * 0.2 * (1 / total + 1 / (20 * 250)))
    assert abs(inside / total - 0.8) < stats.norm.ppf(0.999) * sd + 1 / 251


@pytest.mark.parametrize("kind", [*SCALED, "hull"])
def test_a_larger_scale_holds_all_that_a_smaller_one_does(kind):
    z = embeddings(np.random.default_rng(1), 60)
    small, large = (contains(fit(z, **{kind: {"gamma": g}}), z) for g in (0.8, 1.3))
    assert (large >= small).all()
    assert large.sum() > small.sum()


@pytest.mark.parametrize("kind", SCALED)
def test_the_score_is_the_least_scale_that_holds_a_point(kind):
    z = embeddings(np.random.default_rng(2))
    readout = readout_of(np.random.default_rng(9), z.shape[1])
    family = REGIONS.load(kind)(Reference(z, readout, stronger(0, 1)))
    scores = family.score(z)
    for gamma in (0.5, 1.0, 2.0):
        inside = contains(family.at(gamma), z)
        sure = np.abs(scores - gamma) > 1e-4
        assert (inside == (scores <= gamma))[sure].all()


def test_box_is_mean_and_deviations_rounded_outwards():
    z = embeddings(np.random.default_rng(3)).astype(float)
    body = fit(z, box={"gamma": 0.5}).bodies[0]
    mean, std = z.mean(axis=0), z.std(axis=0)
    assert (body.lower.astype(float) <= mean - 0.5 * std).all()
    assert (body.upper.astype(float) >= mean + 0.5 * std).all()
    assert body.lower == pytest.approx(mean - 0.5 * std, rel=1e-6)
    assert not body.centre.any()


def test_box_above_zero_is_one_box():
    z = embeddings(np.random.default_rng(4)) - 3
    region = fit(z, box={"gamma": 1.0}, nonneg={})
    assert len(region.bodies) == 1
    assert not len(region.offsets)
    assert (region.bodies[0].lower == 0).any()
    assert (region.bodies[0].lower >= 0).all()


def test_a_box_beside_another_body_becomes_halfspaces():
    z = embeddings(np.random.default_rng(5))
    region = fit(z, ellipsoid={"gamma": 2.0}, box={"gamma": 1.0}, nonneg={})
    assert [body.shape for body in region.bodies] == [Shape.BALL]
    ball, box, nonneg = (
        contains(fit(z, **{kind: options}), z)
        for kind, options in (
            ("ellipsoid", {"gamma": 2.0}),
            ("box", {"gamma": 1.0}),
            ("nonneg", {}),
        )
    )
    assert contains(region, z).tolist() == (ball & box & nonneg).tolist()


def test_hull_is_that_of_at_most_256_samples():
    z = embeddings(np.random.default_rng(6), 300)
    region = fit(z, hull={})
    assert region.bodies[0].basis.shape == (6, 256)
    assert contains(region, region.bodies[0].basis.T[:5]).all()
    k, n = coverage(region, z)
    assert 256 <= k < n


def test_slabs_prove_the_comparison_they_are_shaped_by():
    rng = np.random.default_rng(7)
    z = embeddings(rng, 300)
    readout = readout_of(rng, 6)
    goal = stronger(0, 1)
    ahead = z @ (readout.concept_rows[0] - readout.concept_rows[1])
    z = z[ahead > np.quantile(ahead, 0.6)] + 0
    readout.concept_offsets[0] -= np.float32(np.quantile(ahead, 0.3))
    region = fit_region(expr(slabs={"coverage": 0.8}), z, readout, goal, rng)
    assert verify(goal, TRUE, region, readout).status == PROVED
    assert verify(goal, TRUE, fit(z, box={"gamma": 3.0}), readout).status != PROVED


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"box": {}}, InputError, "box must have gamma= or coverage=, got neither"),
        ({"box": {"gamma": 1.0, "coverage": 0.5}}, InputError, "got gamma, coverage"),
        ({"box": {"scale": 1.0}}, InputError, "got scale"),
        ({"box": {"gamma": -1.0}}, InputError, "gamma must be at least 0, got -1"),
        ({"box": {"coverage": 1.5}}, InputError, "coverage must be between 0 and 1"),
        ({"box": {"coverage": 0.999}}, InsufficientDataError, "at least 1998 embeddings, got 400"),
        ({"hull": {"coverage": 0.5}}, InputError, "at no scale it does"),
        ({"boxx": {"gamma": 1.0}}, InputError, "did you mean 'box'"),
        ({}, InputError, "at least one part"),
    ],
)
def test_what_cannot_be_fitted_is_refused(parts, error, message):
    with pytest.raises(error, match=message):
        fit(embeddings(np.random.default_rng(8)), **parts)


def test_boxes_without_a_common_point_are_refused():
    first, second = axis_box(np.zeros(2), np.ones(2)), axis_box(2 * np.ones(2), 3 * np.ones(2))
    with pytest.raises(InputError, match="the boxes have none in common"):
        intersect(first, second)


def test_slabs_need_an_affine_comparison():
    z = embeddings(np.random.default_rng(8))
    readout = readout_of(np.random.default_rng(9), 6)
    with pytest.raises(InputError, match="affine in the embedding, got"):
        fit_region(expr(slabs={"gamma": 1.0}), z, readout, TRUE, np.random.default_rng(0))


def test_every_kind_of_the_registry_is_one_of_this_module():
    assert isinstance(REGIONS, Registry)
    for kind in REGIONS:
        assert getattr(regions, kind) is REGIONS.load(kind)


@pytest.mark.parametrize("kind", [*SCALED, "hull"])
def test_all_stored_numbers_are_float32(kind):
    region = fit(embeddings(np.random.default_rng(8)), **{kind: {"gamma": 1.0}})
    body = region.bodies[0]
    arrays = [body.centre, region.weights, region.offsets, body.basis, body.lower, body.upper]
    assert {a.dtype for a in arrays if a is not None} == {np.dtype(np.float32)}
