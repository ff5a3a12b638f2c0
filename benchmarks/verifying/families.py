"""Boolean specifications F1 … F4, and the encoding of their negation as a mixed-integer program."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.formula import (
    Comparison,
    Formula,
    all_of,
    any_of,
    comparisons,
    negate,
)  # fmt: skip
from faultlens.spec.region import Readout, Region
from faultlens.spec.support import box_sides, signal_weights

NAMES = ("F1", "F2", "F3", "F4")


def specification(family: str, readout: Readout, rng: np.random.Generator) -> Formula:
    """One random specification of a family."""
    n_concepts, n_classes = len(readout.concept_rows), len(readout.head_biases[0])

    def atom() -> Comparison:
        a, b = rng.choice(n_concepts, 2, replace=False)
        return stronger(int(a), int(b))

    first, second = rng.choice(n_classes, 2, replace=False)
    one, other = predicts(readout, int(first)), predicts(readout, int(second))
    if family == "F1":
        return any_of(negate(any_of(one, other)), atom(), atom())
    if family == "F2":
        return any_of(negate(all_of(atom(), atom())), one)
    if family == "F3":
        return any_of(negate(one), atom(), all_of(atom(), any_of(atom(), atom())))
    clauses = [any_of(atom(), atom(), atom()) for _ in range(8)]
    return negate(all_of(*clauses, negate(one)))


def affine(leaf: Comparison, rows: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, float]:
    w = sum((x * rows[s] for s, x in leaf.terms), np.zeros(rows.shape[1]))
    return w, leaf.constant + sum(x * offsets[s] for s, x in leaf.terms)


class BigM:
    """`formula` over a box as `milp` of HiGHS: one binary a distinct leaf and inner node."""

    def __init__(self, formula: Formula, region: Region, readout: Readout) -> None:
        rows, offsets = (a.astype(float) for a in signal_weights(readout))
        self.lower, self.upper = box_sides(region.bodies[0])
        leaves = list(dict.fromkeys(comparisons(formula)))
        n_dims = len(self.lower)
        self.n = n_dims
        self.matrix: list[tuple[int, int, float]] = []
        self.bound: list[float] = []
        places = {}
        for leaf in leaves:
            w, b = affine(leaf, rows, offsets)
            least = b + np.minimum(w * self.lower, w * self.upper).sum()
            places[leaf] = self.n
            # w z + b >= least (1 - x)
            self._row([*enumerate(w.tolist()), (self.n, min(least, 0.0))], min(least, 0.0) - b)
            self.n += 1
        root = self._node(formula, places)
        self._row([(root, 1.0)], 1.0)

    def _row(self, entries: list[tuple[int, float]], at_least: float) -> None:
        i = len(self.bound)
        self.matrix.extend((i, j, x) for j, x in entries if x)
        self.bound.append(at_least)

    def _node(self, formula: Formula, places: dict[Comparison, int]) -> int:
        if isinstance(formula, Comparison):
            return places[formula]
        parts = [self._node(part, places) for part in formula.parts]
        place, self.n = self.n, self.n + 1
        self._row([*((part, 1.0) for part in parts), (place, -float(formula.n))], 0.0)
        return place

    def solve(self, timeout_s: float) -> bool | None:
        """Whether a point exists; None if the time is over."""
        n_dims = len(self.lower)
        i, j, x = zip(*self.matrix, strict=True)
        matrix = csr_matrix((x, (i, j)), (len(self.bound), self.n))
        extra = self.n - n_dims
        none, one = np.zeros(extra), np.ones(extra)
        bounds = Bounds(np.append(self.lower, none), np.append(self.upper, one))
        found = milp(
            np.zeros(self.n), bounds=bounds, options={"time_limit": timeout_s},
            integrality=np.append(np.zeros(n_dims), one),
            constraints=LinearConstraint(matrix, np.array(self.bound), np.inf),
        )  # fmt: skip
        return {0: True, 2: False}.get(found.status)
