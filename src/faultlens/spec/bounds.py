"""Exact bounds of weighted sums of comparisons over a region's bodies.

Only the square root in the bound over a ball is rounded: upwards, by less than one part in 2**64.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from operator import mul

from faultlens.spec.exact import ExactBody, Vector, body_of, combine, signals_of, vector
from faultlens.spec.formula import Comparison
from faultlens.spec.region import Readout, Region, Shape

_ROOT_BITS = 64


@dataclass(slots=True)
class Total:
    """A weighted sum of comparisons and half-spaces.

    Attributes:
        signals: Weight of each signal, hidden units' included.
        halfspaces: Weight of each half-space of the region.
        constant: Added.
    """

    signals: defaultdict[int, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    halfspaces: defaultdict[int, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    constant: Fraction = Fraction(0)

    def add(self, comparison: Comparison, weight: Fraction) -> None:
        """Add a comparison's left side."""
        self.constant += weight * Fraction(comparison.constant)
        for signal, factor in comparison.terms:
            self.signals[signal] += weight * Fraction(factor)

    def add_unit(self, place: int, weight: Fraction, region: Region, readout: Readout) -> None:
        """Add one of the three comparisons that every hidden unit has (see `proof`)."""
        signals = signals_of(readout)
        number, kind = divmod(place, 3)
        source, output = signals.unit(*list(signals.units())[number])
        if kind == 2:
            lower, upper = _intervals(readout, region)[number]
            low, high = min(lower, Fraction(0)), max(upper, Fraction(0))
            self.signals[source] += weight * high
            self.signals[output] -= weight * (high - low)
            self.constant -= weight * high * low
            return
        self.signals[output] += weight
        if kind == 1:
            self.signals[source] -= weight


def largest(total: Total, region: Region, body: int, readout: Readout) -> Fraction:
    """Return the maximum of a total over one body, hidden units free within their intervals.

    Example:
        >>> import numpy as np
        >>> from faultlens.spec.region import Body
        >>> one = np.ones(1, np.float32)
        >>> box = Region("box", (Body(Shape.BOX, 0 * one, None, -one, one),),
        ...     np.empty((0, 1), np.float32), 0 * one[:0])
        >>> readout = Readout(np.eye(1, dtype=np.float32), 0 * one,
        ...     (np.eye(1, dtype=np.float32),), (0 * one,))
        >>> total = Total()
        >>> total.add(Comparison(((0, 2.0),), 0.5), Fraction(1))
        >>> largest(total, box, 0, readout)
        Fraction(5, 2)
    """
    signals = signals_of(readout)
    parts: list[list[tuple[Fraction, Vector]]] = [[] for _ in range(len(signals.hidden) + 1)]
    bound = total.constant
    for signal, weight in total.signals.items():
        layer, row, offset = signals.row(signal)
        parts[layer].append((weight, row))
        bound += weight * offset
    for place, weight in total.halfspaces.items():
        parts[0].append((weight, vector(region.weights[place])))
        bound += weight * Fraction(float(region.offsets[place]))
    bound += _maximum(body_of(region.bodies[body]), combine(parts[0], len(region.bodies[0].centre)))
    start = 0
    for part, size in zip(parts[1:], signals.hidden, strict=True):
        if part:
            inputs = _intervals(readout, region)[start : start + size]
            bound += _maximum_of_outputs(combine(part, size), inputs)
        start += size
    return bound


def _maximum(body: ExactBody, weights: Vector) -> Fraction:
    """Return the maximum of `weights @ z` over a body."""
    base = weights.dot(body.centre)
    u = weights
    if body.columns is not None:
        bits = weights.bits + body.columns[0].bits if body.columns else 0
        u = Vector([sum(map(mul, weights.whole, c.whole)) for c in body.columns], bits)
    match body.shape:
        case Shape.BOX:
            high = Vector([max(n, 0) for n in u.whole], u.bits)
            low = Vector([min(n, 0) for n in u.whole], u.bits)
            return base + high.dot(body.upper) + low.dot(body.lower)
        case Shape.BALL:
            return base + _root_up(u.dot(u) * body.radius**2)
        case Shape.SIMPLEX:
            return base + Fraction(max(u.whole), 1 << u.bits)


def _root_up(square: Fraction) -> Fraction:
    """Return the square root of a dyadic number, rounded up (exact for the square of one)."""
    n = square.numerator * square.denominator << 2 * _ROOT_BITS
    root = math.isqrt(n)
    return Fraction(root + (root * root < n), square.denominator << _ROOT_BITS)


def _maximum_of_outputs(weights: Vector, inputs: list[tuple[Fraction, Fraction]]) -> Fraction:
    """Return the maximum of a sum of ReLUs whose inputs lie in intervals."""
    zero = Fraction(0)
    return (
        sum(
            (w * max(high if w > 0 else low, zero))
            for w, (low, high) in zip(weights.values(), inputs, strict=True)
        )
        + zero
    )


@lru_cache(maxsize=16)
def _intervals(readout: Readout, region: Region) -> list[tuple[Fraction, Fraction]]:
    """Return lower and upper bound of every hidden unit's input over a region's first body."""
    signals = signals_of(readout)
    exact = body_of(region.bodies[0])
    found: list[tuple[Fraction, Fraction]] = []
    start = 0
    for layer, unit in signals.units():
        _, row, offset = signals.row(signals.unit(layer, unit)[0])
        minus = Vector([-n for n in row.whole], row.bits)
        if layer == 0:
            low, high = -_maximum(exact, minus), _maximum(exact, row)
        else:
            start = sum(signals.hidden[: layer - 1])
            inputs = found[start : start + signals.hidden[layer - 1]]
            low, high = -_maximum_of_outputs(minus, inputs), _maximum_of_outputs(row, inputs)
        found.append((low + offset, high + offset))
    return found
