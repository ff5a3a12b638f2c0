"""Closed-form maxima of affine functions over a region's bodies, with rigorous rounding errors.

All bounds are float64 with the a-priori error bound of Higham: a sum of n products, in any order,
is off by at most `gamma(n)` times the sum of the absolute products. Only where that cannot tell a
sign are integers used (`exact`, `branch`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from faultlens.arrays import BoolArray, FloatArray, check_array
from faultlens.errors import InputError, ShapeError
from faultlens.spec.formula import Comparison
from faultlens.spec.region import Body, Readout, Region, Shape

Doubles = NDArray[np.float64]

_UNIT = 2.0**-53
#: Covers the rounding of an error bound itself.
_INFLATE = 1.0 + 1e-9
#: Added to every error bound: underflow, which relative bounds leave out.
_TINY = 1e-290


def gamma(n: int) -> float:
    """Return the relative error bound of a float64 sum of `n` products, whatever its order.

    Example:
        >>> f"{gamma(512):.1e}"
        '5.7e-14'

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1.
    """
    return n * _UNIT / (1 - n * _UNIT) * _INFLATE


def check_region(region: Region) -> None:
    """Raise if a region is not one: shapes, NaN, or a lower bound above an upper one.

    Raises:
        ShapeError: NaN, infinity, or shapes that do not fit.
        InputError: No body, or an empty box.
    """
    if not region.bodies:
        raise InputError(f"region {region.name} must have a body, got none; intersect it with box")
    n_dims = len(check_array(region.bodies[0].centre, "D", name="centre"))
    for body in region.bodies:
        _check_body(body, n_dims)
    if len(region.offsets):
        check_array(region.offsets, "H", name="offsets")
        weights = check_array(region.weights, "H D", name="weights")
        if weights.shape != (len(region.offsets), n_dims):
            raise ShapeError(
                f"weights must have shape ({len(region.offsets)}, {n_dims}), got {weights.shape}"
            )


def _check_body(body: Body, n_dims: int) -> None:
    centre = check_array(body.centre, "D", name="centre")
    if len(centre) != n_dims:
        raise ShapeError(
            f"centre must have {n_dims} values as the other bodies', got {len(centre)}"
        )
    if body.basis is not None:
        basis = check_array(body.basis, "D R", name="basis")
        if len(basis) != n_dims:
            raise ShapeError(f"basis must have {n_dims} rows, got {len(basis)}")
    elif body.shape is not Shape.BOX:
        raise InputError(f"a {body.shape} must have a basis, got None")
    if body.shape is Shape.BALL and not 0 <= body.radius < np.inf:
        raise InputError(f"radius must be finite and at least 0, got {body.radius}")
    if body.shape is Shape.BOX:
        lower, upper = (check_array(side, "R", name="bounds") for side in box_sides(body))
        if (lower > upper).any():
            at = int(np.argmax(lower > upper))
            raise InputError(
                f"lower must be at most upper, got {lower[at]} > {upper[at]} in dimension {at}; "
                "the box is empty"
            )


def check_readout(readout: Readout, n_dims: int) -> None:
    """Raise if a readout is not one, or not of embeddings with `n_dims` dimensions.

    Raises:
        ShapeError: NaN, infinity, or shapes that do not fit.
    """
    layers = list(zip(readout.head_weights, readout.head_biases, strict=True))
    if len(readout.concept_rows):
        layers = [(readout.concept_rows, readout.concept_offsets), *layers]
    n_in = n_dims
    for i, (weights, biases) in enumerate(layers):
        w, b = check_array(weights, "O D", name="weights"), check_array(biases, "O", name="biases")
        first = i == 0 or (i == 1 and len(readout.concept_rows))
        n_in = n_dims if first else n_in
        if w.shape != (len(b), n_in):
            raise ShapeError(f"weights must have shape ({len(b)}, {n_in}), got {w.shape}")
        n_in = len(b)


def box_sides(body: Body) -> tuple[Doubles, Doubles]:
    """Return the lower and upper bounds (R,) of a box, as float64."""
    if body.lower is None or body.upper is None:
        raise InputError("a box must have lower and upper bounds, got None")
    return body.lower.astype(np.float64), body.upper.astype(np.float64)


def reach(body: Body) -> Doubles:
    """Return an upper bound of `|centre| + |basis| |u|` over a body, each dimension apart: (D,)."""
    centre = np.abs(body.centre.astype(np.float64))
    if body.shape is Shape.BOX:
        u = np.maximum(*map(np.abs, box_sides(body)))
        spread = u if body.basis is None else np.abs(body.basis.astype(np.float64)) @ u
    else:
        assert body.basis is not None
        basis = body.basis.astype(np.float64)
        if body.shape is Shape.BALL:
            spread = body.radius * np.linalg.norm(basis, axis=1)
        else:
            spread = np.abs(basis).max(axis=1)
    return np.asarray((centre + spread) * _INFLATE)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Affine functions over a body, in its own coordinates u.

    Attributes:
        weights: (n, R) by u, in float64.
        offsets: (n,).
        sizes: (n,) bounds of the sum of absolute products: the error is `gamma` times this.
    """

    weights: Doubles
    offsets: Doubles
    sizes: Doubles

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> "Rows":
        """Return some of the functions."""
        return Rows(self.weights[indices], self.offsets[indices], self.sizes[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A body with its coordinates u, and bounded further variables y of a ReLU head behind them.

    Attributes:
        body: Of the region.
        lower: Bounds of the coordinates of a box, then of the further variables.
        upper: Likewise.
        n_terms: How many products and roundings a bound over this body can sum.
    """

    body: Body
    lower: Doubles
    upper: Doubles
    n_terms: int

    @property
    def n_free(self) -> int:
        """How many leading coordinates are not bounded one by one."""
        if self.body.shape is Shape.BOX:
            return 0
        assert self.body.basis is not None
        return int(self.body.basis.shape[1])

    def maxima(self, weights: Doubles, offsets: Doubles) -> Doubles:
        """Return the maxima (n,) of affine functions (n, R) in plain float64."""
        free, boxed = weights[:, : self.n_free], weights[:, self.n_free :]
        middle, half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        best = offsets + boxed @ middle + np.abs(boxed) @ half
        if self.body.shape is Shape.BALL:
            best = best + self.body.radius * np.sqrt((free * free).sum(axis=1))
        elif self.body.shape is Shape.SIMPLEX:
            best = best + free.max(axis=1)
        return np.asarray(best)

    def bound(self, rows: Rows, n: int = 1) -> Doubles:
        """Return rigorous upper bounds (n,) of the maxima of sums of `n` rows."""
        error = gamma(self.n_terms + n) * rows.sizes + _TINY
        return np.asarray(self.maxima(rows.weights, rows.offsets) + error)

    def best(self, weights: Doubles) -> Doubles:
        """Return a maximizer u (R,) of one linear function."""
        free, boxed = weights[: self.n_free], weights[self.n_free :]
        u = np.where(boxed > 0, self.upper, self.lower)
        if self.body.shape is Shape.BOX:
            return u
        head = np.zeros(self.n_free)
        if self.body.shape is Shape.SIMPLEX:
            head[np.argmax(free)] = 1.0
        elif norm := float(np.linalg.norm(free)):
            head = self.body.radius * free / norm
        return np.concatenate([head, u])

    def middle(self) -> Doubles:
        """Return the coordinates (R,) of a point in the middle."""
        head = np.zeros(self.n_free)
        if self.body.shape is Shape.SIMPLEX:
            head[:] = 1.0 / self.n_free
        return np.concatenate([head, (self.lower + self.upper) / 2])


def space_of(body: Body) -> Space:
    """Return the coordinates of a body.

    Example:
        >>> one = np.ones(2, np.float32)
        >>> space = space_of(Body(Shape.BOX, 0 * one, None, -one, 2 * one))
        >>> space.maxima(np.array([[1.0, -3.0]]), np.array([0.5])).tolist()
        [5.5]
    """
    n_dims = len(body.centre)
    if body.shape is Shape.BOX:
        lower, upper = box_sides(body)
    else:
        lower = upper = np.zeros(0)
    n_own = n_dims if body.basis is None else body.basis.shape[1]
    return Space(body, lower, upper, n_dims + n_own + 24)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A region and a readout seen from one body: everything affine in its coordinates.

    Attributes:
        space: The body's coordinates, then the outputs of hidden units.
        signals: (S, R) strengths, logits, then input and output of each hidden unit.
        fixed: (3H, R) the comparisons that hidden units always obey (see `proof`).
        halfspaces: (H, R) those of the region.
    """

    space: Space
    signals: Rows
    fixed: Rows
    halfspaces: Rows


def affine_frame(region: Region, readout: Readout, body: int = 0) -> Frame:
    """Return the frame of a body for an affine head."""
    chosen = region.bodies[body]
    space = space_of(chosen)
    n = len(space.middle())
    none = Rows(np.zeros((0, n)), np.zeros(0), np.zeros(0))
    halfspaces = rows_over(chosen, region.weights, region.offsets) if len(region.offsets) else none
    return Frame(space, rows_over(chosen, *signal_weights(readout)), none, halfspaces)


def rows_over(body: Body, weights: FloatArray, offsets: FloatArray) -> Rows:
    """Return affine functions `weights @ z + offsets` of exact numbers in a body's coordinates."""
    w = weights.astype(np.float64)
    b = offsets.astype(np.float64)
    sizes = (np.abs(w) @ reach(body) + np.abs(b)) * _INFLATE
    own = w if body.basis is None else w @ body.basis.astype(np.float64)
    return Rows(own, b + w @ body.centre.astype(np.float64), sizes)


def combine(signals: Rows, comparisons: Sequence[Comparison]) -> Rows:
    """Return comparisons, as affine functions, from the rows of the signals."""
    n = len(comparisons)
    weights = np.zeros((n, signals.weights.shape[1]))
    offsets, sizes = np.empty(n), np.empty(n)
    for i, comparison in enumerate(comparisons):
        total, size = comparison.constant, abs(comparison.constant)
        for signal, weight in comparison.terms:
            weights[i] += weight * signals.weights[signal]
            total += weight * float(signals.offsets[signal])
            size += abs(weight) * float(signals.sizes[signal])
        offsets[i], sizes[i] = total, size * _INFLATE
    return Rows(weights, offsets, sizes)


def signal_weights(readout: Readout) -> tuple[FloatArray, FloatArray]:
    """Return the signals that are affine: (S, D) weights and (S,) offsets.

    All C + K of them for an affine head; the C strengths for one with hidden layers.
    """
    if len(readout.head_weights) > 1:
        return readout.concept_rows, readout.concept_offsets
    return (
        np.concatenate([readout.concept_rows, readout.head_weights[-1]]),
        np.concatenate([readout.concept_offsets, readout.head_biases[-1]]),
    )


def signals_at(readout: Readout, z: FloatArray) -> Doubles:
    """Return strengths and logits (N, C + K) of embeddings (N, D), in plain float64."""
    z = np.asarray(z, np.float64)
    strengths = z @ readout.concept_rows.T.astype(np.float64) + readout.concept_offsets
    for i, (weights, biases) in enumerate(
        zip(readout.head_weights, readout.head_biases, strict=True)
    ):
        z = (np.maximum(z, 0.0) if i else z) @ weights.T.astype(np.float64) + biases
    return np.concatenate([strengths, z], axis=1)


def contains(region: Region, points: FloatArray) -> BoolArray:
    """Return which points lie in a region, up to float64 rounding: (N,).

    Boxes along the axes are compared exactly; other bodies through their coordinates, with a
    relative tolerance of 1e-6 that float32 embeddings need.
    """
    z: Doubles = np.asarray(points, np.float64)
    inside = np.ones(len(z), bool)
    for body in region.bodies:
        inside &= _in_body(body, z)
    if len(region.offsets):
        inside &= (z @ region.weights.T.astype(np.float64) + region.offsets >= 0).all(axis=1)
    return inside


def coordinates(body: Body, z: FloatArray) -> Doubles:
    """Return least-squares coordinates (N, R) of points (N, D) in a body."""
    shifted = np.asarray(z, np.float64) - body.centre
    if body.basis is None:
        return np.asarray(shifted)
    basis = body.basis.astype(np.float64)
    if body.shape is Shape.SIMPLEX:
        weight = max(1.0, float(np.abs(basis).max())) * 1e3
        system = np.vstack([basis, np.full(basis.shape[1], weight)])
        return np.array([nnls(system, np.append(row, weight))[0] for row in shifted])
    return np.asarray(np.linalg.lstsq(basis, shifted.T, rcond=None)[0].T)


def _in_body(body: Body, z: Doubles) -> BoolArray:
    if body.shape is Shape.SIMPLEX and body.basis is not None and len(z) > 1:
        corners = body.centre[:, None] + body.basis.astype(np.float64)
        room = 1e-6 * reach(body)
        near = (z >= corners.min(axis=1) - room) & (z <= corners.max(axis=1) + room)
        inside = near.all(axis=1)  # quick, before a system of equations for each point
        for i in np.flatnonzero(inside):
            inside[i] = _in_body(body, z[i : i + 1])[0]
        return np.asarray(inside)
    u = coordinates(body, z)
    if body.basis is None:
        low, high = box_sides(body)
        return np.asarray(((u >= low) & (u <= high)).all(axis=1))
    scale = reach(body)
    rebuilt = body.centre + u @ body.basis.T.astype(np.float64)
    on = (np.abs(rebuilt - z) <= 1e-6 * scale + 1e-30).all(axis=1)
    if body.shape is Shape.BALL:
        return np.asarray(on & (np.linalg.norm(u, axis=1) <= body.radius * (1 + 1e-6)))
    if body.shape is Shape.SIMPLEX:
        return np.asarray(on & (np.abs(u.sum(axis=1) - 1) <= 1e-6))
    lower, upper = box_sides(body)
    room = 1e-6 * np.maximum(np.abs(lower), np.abs(upper))
    return np.asarray(on & ((u >= lower - room) & (u <= upper + room)).all(axis=1))
