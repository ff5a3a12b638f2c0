"""Ground formulas: what every specification becomes, and the one meaning that all uses share.

A formula speaks of *signals*: the strengths of C concepts, then the logits of K classes. Its leaves
compare a weighted sum of signals with zero. On images the signals are numbers; over embeddings
each is an affine function, so every leaf is a half-space. A tie makes a strict comparison false.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Comparison:
    """`sum(weight * signal) + constant > 0`, or `>= 0` where it is not strict.

    Attributes:
        terms: Pairs of signal and weight, each signal once, in ascending order.
        constant: Added.
        is_strict: Whether a tie makes it false.
    """

    terms: tuple[tuple[int, float], ...]
    constant: float = 0.0
    is_strict: bool = True


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least `n` of the parts hold.

    All of them: `n = len(parts)`; any of them: `n = 1`; `n <= 0` is true, `n > len(parts)` false.
    """

    n: int
    parts: "tuple[Formula, ...]"


Formula = Comparison | AtLeast

TRUE = AtLeast(0, ())
FALSE = AtLeast(1, ())


def all_of(*parts: Formula) -> AtLeast:
    """Return the conjunction; of nothing it is true."""
    return AtLeast(len(parts), parts)


def any_of(*parts: Formula) -> AtLeast:
    """Return the disjunction; of nothing it is false."""
    return AtLeast(1, parts)


def negate(formula: Formula) -> Formula:
    """Return the negation, pushed down to the comparisons.

    Example:
        >>> negate(Comparison(((0, 1.0), (1, -1.0))))
        Comparison(terms=((0, -1.0), (1, 1.0)), constant=0.0, is_strict=False)
        >>> negate(any_of(TRUE, FALSE)) == all_of(negate(TRUE), negate(FALSE))
        True
    """
    if isinstance(formula, Comparison):
        terms = tuple((signal, -weight) for signal, weight in formula.terms)
        return Comparison(terms, 0.0 - formula.constant, not formula.is_strict)
    n = len(formula.parts) - formula.n + 1
    return AtLeast(n, tuple(negate(part) for part in formula.parts))


def comparisons(formula: Formula) -> Iterator[Comparison]:
    """Yield the leaves, from left to right."""
    if isinstance(formula, Comparison):
        yield formula
    else:
        for part in formula.parts:
            yield from comparisons(part)


def holds(formula: Formula, signals: FloatArray) -> BoolArray:
    """Evaluate a formula on images.

    Args:
        formula: Ground.
        signals: (N, C + K) strengths, then logits; float64.

    Returns:
        (N,) whether it holds.

    Example:
        >>> holds(Comparison(((0, 1.0), (1, -1.0))), np.array([[2.0, 1.0], [1.0, 1.0]])).tolist()
        [True, False]
    """
    if isinstance(formula, Comparison):
        total = np.full(len(signals), formula.constant, np.float64)
        for signal, weight in formula.terms:
            total = total + weight * signals[:, signal]
        return total > 0 if formula.is_strict else total >= 0
    count = np.zeros(len(signals), np.int64)
    for part in formula.parts:
        count += holds(part, signals)
    return count >= formula.n
