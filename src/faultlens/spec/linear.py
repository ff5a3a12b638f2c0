"""Linear programs over one body, by HiGHS; nothing it answers is trusted.

The program is `max t` such that every row is at least `t` somewhere in the body. Its multipliers
are only candidates for a proof, its point only a candidate for a witness: whoever asks re-evaluates
both with rigorous errors or in whole numbers.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from scipy.optimize import minimize

from faultlens.arrays import BoolArray
from faultlens.errors import SolverError
from faultlens.spec.region import Shape
from faultlens.spec.support import Doubles, Rows, Space

#: HiGHS allows no smaller tolerance.
_TOLERANCE = 1e-10
#: How far inside all unit rows is far enough, in diagonals of the body: `t` need not grow beyond.
_CAP = 1e-4
#: Rows that a program over a ball starts with, and takes up at a time.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a program found.

    Attributes:
        value: The largest `t`, of rows scaled to length one; not sought far above zero.
        multipliers: (n,) >= 0, of the rows as they were given.
        u: (R,) coordinates of the point.
    """

    value: float
    multipliers: Doubles
    u: Doubles


class Program:
    """`max t` subject to `row @ u + offset >= t |row|` over one body; rows change, columns stay.

    Args:
        space: The body's coordinates.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._keys: list[tuple[int, bool]] = []
        self._highs: highspy.Highs | None = None
        self._n = len(space.middle())
        self._columns = np.arange(self._n + 1, dtype=np.int32)

    def solve(
        self, keys: Sequence[int], rows: Rows, deadline: float, hard: BoolArray | None = None
    ) -> Solution | None:
        """Solve for some rows; rows that stay from the last call are not passed again.

        Args:
            keys: A number for each row; equal numbers mean equal rows.
            rows: (n, R), at least one.
            deadline: On the clock of `time.monotonic`.
            hard: (n,) rows to hold as they are, without `t`; none by default. Where they
                contradict each other the program is solved with `t` in every row.

        Returns:
            None if the time is over.

        Raises:
            SolverError: HiGHS ended neither with an optimum nor for lack of time.
        """
        scale = 1.0 / (np.linalg.norm(rows.weights, axis=1) + 1e-300)
        scale[~np.isfinite(scale) | (scale > 1e200)] = 1.0
        if len(rows.offsets) == 1:
            return self._alone(rows, float(scale[0]))
        if self._space.body.shape is Shape.BALL:
            return _over_ball(self._space, rows, scale, deadline)
        if hard is None:
            hard = np.zeros(len(keys), bool)
        highs = self._model()
        self._exchange(highs, list(zip(keys, hard.tolist(), strict=True)), rows, scale)
        if self._run(highs, deadline) == highspy.HighsModelStatus.kInfeasible and hard.any():
            return self.solve(keys, rows, deadline)
        return self._solution(highs, scale)

    def _alone(self, rows: Rows, scale: float) -> Solution:
        u = self._space.best(rows.weights[0])
        value = float(rows.weights[0] @ u + rows.offsets[0])
        return Solution(value * scale, np.ones(1), u)

    def _model(self) -> highspy.Highs:
        if self._highs is not None:
            return self._highs
        highs = highspy.Highs()  # type: ignore[no-untyped-call]
        options: dict[str, bool | int | float | str] = {
            "output_flag": False, "threads": 1, "presolve": "off", "parallel": "off",
            "solver": "simplex", "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
        }  # fmt: skip
        for name, value in options.items():
            highs.setOptionValue(name, value)
        space, n_free = self._space, self._space.n_free
        diagonal = float(np.linalg.norm(space.upper - space.lower)) + float(n_free > 0)
        lower = np.concatenate([np.zeros(n_free), space.lower, [-highspy.kHighsInf]])
        upper = np.concatenate([np.full(n_free, 1.0), space.upper, [_CAP * diagonal]])
        none = np.zeros(0, np.int32)
        cost = np.zeros(self._n + 1)
        cost[-1] = -1.0
        highs.addCols(self._n + 1, cost, lower, upper, 0, none, none, np.zeros(0))
        if space.body.shape is Shape.SIMPLEX:
            highs.addRow(1.0, 1.0, n_free, self._columns[:n_free], np.ones(n_free))
        self._highs = highs
        return highs

    def _exchange(
        self, highs: highspy.Highs, keys: list[tuple[int, bool]], rows: Rows, scale: Doubles
    ) -> None:
        """Make the model's rows these, keeping the common beginning."""
        first = int(self._space.body.shape is Shape.SIMPLEX)
        same = 0
        while same < min(len(keys), len(self._keys)) and keys[same] == self._keys[same]:
            same += 1
        if gone := len(self._keys) - same:
            places = np.arange(first + same, first + same + gone, dtype=np.int32)
            highs.deleteRows(len(places), places)
        n = len(keys) - same
        if n:
            values = np.empty((n, self._n + 1))
            values[:, :-1] = rows.weights[same:] * scale[same:, None]
            values[:, -1] = [-float(not is_hard) for _, is_hard in keys[same:]]
            lower = -rows.offsets[same:] * scale[same:]
            starts = np.arange(0, n * (self._n + 1), self._n + 1, dtype=np.int32)
            columns = np.tile(self._columns, n)
            infinite = np.full(n, highspy.kHighsInf)
            highs.addRows(n, lower, infinite, values.size, starts, columns, values.ravel())
        self._keys = keys

    def _run(self, highs: highspy.Highs, deadline: float) -> highspy.HighsModelStatus:
        left = max(deadline - time.monotonic(), 0.0)
        highs.setOptionValue("time_limit", highs.getRunTime() + left)
        highs.run()
        return highs.getModelStatus()

    def _solution(self, highs: highspy.Highs, scale: Doubles) -> Solution | None:
        status = highs.getModelStatus()
        if status == highspy.HighsModelStatus.kTimeLimit:
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            self._highs, self._keys = None, []
            raise SolverError(f"HiGHS must end with an optimum, got {status.name}")
        solution = highs.getSolution()
        point = np.asarray(solution.col_value)
        duals = np.asarray(solution.row_dual)[-len(scale) :]
        return Solution(float(point[-1]), np.maximum(duals, 0.0) * scale, point[:-1])


def _over_ball(space: Space, rows: Rows, scale: Doubles, deadline: float) -> Solution | None:
    """Solve over a ball for a few rows, and add those that the point violates most."""
    weights, offsets = rows.weights * scale[:, None], rows.offsets * scale
    values = weights @ space.middle() + offsets
    chosen = np.argsort(values, kind="stable")[:_AT_ONCE]
    while True:
        x, u = _ball_dual(space, weights[chosen], offsets[chosen])
        values = weights @ u + offsets
        worst = np.argsort(values, kind="stable")[:_AT_ONCE]
        new = np.setdiff1d(worst[values[worst] < values[chosen].min()], chosen)
        if not len(new):
            break
        if time.monotonic() > deadline:
            return None
        chosen = np.concatenate([chosen, new])
    multipliers = np.zeros(len(offsets))
    multipliers[chosen] = x * scale[chosen]
    return Solution(float(values.min()), multipliers, u)


def _ball_dual(space: Space, weights: Doubles, offsets: Doubles) -> tuple[Doubles, Doubles]:
    """Minimize the dual over the simplex of multipliers; smooth where the sum is not zero."""
    n = len(offsets)

    def dual(x: Doubles) -> tuple[float, Doubles]:
        values = weights @ space.best(x @ weights) + offsets
        return float(x @ values), values

    found = minimize(
        dual, np.full(n, 1.0 / n), jac=True, bounds=[(0.0, 1.0)] * n, method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 300, "ftol": 1e-15},
    )  # fmt: skip
    x = np.maximum(found.x, 0.0)
    return x, space.best(x @ weights)
