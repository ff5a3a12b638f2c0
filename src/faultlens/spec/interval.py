"""Formulas in three values: what intervals of their comparisons already settle."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from faultlens.spec.formula import FALSE, TRUE, AtLeast, Comparison, Formula
from faultlens.spec.support import Doubles


class Truths:
    """True, False or None (open) for every formula over comparisons with known intervals.

    Args:
        intervals: Lower and upper bound of each comparison's left side over a region.

    Example:
        >>> a, b = Comparison(((0, 1.0),)), Comparison(((1, 1.0),))
        >>> truths = Truths({a: (1.0, 2.0), b: (-1.0, 1.0)})
        >>> truths.of(a), truths.of(b), truths.of(AtLeast(1, (a, b))), truths.of(AtLeast(3, (a, b)))
        (True, None, True, False)
        >>> truths.simplify(AtLeast(2, (a, b))) == b
        True
    """

    def __init__(self, intervals: Mapping[Comparison, tuple[float, float]]) -> None:
        self._leaves = {leaf: _truth(leaf, *bounds) for leaf, bounds in intervals.items()}
        # Formulas are kept beside their answers, so that no identity is ever used twice.
        self._known: dict[int, tuple[Formula, bool | None]] = {}

    def of(self, formula: Formula) -> bool | None:
        """Return whether a formula holds everywhere, nowhere, or neither is known (None)."""
        found = self._known.get(id(formula))
        if found is not None:
            return found[1]
        if isinstance(formula, Comparison):
            answer = self._leaves.get(formula)
        else:
            parts = [self.of(part) for part in formula.parts]
            n_true = sum(part is True for part in parts)
            n_open = sum(part is None for part in parts)
            answer = True if n_true >= formula.n else None
            if n_true + n_open < formula.n:
                answer = False
        self._known[id(formula)] = (formula, answer)
        return answer

    def simplify(self, formula: Formula) -> Formula:
        """Return an equivalent formula without the parts that are settled."""
        answer = self.of(formula)
        if answer is not None:
            return TRUE if answer else FALSE
        if isinstance(formula, Comparison):
            return formula
        n = formula.n - sum(self.of(part) is True for part in formula.parts)
        parts = tuple(self.simplify(part) for part in formula.parts if self.of(part) is None)
        return parts[0] if len(parts) == 1 else AtLeast(n, parts)


def _truth(leaf: Comparison, low: float, high: float) -> bool | None:
    if low > 0 or (low >= 0 and not leaf.is_strict):
        return True
    if high < 0 or (high <= 0 and leaf.is_strict):
        return False
    return None


def margins(formula: Formula, places: Mapping[int, int], values: Doubles) -> Doubles:
    """Return by how much a formula holds at points: above zero it holds, below it does not.

    Args:
        formula: Ground.
        places: From the identity (`id`) of each leaf to its row in `values`.
        values: (n, P) left sides at P points.

    Returns:
        (P,) the n-th largest margin of the parts of an `AtLeast`; infinite where nothing matters.

    Example:
        >>> a, b = Comparison(((0, 1.0),)), Comparison(((1, 1.0),))
        >>> margins(AtLeast(1, (a, b)), {id(a): 0, id(b): 1}, np.array([[1.0], [3.0]])).tolist()
        [3.0]
    """
    if isinstance(formula, Comparison):
        return np.asarray(values[places[id(formula)]])
    n_points = values.shape[1]
    if formula.n <= 0:
        return np.full(n_points, np.inf)
    if formula.n > len(formula.parts):
        return np.full(n_points, -np.inf)
    parts = [margins(part, places, values) for part in formula.parts]
    if formula.n == 1:
        return np.asarray(np.max(parts, axis=0))
    if formula.n == len(parts):
        return np.asarray(np.min(parts, axis=0))
    return _nth_largest(np.array(parts), formula.n)


def _nth_largest(values: Doubles, n: int) -> NDArray[np.float64]:
    return np.asarray(np.partition(values, len(values) - n, axis=0)[len(values) - n])
