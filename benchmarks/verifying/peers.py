"""Other solvers on the same question: is there a z in the box with predict(class) and b >= a?

Every peer builds its own model; that is part of its time, as it is of ours. All answer for the
closed form (`>=` everywhere), which is what a solver of linear programs can express.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from faultlens.spec.boxes import margins_of, sides
from faultlens.spec.formula import Comparison, Formula
from faultlens.spec.region import Readout, Region
from faultlens.spec.support import signal_weights


class Question:
    """The pairs of one class over its box."""

    def __init__(self, readout: Readout, region: Region, cls: int) -> None:
        self.lower, self.upper = sides(region)
        self.margins, self.offsets = margins_of(readout, cls)
        self.rows = readout.concept_rows.astype(float)
        self.constants = readout.concept_offsets.astype(float)
        self.n = len(self.lower)

    def goal(self, a: int, b: int) -> tuple[np.ndarray, float]:
        """`b - a` as weights and offset."""
        return self.rows[b] - self.rows[a], float(self.constants[b] - self.constants[a])


def _highs(question: Question) -> Any:
    import highspy

    highs = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, "presolve": "off"}.items():
        highs.setOptionValue(name, value)
    none, n = np.zeros(0, np.int32), question.n
    highs.addCols(n, np.zeros(n), question.lower, question.upper, 0, none, none, np.zeros(0))
    k = len(question.offsets)
    starts = np.arange(0, k * n, n, dtype=np.int32)
    highs.addRows(
        k, -question.offsets, np.full(k, highspy.kHighsInf), k * n, starts,
        np.tile(np.arange(n, dtype=np.int32), k), question.margins.ravel(),
    )  # fmt: skip
    return highs


def _ask(highs: Any, question: Question, a: int, b: int) -> bool:
    import highspy

    weights, offset = question.goal(a, b)
    n = question.n
    highs.changeColsCost(n, np.arange(n, dtype=np.int32), -weights)
    highs.run()
    if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return False
    return bool(-highs.getInfo().objective_function_value + offset >= 0)


def highs_warm(question: Question, pairs: list[tuple[int, int]]) -> list[bool]:
    highs = _highs(question)
    return [_ask(highs, question, a, b) for a, b in pairs]


def highs_cold(question: Question, pairs: list[tuple[int, int]]) -> list[bool]:
    return [_ask(_highs(question), question, a, b) for a, b in pairs]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on stdout: Marabou prints from C++."""
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)


def marabou(question: Question, pairs: list[tuple[int, int]]) -> list[bool]:
    from maraboupy import MarabouCore

    options = MarabouCore.Options()
    options._verbosity, options._numWorkers = 0, 1
    answers = []
    with silent():
        for a, b in pairs:
            query = MarabouCore.InputQuery()
            query.setNumberOfVariables(question.n)
            for i in range(question.n):
                query.setLowerBound(i, float(question.lower[i]))
                query.setUpperBound(i, float(question.upper[i]))
            goal = question.goal(a, b)
            for row, constant in [*zip(question.margins, question.offsets, strict=True), goal]:
                equation = MarabouCore.Equation(MarabouCore.Equation.GE)
                for i, w in enumerate(row.tolist()):
                    equation.addAddend(w, i)
                equation.setScalar(-float(constant))
                query.addEquation(equation)
            answers.append(MarabouCore.solve(query, options, "")[0] == "sat")
    return answers


def scip(question: Question, pairs: list[tuple[int, int]]) -> list[bool]:
    from pyscipopt import Model, quicksum

    answers = []
    for a, b in pairs:
        model = Model()
        model.hideOutput()
        z = [
            model.addVar(lb=float(low), ub=float(high))
            for low, high in zip(question.lower, question.upper, strict=True)
        ]
        for row, constant in zip(question.margins, question.offsets, strict=True):
            total = quicksum(w * x for w, x in zip(row.tolist(), z, strict=True))
            model.addCons(total >= -float(constant))
        weights, offset = question.goal(a, b)
        total = quicksum(w * x for w, x in zip(weights.tolist(), z, strict=True))
        model.setObjective(total, "maximize")
        model.optimize()
        is_optimal = model.getStatus() == "optimal"
        answers.append(bool(is_optimal and model.getObjVal() + offset >= 0))
    return answers


def z3_satisfiable(formula: Formula, region: Region, readout: Readout) -> bool:
    """Whether a formula holds somewhere in a box, in exact rational arithmetic."""
    import z3

    def number(x: float) -> Any:
        return z3.Q(*float(x).as_integer_ratio())

    solver = z3.SolverFor("QF_LRA")
    lower, upper = sides(region)
    z = [z3.Real(f"z{i}") for i in range(len(lower))]
    for x, low, high in zip(z, lower, upper, strict=True):
        solver.add(x >= number(low), x <= number(high))
    rows, offsets = signal_weights(readout)
    known: dict[int, Any] = {}

    def signal(s: int) -> Any:
        if s not in known:
            products = [number(w) * x for w, x in zip(rows[s], z, strict=True)]
            known[s] = z3.Sum(products) + number(offsets[s])
        return known[s]

    def meaning(f: Formula) -> Any:
        if isinstance(f, Comparison):
            total = z3.Sum([number(w) * signal(s) for s, w in f.terms]) + number(f.constant)
            return total > 0 if f.is_strict else total >= 0
        if f.n <= 0:
            return z3.BoolVal(True)
        if f.n > len(f.parts):
            return z3.BoolVal(False)
        return z3.AtLeast(*map(meaning, f.parts), f.n)

    solver.add(meaning(formula))
    answer = solver.check()
    if answer == z3.unknown:
        raise RuntimeError("z3 gave up")
    return bool(answer == z3.sat)


#: Name, solver, pairs asked, times as fast we must be.
PEERS: list[tuple[str, Callable[[Question, list[tuple[int, int]]], list[bool]], int, float]] = [
    ("HiGHS warm", highs_warm, 1000, 20),
    ("HiGHS cold", highs_cold, 150, 130),
    ("Marabou", marabou, 40, 800),
    ("SCIP", scip, 40, 2000),
]
