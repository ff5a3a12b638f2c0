"""Regions fitted to embeddings: one family a kind, scaled by `gamma=` or calibrated to `coverage=`.

A family is a score of points (how far out) and a region for every bound of that score. With
`coverage=p` half of the embeddings fit the family, and the bound is the conformal quantile of the
scores of the other half: a fresh embedding lies inside with probability at least p.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from faultlens.arrays import FloatArray, check_array
from faultlens.errors import InputError, InsufficientDataError
from faultlens.registry import Registry
from faultlens.spec.formula import TRUE, Formula, comparisons
from faultlens.spec.region import Body, Readout, Region, Shape
from faultlens.spec.support import Doubles, box_sides, contains, signal_weights
from faultlens.spec.syntax import RegionExpr

REGIONS = Registry(
    "region",
    {
        "box": "faultlens.spec.regions:box",
        "pcabox": "faultlens.spec.regions:pcabox",
        "ellipsoid": "faultlens.spec.regions:ellipsoid",
        "hull": "faultlens.spec.regions:hull",
        "slabs": "faultlens.spec.regions:slabs",
        "nonneg": "faultlens.spec.regions:nonneg",
    },
)

#: Samples of a hull beyond which more make it hardly larger, but every check slower.
MAX_HULL = 256
#: No embedding is larger; solvers take still larger bounds for infinite ones.
_LARGE = np.float32(1e15)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Nested regions.

    Attributes:
        score: (N, D) points to (N,): the least bound whose region holds the point.
        at: The region of a bound.
        fixed: The bound of a family that has no scale; None for those that need one.
    """

    score: Callable[[FloatArray], Doubles]
    at: Callable[[float], Region]
    fixed: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a family may be fitted to.

    Attributes:
        embeddings: (N, D).
        readout: For families shaped by a formula.
        formula: Likewise.
        rng: For families that choose samples.
    """

    embeddings: FloatArray
    readout: Readout
    formula: Formula = TRUE
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


def fit_region(
    expr: RegionExpr,
    embeddings: FloatArray,
    readout: Readout,
    formula: Formula,
    rng: np.random.Generator,
) -> Region:
    """Fit every part of a region expression and intersect them.

    Args:
        expr: Such as `box(gamma=0.5) & nonneg`.
        embeddings: (N, D) of one class, never those that coverage is measured on.
        readout: Strengths and logits, for `slabs`.
        formula: The goal, or the conjunction of all goals on this region, for `slabs`.
        rng: Splits the embeddings where `coverage=` is given; draws a hull's samples.

    Raises:
        InputError: An unknown kind or option.
        InsufficientDataError: Too few embeddings for the coverage.
    """
    z = check_array(embeddings, "N D", name="embeddings")
    region: Region | None = None
    for part in expr.parts:
        reference = Reference(z, readout, formula, rng)
        fitted = fit_part(part.kind, part.options, reference)
        region = fitted if region is None else intersect(region, fitted)
    if region is None:
        raise InputError("region must have at least one part, got none; write box(coverage=0.9)")
    return replace(region, name=expr.name)


def fit_part(kind: str, options: Mapping[str, float], reference: Reference) -> Region:
    """Fit one kind of region at a scale or a coverage."""
    fit = REGIONS.load(kind)
    unknown = sorted(set(options) - {"gamma", "coverage"})
    if unknown or len(options) > 1:
        raise InputError(
            f"{kind} must have gamma= or coverage=, got {', '.join(options)}; "
            f"write {kind}(gamma=0.5) or {kind}(coverage=0.9)"
        )
    if "coverage" in options:
        return _calibrated(fit, float(options["coverage"]), reference, kind)
    family: Family = fit(reference)
    scale = options.get("gamma", family.fixed)
    if scale is None:
        raise InputError(
            f"{kind} must have gamma= or coverage=, got neither; write {kind}(coverage=0.9)"
        )
    if not 0 <= scale < math.inf:
        raise InputError(f"gamma must be at least 0, got {scale}; choose a positive scale")
    return family.at(float(scale))


def _calibrated(
    fit: Callable[[Reference], Family], share: float, reference: Reference, kind: str
) -> Region:
    if not 0 < share < 1:
        raise InputError(f"coverage must be between 0 and 1, got {share}; write coverage=0.9")
    order = reference.rng.permutation(len(reference.embeddings))
    half = len(order) // 2
    family = fit(replace(reference, embeddings=reference.embeddings[order[:half]]))
    scores = np.sort(family.score(reference.embeddings[order[half:]]))
    at = math.ceil((len(scores) + 1) * share)
    if at > len(scores):
        need = 2 * math.ceil(share / (1 - share))
        raise InsufficientDataError(
            f"{kind}(coverage={share:g}) must have at least {need} embeddings, got {len(order)}; "
            "give more images or ask for less coverage"
        )
    bound = float(scores[at - 1])
    if not math.isfinite(bound):
        raise InputError(
            f"{kind} must be able to hold {share:.0%} of the embeddings, but at no scale it does; "
            "choose another kind of region"
        )
    return family.at(bound)


def coverage(region: Region, heldout: FloatArray) -> tuple[int, int]:
    """Count the embeddings inside a region, among some that had no part in fitting it.

    Returns:
        How many of how many.
    """
    z = check_array(heldout, "N D", name="heldout")
    return int(contains(region, z).sum()), len(z)


def _down(x: FloatArray) -> FloatArray:
    y = x.astype(np.float32)
    return np.asarray(np.where(y > x, np.nextafter(y, np.float32(-np.inf)), y))


def _up(x: FloatArray) -> FloatArray:
    return np.asarray(-_down(-x))


def _spread(z: Doubles) -> Doubles:
    """Standard deviation; hardly varying dimensions get a thousandth of the usual one."""
    std = z.std(axis=0)
    return np.asarray(np.maximum(std, 1e-3 * float(std.mean()) + 1e-12))


def _plain(name: str, bodies: tuple[Body, ...], n_dims: int) -> Region:
    return Region(name, bodies, np.zeros((0, n_dims), np.float32), np.zeros(0, np.float32))


def axis_box(lower: FloatArray, upper: FloatArray, name: str = "box") -> Region:
    """Return a box along the axes; bounds that float32 cannot hold are moved outwards.

    Example:
        >>> region = axis_box(np.zeros(2), np.ones(2))
        >>> contains(region, np.array([[0.0, 1.0], [0.0, 1.1]])).tolist()
        [True, False]
    """
    zero = np.zeros(len(lower), np.float32)
    return _plain(name, (Body(Shape.BOX, zero, None, _down(lower), _up(upper)),), len(lower))


def box(reference: Reference) -> Family:
    """Mean ± gamma standard deviations, each dimension apart."""
    z = reference.embeddings.astype(np.float64)
    mean, std = z.mean(axis=0), _spread(z)

    def at(gamma: float) -> Region:
        return axis_box(mean - gamma * std, mean + gamma * std)

    return Family(lambda x: np.asarray((np.abs(x - mean) / std).max(axis=1)), at)


def nonneg(reference: Reference) -> Family:
    """No coordinate below zero, as after a ReLU, or above 1e15; meant to be intersected."""
    n_dims = reference.embeddings.shape[1]
    region = axis_box(np.zeros(n_dims), np.full(n_dims, _LARGE), "nonneg")

    def score(x: FloatArray) -> Doubles:
        return np.where((x >= 0).all(axis=1), 0.0, np.inf)

    return Family(score, lambda _: region, 0.0)


def _axes(reference: Reference) -> tuple[FloatArray, FloatArray, Doubles]:
    """Return mean (D,) and principal axes (D, D), both float32, and deviations along them (D,).

    Variances are drawn towards their mean, the more the fewer the embeddings, so that no
    direction in which these few happen not to vary has width zero.
    """
    z = reference.embeddings.astype(np.float64)
    n, d = z.shape
    centre = z.mean(axis=0).astype(np.float32)
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False).reshape(d, d))
    values = np.maximum(values, 0.0)
    share = d / (n + d)
    values = (1 - share) * values + share * values.mean() + 1e-24
    return centre, np.asarray(vectors.astype(np.float32)), np.asarray(np.sqrt(values))


def pcabox(reference: Reference) -> Family:
    """Gamma standard deviations along each principal axis."""
    centre, basis, std = _axes(reference)
    inverse = np.linalg.inv(basis.astype(np.float64)).T

    def score(x: FloatArray) -> Doubles:
        return np.asarray((np.abs((x - centre) @ inverse) / std).max(axis=1))

    def at(gamma: float) -> Region:
        side = _up(gamma * std)
        return _plain("pcabox", (Body(Shape.BOX, centre, basis, -side, side),), len(centre))

    return Family(score, at)


def ellipsoid(reference: Reference) -> Family:
    """Mahalanobis distance at most gamma."""
    centre, axes, std = _axes(reference)
    basis = (axes * std).astype(np.float32)
    inverse = np.linalg.inv(basis.astype(np.float64)).T

    def score(x: FloatArray) -> Doubles:
        return np.asarray(np.linalg.norm((x - centre) @ inverse, axis=1))

    def at(gamma: float) -> Region:
        body = Body(Shape.BALL, centre, basis, radius=math.nextafter(gamma, math.inf))
        return _plain("ellipsoid", (body,), len(centre))

    return Family(score, at)


def hull(reference: Reference) -> Family:
    """Convex hull of the embeddings, shrunk or grown about their mean by gamma (1 if not given).

    Of more than 256 embeddings a random 256 are taken: the hull is then a smaller one. Whether a
    fresh point lies in a hull of fewer than D + 1 points is next to never true, so a hull cannot
    be calibrated to a coverage.
    """
    z = reference.embeddings.astype(np.float64)
    if len(z) > MAX_HULL:
        z = z[np.sort(reference.rng.choice(len(z), MAX_HULL, replace=False))]
    mean = z.mean(axis=0)
    zero = np.zeros(z.shape[1], np.float32)

    def at(gamma: float) -> Region:
        corners = (mean + gamma * (z - mean)).T if gamma != 1 else z.T
        body = Body(Shape.SIMPLEX, zero, np.ascontiguousarray(corners, dtype=np.float32))
        return _plain("hull", (body,), z.shape[1])

    return Family(lambda x: np.full(len(x), np.inf), at, 1.0)


def slabs(reference: Reference) -> Family:
    """One half-space for each comparison of the formula, jointly gamma deviations below its mean.

    Each keeps the comparison's function on the side where the embeddings are; together they lie
    in a box that reaches as far beyond the embeddings as their widest dimension is wide (a unit
    that is silent in these may well speak in others). Whatever is proved of the very comparisons
    that shape the region is a calibration, not an extrapolation.
    """
    z = reference.embeddings.astype(np.float64)
    weights, offsets = _functionals(reference)
    values = z @ weights.T.astype(np.float64) + offsets
    sign = np.where(values.mean(axis=0) < 0, -1.0, 1.0).astype(np.float32)
    weights, values = weights * sign[:, None], values * sign
    mean, std = values.mean(axis=0), _spread(values)
    base = offsets * sign
    span = (z.max(axis=0) - z.min(axis=0)).max() + 1e-6
    wide = axis_box(z.min(axis=0) - span, z.max(axis=0) + span)

    def score(x: FloatArray) -> Doubles:
        f = np.asarray(x, np.float64) @ weights.T.astype(np.float64) + base
        out = ((mean - f) / std).max(axis=1)
        return np.where(contains(wide, x), np.maximum(out, 0.0), np.inf)

    def at(gamma: float) -> Region:
        return Region("slabs", wide.bodies, weights, _up(base - mean + gamma * std + 1e-9 * std))

    return Family(score, at)


def _functionals(reference: Reference) -> tuple[FloatArray, Doubles]:
    """Return the formula's distinct affine functions, up to sign: (H, D) float32 and (H,)."""
    readout = reference.readout
    rows, base = (a.astype(np.float64) for a in signal_weights(readout))
    found: dict[bytes, tuple[FloatArray, float]] = {}
    for leaf in comparisons(reference.formula):
        if any(signal >= len(rows) for signal, _ in leaf.terms):
            continue
        w = sum((weight * rows[s] for s, weight in leaf.terms), np.zeros(rows.shape[1]))
        b = leaf.constant + sum(weight * float(base[s]) for s, weight in leaf.terms)
        short = w.astype(np.float32)
        if short.any() and (-short).tobytes() not in found:
            found.setdefault(short.tobytes(), (short, b))
    if not found:
        raise InputError(
            "slabs must have a formula with a comparison that is affine in the embedding, got "
            "none; use box(coverage=0.9)"
        )
    return np.stack([w for w, _ in found.values()]), np.array([b for _, b in found.values()])


def intersect(a: Region, b: Region) -> Region:
    """Return the intersection of two regions.

    Boxes along the axes become one. A box beside another body becomes half-spaces, so that a proof
    over the other body can use them.

    Raises:
        InputError: Two boxes that have no point in common.
    """
    boxes = [body for body in a.bodies + b.bodies if body.basis is None]
    others = tuple(body for body in a.bodies + b.bodies if body.basis is not None)
    weights, offsets = (
        np.concatenate([a.weights, b.weights]),
        np.concatenate([a.offsets, b.offsets]),
    )
    name = f"{a.name} & {b.name}"
    if not boxes:
        return Region(name, others, weights, offsets)
    sides = [box_sides(body) for body in boxes]
    lower = np.max([low + body.centre for (low, _), body in zip(sides, boxes, strict=True)], axis=0)
    upper = np.min([up + body.centre for (_, up), body in zip(sides, boxes, strict=True)], axis=0)
    if (lower > upper).any():
        raise InputError(f"{name} must have a point, but the boxes have none in common")
    if not others:
        return Region(name, axis_box(lower, upper).bodies, weights, offsets)
    eye = np.eye(len(lower), dtype=np.float32)
    low, up = _down(lower), _up(upper)
    bounded_low, bounded_up = np.abs(low) < _LARGE, np.abs(up) < _LARGE
    weights = np.concatenate([weights, eye[bounded_low], -eye[bounded_up]])
    offsets = np.concatenate([offsets, -low[bounded_low], up[bounded_up]])
    return Region(name, others, weights, offsets)
