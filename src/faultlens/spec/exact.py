"""Exact values of signals and formulas at a point, in whole numbers scaled by powers of two.

Every stored number is a float32 or float64, hence a whole number divided by a power of two; sums
and products stay so, and nothing here rounds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from operator import mul
from typing import NamedTuple

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.spec.formula import Comparison, Formula
from faultlens.spec.region import Body, Readout, Region, Shape


class Vector(NamedTuple):
    """The numbers `whole / 2**bits`."""

    whole: list[int]
    bits: int

    def dot(self, other: "Vector") -> Fraction:
        """Return the inner product of two vectors of one size."""
        if len(self.whole) != len(other.whole):
            raise ValueError(f"{len(self.whole)} numbers against {len(other.whole)}")
        return Fraction(sum(map(mul, self.whole, other.whole)), 1 << (self.bits + other.bits))

    def values(self) -> list[Fraction]:
        """Return the numbers one by one."""
        return [Fraction(n, 1 << self.bits) for n in self.whole]


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """A point of a region, given exactly.

    Attributes:
        point: (D,) the embedding, or (R,) the `u` of a body; float32.
        body: Which body's `u`; the embedding is then `centre + basis @ u`, not rounded. None for
            an embedding.
    """

    point: FloatArray
    body: int | None = None


def vectors(array: FloatArray) -> list[Vector]:
    """Return the rows of a float array exactly, all with the same number of bits.

    Example:
        >>> vectors(np.array([[0.5, 3.0]], np.float32))
        [Vector(whole=[8388608, 50331648], bits=24)]
    """
    a = np.atleast_2d(np.asarray(array, np.float64))
    digits = 24 if array.dtype == np.float32 else 53
    exponents = np.frexp(a)[1][a != 0]
    bits = max(0, digits - int(exponents.min())) if exponents.size else 0
    if exponents.size and int(exponents.max()) + bits <= 62:  # fits int64 and is exact
        return [Vector(row, bits) for row in np.ldexp(a, bits).astype(np.int64).tolist()]
    return [Vector([_scale(x, bits) for x in row], bits) for row in a.tolist()]


def _scale(x: float, bits: int) -> int:
    numerator, denominator = x.as_integer_ratio()
    return (numerator << bits) // denominator


def vector(array: FloatArray) -> Vector:
    """Return a one-dimensional float array exactly.

    Example:
        >>> vector(np.array([0.5], np.float32)).values()
        [Fraction(1, 2)]
    """
    return vectors(array)[0]


def combine(parts: Iterable[tuple[Fraction, Vector]], size: int) -> Vector:
    """Return a weighted sum of vectors of one size.

    Example:
        >>> combine([(Fraction(1, 2), Vector([1, 2], 1)), (Fraction(3), Vector([1, 0], 0))], 2)
        Vector(whole=[13, 2], bits=2)
    """
    scaled = [(w.numerator, v.whole, v.bits + w.denominator.bit_length() - 1) for w, v in parts]
    bits = max((b for _, _, b in scaled), default=0)
    whole = [0] * size
    for numerator, row, b in scaled:
        factor = numerator << (bits - b)
        if factor:
            whole = [total + factor * x for total, x in zip(whole, row, strict=True)]
    return Vector(whole, bits)


class Signals:
    """The rows of a readout, exactly; made once a readout by `signals_of`.

    Attributes:
        hidden: Units of each hidden layer of the head.
        size: Of each layer's input: the embedding's, then `hidden`.
    """

    def __init__(self, readout: Readout) -> None:
        self._concepts = vectors(readout.concept_rows) if len(readout.concept_rows) else []
        self._offsets = [Fraction(float(x)) for x in readout.concept_offsets]
        self._layers = [vectors(w) for w in readout.head_weights]
        self._biases = [[Fraction(float(x)) for x in b] for b in readout.head_biases]
        self.hidden = [len(b) for b in self._biases[:-1]]
        self.size = [w.shape[1] for w in readout.head_weights]
        self._n_plain = len(self._concepts) + len(self._biases[-1])

    def unit(self, layer: int, unit: int) -> tuple[int, int]:
        """Return the two signals of a hidden unit: its input and its output."""
        source = self._n_plain + 2 * (sum(self.hidden[:layer]) + unit)
        return source, source + 1

    def units(self) -> Iterable[tuple[int, int]]:
        """Return layer and number of every hidden unit, in order."""
        return ((layer, unit) for layer, n in enumerate(self.hidden) for unit in range(n))

    def row(self, signal: int) -> tuple[int, Vector, Fraction]:
        """Return the layer whose input a signal depends on, its weights there and its offset."""
        n_concepts = len(self._concepts)
        if signal < n_concepts:
            return 0, self._concepts[signal], self._offsets[signal]
        if signal < self._n_plain:
            layer, place = len(self.hidden), signal - n_concepts
        else:
            place, is_output = divmod(signal - self._n_plain, 2)
            layer, place = list(self.units())[place]
            if is_output:
                size = self.hidden[layer]
                return layer + 1, Vector([int(i == place) for i in range(size)], 0), Fraction(0)
        return layer, self._layers[layer][place], self._biases[layer][place]


@lru_cache(maxsize=8)
def signals_of(readout: Readout) -> Signals:
    """Return the rows of a readout; kept for the readouts used last."""
    return Signals(readout)


@dataclass(frozen=True, slots=True)
class ExactBody:
    """A body with exact numbers; `columns` is None for the identity."""

    shape: Shape
    centre: Vector
    columns: list[Vector] | None
    lower: Vector
    upper: Vector
    radius: Fraction


@lru_cache(maxsize=16)
def body_of(body: Body) -> ExactBody:
    """Return a body with exact numbers; kept for the bodies used last."""
    empty = Vector([], 0)
    return ExactBody(
        body.shape,
        vector(body.centre),
        None if body.basis is None else vectors(body.basis.T),
        empty if body.lower is None else vector(body.lower),
        empty if body.upper is None else vector(body.upper),
        Fraction(float(body.radius)),
    )


class Reading:
    """The exact values of signals at one point, each computed when it is asked for.

    Args:
        readout: What the signals mean.
        z: The embedding.
    """

    def __init__(self, readout: Readout, z: Vector) -> None:
        self._signals = signals_of(readout)
        self._inputs = [z]
        self._values: dict[int, Fraction] = {}

    def _input(self, layer: int) -> Vector:
        while len(self._inputs) <= layer:
            here = len(self._inputs) - 1
            rows = (self._signals.unit(here, i)[0] for i in range(self._signals.hidden[here]))
            self._inputs.append(_joined([max(self[row], Fraction(0)) for row in rows]))
        return self._inputs[layer]

    def __getitem__(self, signal: int) -> Fraction:
        if signal not in self._values:
            layer, row, offset = self._signals.row(signal)
            self._values[signal] = row.dot(self._input(layer)) + offset
        return self._values[signal]

    def value(self, comparison: Comparison) -> Fraction:
        """Return a comparison's left side."""
        terms = (Fraction(factor) * self[signal] for signal, factor in comparison.terms)
        return sum(terms, Fraction(comparison.constant))

    def holds(self, formula: Formula) -> bool:
        """Return whether a formula holds."""
        if isinstance(formula, Comparison):
            value = self.value(formula)
            return value > 0 or (value == 0 and not formula.is_strict)
        return sum(self.holds(part) for part in formula.parts) >= formula.n


def value(comparison: Comparison, readout: Readout, z: FloatArray | Vector) -> Fraction:
    """Return the left side of a comparison at a point, exactly.

    Args:
        comparison: Of signals of the readout.
        readout: What the signals mean.
        z: (D,) float32 or float64, or exact.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> readout = Readout(one[None], one, (one[None],), (0 * one,))
        >>> value(Comparison(((0, 1.0), (1, -1.0))), readout, one / 3)
        Fraction(1, 1)
    """
    return Reading(readout, _exact(z)).value(comparison)


def holds(formula: Formula, readout: Readout, z: FloatArray | Vector) -> bool:
    """Return whether a formula holds at a point, exactly; a tie makes `>` false.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> readout = Readout(one[None], 0 * one, (one[None],), (0 * one,))
        >>> holds(Comparison(((0, 1.0), (1, -1.0))), readout, one)
        False
    """
    return Reading(readout, _exact(z)).holds(formula)


def embedding(region: Region, witness: Witness) -> Vector:
    """Return the embedding that a witness stands for, exactly.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> ball = Body(Shape.BALL, one, one[None] / 2, radius=1.0)
        >>> region = Region("ball", (ball,), one[None][:0], one[:0])
        >>> embedding(region, Witness(one, 0)).values()
        [Fraction(3, 2)]
    """
    point = vector(witness.point)
    if witness.body is None:
        return point
    body = body_of(region.bodies[witness.body])
    parts = [(Fraction(1), body.centre)]
    if body.columns is None:
        parts.append((Fraction(1), point))
    else:
        parts += [(w, c) for w, c in zip(point.values(), body.columns, strict=True)]
    return combine(parts, len(body.centre.whole))


def contains(region: Region, witness: Witness) -> bool:
    """Return whether a witness is shown to lie in a region, exactly.

    Args:
        region: Bodies and half-spaces.
        witness: An embedding, or the `u` of one body.

    Returns:
        True only where it is shown: for a body with a basis that is not the witness's own it
        would take the solution of a linear system, so the answer is then False.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> box = Body(Shape.BOX, 0 * one, None, -one, one)
        >>> region = Region("box", (box,), one[None][:0], one[:0])
        >>> contains(region, Witness(one)), contains(region, Witness(2 * one))
        (True, False)
    """
    z = embedding(region, witness)
    for place, weights in enumerate(region.weights):
        if vector(weights).dot(z) + Fraction(float(region.offsets[place])) < 0:
            return False
    for place, given in enumerate(region.bodies):
        body = body_of(given)
        if place == witness.body:
            u = vector(witness.point)
        elif body.columns is None:
            u = combine([(Fraction(1), z), (Fraction(-1), body.centre)], len(z.whole))
        else:
            return False
        if not _is_inside(body, u.values()):
            return False
    return True


def _is_inside(body: ExactBody, u: list[Fraction]) -> bool:
    match body.shape:
        case Shape.BOX:
            bounds = zip(body.lower.values(), u, body.upper.values(), strict=True)
            return all(low <= x <= high for low, x, high in bounds)
        case Shape.BALL:
            return sum(x * x for x in u) <= body.radius**2
        case Shape.SIMPLEX:
            return min(u) >= 0 and sum(u) == 1


def shows(
    goal: Formula, given: Formula, region: Region, readout: Readout, witness: Witness
) -> bool:
    """Return whether a witness refutes a goal: in the region, given true, goal false; exactly.

    Example:
        >>> from faultlens.spec.formula import TRUE
        >>> one = np.ones(1, np.float32)
        >>> region = Region("box", (Body(Shape.BOX, 0 * one, None, -one, one),),
        ...     one[None][:0], one[:0])
        >>> readout = Readout(one[None], 0 * one, (one[None],), (0 * one,))
        >>> shows(Comparison(((0, 1.0),)), TRUE, region, readout, Witness(0 * one))
        True
    """
    if not (np.isfinite(witness.point).all() and contains(region, witness)):
        return False
    reading = Reading(readout, embedding(region, witness))
    return reading.holds(given) and not reading.holds(goal)


def simplex_weights(weights: FloatArray) -> FloatArray:
    """Return the float32 weights of a simplex nearest to given ones, with a sum of exactly one.

    Args:
        weights: (R,) about >= 0 with a sum of about one.

    Returns:
        (R,) multiples of 2**-24.

    Example:
        >>> float(simplex_weights(np.array([0.1, 0.2, 0.7])).astype(np.float64).sum())
        1.0
    """
    unit = 1 << 24
    shares = np.maximum(np.asarray(weights, np.float64), 0.0)
    whole = np.rint(shares / shares.sum() * unit).astype(np.int64)
    whole[whole.argmax()] += unit - whole.sum()
    rounded: FloatArray = (whole / unit).astype(np.float32)
    return rounded


def _exact(z: FloatArray | Vector) -> Vector:
    return z if isinstance(z, Vector) else vector(z)


def _joined(values: list[Fraction]) -> Vector:
    """Return dyadic numbers as one vector."""
    bits = max((x.denominator.bit_length() - 1 for x in values), default=0)
    return Vector([x.numerator << (bits - x.denominator.bit_length() + 1) for x in values], bits)
