"""Verify a specification over a region of embeddings: the pipeline, and its verdict."""

import time
from dataclasses import dataclass, replace

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray, check_array
from faultlens.errors import ShapeError, SolverError
from faultlens.spec import exact
from faultlens.spec.formula import TRUE, Comparison, Formula, all_of, comparisons, holds, negate
from faultlens.spec.proof import Leaf, Proof, Split
from faultlens.spec.region import Readout, Region
from faultlens.spec.relu import ReluSearch, relu_setting
from faultlens.spec.search import Outcome, Search
from faultlens.spec.setting import Setting
from faultlens.spec.support import (
    Doubles,
    affine_frame,
    check_readout,
    check_region,
    contains,
    coordinates,
    signals_at,
)  # fmt: skip

PROVED, REFUTED, VACUOUS = "PROVED", "REFUTED", "VACUOUS"
UNKNOWN, ERROR = "UNKNOWN", "ERROR"
REAL_IN_REGION, REAL_NEAREST, SYNTHETIC = "REAL-IN-REGION", "REAL-NEAREST", "SYNTHETIC"
#: Real embeddings tried as counterexamples: the first that is one beyond doubt is enough.
_MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What was found out about one specification over one region.

    Attributes:
        status: `PROVED`, `REFUTED`, `VACUOUS`, `UNKNOWN` or `ERROR`.
        reason: Why, where the status alone does not say: `antecedent unsatisfiable`,
            `region empty`, `degenerate`, `timeout`, `boundary`, `numerical: …`, `unsupported: …`,
            an error.
        slack: PROVED: the least amount by which the proof's leaves, with multipliers that sum to
            one, stay below zero (for `a > b` alone: the least `a - b`). REFUTED: the margin by
            which the witness violates the specification.
        proof: Of PROVED and VACUOUS.
        witness: (D,) float32 embedding that violates the specification; float64 where float32
            is too coarse. Of a body with a basis, `evidence` is the exact point, this its rounding.
        evidence: The witness as it was re-evaluated, in the region beyond doubt.
        witness_kind: `REAL-IN-REGION`: it is a real embedding; `REAL-NEAREST`: it is not, but a
            real embedding outside the region violates the specification too; `SYNTHETIC`.
        nearest: Index of that real embedding, or of the one nearest to the witness.
        distance: Euclidean, from the witness to it.
        n_cases: Branches looked at.
        seconds: Of wall time.
    """

    status: str
    reason: str = ""
    slack: float | None = None
    proof: Proof | None = None
    witness: FloatArray | None = None
    evidence: exact.Witness | None = None
    witness_kind: str | None = None
    nearest: int | None = None
    distance: float | None = None
    n_cases: int = 0
    seconds: float = 0.0


def verify(
    goal: Formula,
    given: Formula,
    region: Region,
    readout: Readout,
    *,
    samples: FloatArray | None = None,
    timeout_s: float = 60.0,
) -> Verdict:
    """Decide whether a goal holds everywhere in a region where the hypotheses do.

    Args:
        goal: What must hold.
        given: Hypotheses; `TRUE` for none.
        region: Where.
        readout: What the signals mean.
        samples: (N, D) real embeddings, preferred as counterexamples.
        timeout_s: After so many seconds the verdict is UNKNOWN.

    Raises:
        InputError: An empty box, a region without a body, or a signal that does not exist.

    Example:
        >>> from faultlens.spec.formula import Comparison
        >>> from faultlens.spec.regions import axis_box
        >>> eye, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
        >>> readout = Readout(eye, zero, (eye,), (zero,))
        >>> goal = Comparison(((0, 1.0), (1, -1.0)))
        >>> verify(goal, TRUE, axis_box(np.array([2.0, 0.0]), np.array([3.0, 1.0])), readout).status
        'PROVED'
        >>> bad = verify(goal, TRUE, axis_box(np.array([2.0, 0.0]), np.array([3.0, 5.0])), readout)
        >>> bad.status, bad.witness.tolist(), round(bad.slack, 9)
        ('REFUTED', [2.0, 5.0], 3.0)
    """
    start = time.monotonic()
    try:
        verifier = Verifier(region, readout, samples=samples)
    except ShapeError as error:
        return Verdict(ERROR, str(error), seconds=time.monotonic() - start)
    return verifier.verify(goal, given, timeout_s=timeout_s)


class Verifier:
    """Verifies many specifications over one region: intervals and programs are kept.

    Args:
        region: Where.
        readout: What the signals mean.
        samples: (N, D) real embeddings.

    Raises:
        ShapeError: NaN, infinity or shapes that do not fit.
        InputError: An empty box, or a region without a body.
    """

    def __init__(
        self, region: Region, readout: Readout, *, samples: FloatArray | None = None
    ) -> None:
        check_region(region)
        check_readout(readout, len(region.bodies[0].centre))
        self.region = region
        self.readout = readout
        self.setting = self._set()
        self.samples = None
        self._inside: BoolArray = np.zeros(0, bool)
        if samples is not None and len(samples):
            self.samples = check_array(samples, "N D", name="samples")
            self._inside = contains(region, self.samples)
            self._squares = np.einsum("nd,nd->n", self.samples, self.samples)
        self._signals = None if self.samples is None else signals_at(readout, self.samples)
        self._feasible: dict[Formula, Verdict | None] = {}

    def _set(self) -> Setting:
        if len(self.readout.head_weights) > 1:
            return relu_setting(self.region, self.readout)
        frames = [
            affine_frame(self.region, self.readout, i) for i in range(len(self.region.bodies))
        ]
        return Setting(self.region, self.readout, frames)

    def verify(self, goal: Formula, given: Formula = TRUE, *, timeout_s: float = 60.0) -> Verdict:
        """Decide one specification; see `verify`."""
        start = time.monotonic()
        deadline = start + timeout_s
        verdict = self._vacuous(given, deadline)
        if verdict is None:
            verdict = self._decide(goal, given, deadline)
        return replace(verdict, seconds=time.monotonic() - start)

    def _vacuous(self, given: Formula, deadline: float) -> Verdict | None:
        """Return a verdict if the hypotheses hold nowhere, or nobody knows."""
        trivial = len(self.region.bodies) == 1 and not len(self.region.offsets)
        if given == TRUE and trivial:
            return None
        if given not in self._feasible:
            outcome = self._search(given, deadline)
            if outcome.witness is None and outcome.proof is None:
                return Verdict(UNKNOWN, outcome.reason, n_cases=outcome.n_cases)
            self._feasible[given] = None
            if outcome.proof is not None:
                empty = given == TRUE
                self._feasible[given] = Verdict(
                    VACUOUS, "region empty" if empty else "antecedent unsatisfiable",
                    outcome.slack, outcome.proof, n_cases=outcome.n_cases,
                )  # fmt: skip
        return self._feasible[given]

    def _search(self, formula: Formula, deadline: float) -> Outcome:
        kind = ReluSearch if self.setting.n_hidden else Search
        try:
            return kind(self.setting, formula, deadline).run(self._candidates(formula))
        except SolverError as error:
            return Outcome(reason=f"numerical: {error}")

    def _candidates(self, formula: Formula) -> Doubles | None:
        """Return coordinates of the real embeddings in the region where a formula holds."""
        if self.samples is None or self._signals is None:
            return None
        chosen = np.flatnonzero(self._inside & holds(formula, self._signals))[:_MAX_CANDIDATES]
        if not len(chosen):
            return None
        own = coordinates(self.region.bodies[0], self.samples[chosen])
        n = len(self.setting.frames[0].space.middle()) - own.shape[1]
        return np.concatenate([own, np.zeros((len(own), n))], axis=1)

    def _decide(self, goal: Formula, given: Formula, deadline: float) -> Verdict:
        wrong = all_of(given, negate(goal))
        outcome = self._search(wrong, deadline)
        if outcome.proof is not None:
            return Verdict(PROVED, "", outcome.slack, outcome.proof, n_cases=outcome.n_cases)
        if outcome.witness is None:
            return Verdict(UNKNOWN, outcome.reason, n_cases=outcome.n_cases)
        return self._refuted(goal, wrong, outcome)

    def _refuted(self, goal: Formula, wrong: Formula, outcome: Outcome) -> Verdict:
        assert outcome.witness is not None
        z = self._embedding(outcome.witness)
        kind: str = SYNTHETIC
        nearest: int | None = None
        distance: float | None = None
        if self.samples is not None and self._signals is not None:
            bad = np.flatnonzero(holds(wrong, self._signals))
            nearest, distance = self._nearest(z, np.arange(len(self.samples)))
            if distance <= 1e-6 * float(np.linalg.norm(z.astype(np.float64))):
                kind = REAL_IN_REGION
            elif len(bad):
                kind = REAL_NEAREST
                nearest, distance = self._nearest(z, bad)
        reason = "degenerate" if outcome.slack == 0 and self._is_degenerate(goal) else ""
        return Verdict(
            REFUTED, reason, outcome.slack, None, z, outcome.witness, kind, nearest, distance,
            outcome.n_cases,
        )  # fmt: skip

    def _nearest(self, z: FloatArray, among: IntArray) -> tuple[int, float]:
        assert self.samples is not None
        chosen = self.samples[among]
        # Squares cancel near zero, so they only choose; the distance itself is computed plainly.
        squares = self._squares[among] - 2 * (chosen @ z.astype(np.float32))
        best = int(squares.argmin())
        return int(among[best]), float(np.linalg.norm(chosen[best].astype(np.float64) - z))

    def _embedding(self, witness: exact.Witness) -> FloatArray:
        if witness.body is None:
            return witness.point
        values = exact.embedding(self.region, witness).values()
        return np.array([float(x) for x in values]).astype(np.float32)

    def _is_degenerate(self, goal: Formula) -> bool:
        """Whether a comparison of the goal is constant: its two sides are the same function."""
        leaves = [negate(leaf) for leaf in comparisons(goal)]
        keys = self.setting.register([leaf for leaf in leaves if isinstance(leaf, Comparison)])
        return bool((~self.setting.rows(keys).weights.any(axis=1)).any())


def n_leaves(proof: Proof) -> int:
    """Return how many leaves a proof has."""
    count, waiting = 0, [proof]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Leaf):
            count += 1
        elif isinstance(node, Split):
            waiting += [node.then, node.other]
        else:
            waiting += [node.active, node.inactive]
    return count
