"""Small random claims, and a slow prover for them: what the certificates' tests feed on."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from faultlens.spec.bounds import _intervals
from faultlens.spec.branch import Branch
from faultlens.spec.certify import Claim, is_shown
from faultlens.spec.exact import Witness, signals_of, simplex_weights
from faultlens.spec.formula import TRUE, AtLeast, Comparison, Formula, all_of, negate
from faultlens.spec.proof import Leaf, Phase, Proof, Split
from faultlens.spec.region import Body, Readout, Region, Shape

KINDS = ("box", "pcabox", "ball", "ellipsoid", "simplex", "two")


def random_readout(
    rng: np.random.Generator, size: int, hidden: Sequence[int] = (), n_concepts: int = 3
) -> Readout:
    widths = [size, *hidden, 2]
    pairs = list(itertools.pairwise(widths))
    return Readout(
        _numbers(rng, n_concepts, size),
        _numbers(rng, n_concepts),
        tuple(_numbers(rng, b, a) for a, b in pairs),
        tuple(_numbers(rng, b) for _, b in pairs),
    )


def random_region(rng: np.random.Generator, kind: str, size: int) -> Region:
    bodies = [_body(rng, "box" if kind == "two" else kind, size)]
    if kind == "two":
        bodies.append(_body(rng, "ball", size))
    n = int(rng.integers(0, 3))
    offsets = np.abs(_numbers(rng, n)) + np.float32(0.5)
    return Region(kind, tuple(bodies), _numbers(rng, n, size), offsets)


def _body(rng: np.random.Generator, kind: str, size: int) -> Body:
    centre, rank = _numbers(rng, size), size
    basis = None
    if kind in ("pcabox", "ellipsoid", "simplex"):
        rank = int(rng.integers(1, size + 2))
        basis = _numbers(rng, size, rank)
    if kind in ("box", "pcabox"):
        low = _numbers(rng, rank)
        return Body(Shape.BOX, centre, basis, low, low + np.abs(_numbers(rng, rank)))
    if kind == "simplex":
        return Body(Shape.SIMPLEX, centre, basis)
    return Body(Shape.BALL, centre, basis, radius=float(np.abs(_numbers(rng, 1)[0])))


def _numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.integers(-8, 9, shape) / 4 + rng.normal(0, 1e-3, shape)).astype(np.float32)


def random_formula(rng: np.random.Generator, n_signals: int, depth: int = 2) -> Formula:
    if depth == 0 or rng.random() < 0.3:
        chosen = np.sort(rng.choice(n_signals, int(rng.integers(1, 3)), replace=False))
        weights = rng.choice([-1.0, 1.0, 0.1, -2.5], len(chosen))
        terms = tuple((int(s), float(w)) for s, w in zip(chosen, weights, strict=True))
        constant = float(rng.choice([0.0, rng.normal(0, 2)]))
        return Comparison(terms, constant, bool(rng.random() < 0.7))
    n = int(rng.integers(1, 4))
    parts = tuple(random_formula(rng, n_signals, depth - 1) for _ in range(n))
    return AtLeast(int(rng.integers(0, n + 2)), parts)


def random_claim(rng: np.random.Generator, kind: str, hidden: Sequence[int] = ()) -> Claim:
    size = int(rng.integers(1, 4))
    given = random_formula(rng, 5) if rng.random() < 0.4 else TRUE
    return Claim(
        "PROVED", random_formula(rng, 5), given, random_region(rng, kind, size),
        random_readout(rng, size, hidden),
    )  # fmt: skip


def decide(claim: Claim) -> tuple[Claim, Proof | Witness] | None:
    """Return the claim with its verdict and evidence, or None if this prover cannot tell."""
    prover = Prover(claim)
    for verdict, refuted in (
        ("VACUOUS", claim.given),
        ("PROVED", all_of(claim.given, negate(claim.goal))),
    ):
        proof = prover.refute(Branch().asserting(refuted))
        if proof is not None:
            return _as(verdict, claim), proof
    refuted = _as("REFUTED", claim)
    if prover.witness is not None and is_shown(refuted, prover.witness):
        return refuted, prover.witness
    return None


def _as(verdict: str, claim: Claim) -> Claim:
    return Claim(verdict, claim.goal, claim.given, claim.region, claim.readout)


class Prover:
    """Splits every choice and every unit, and asks a linear program for each leaf."""

    def __init__(self, claim: Claim) -> None:
        self.region, self.readout = claim.region, claim.readout
        self.signals = signals_of(claim.readout)
        self.units = list(self.signals.units())
        self.n_plain = len(claim.readout.concept_rows) + len(claim.readout.head_biases[-1])
        self.body = claim.region.bodies[0]
        self.witness: Witness | None = None
        self.fixed = self._fixed()

    def refute(self, branch: Branch, phases: int = 0) -> Proof | None:
        if branch.is_closed:
            return Leaf()
        for place, choice in enumerate(branch.choices):
            if choice is not None:
                cases = [self.refute(b, phases) for b in branch.split(place)]
                return None if None in cases else Split(place, *cases)
        leaf = self._leaf(branch, phases == len(self.units))
        if leaf is not None or phases == len(self.units) or self.witness is not None:
            return leaf
        layer, unit = self.units[phases]
        cases = [self.refute(b, phases + 1) for b in branch.phase(*self.signals.unit(layer, unit))]
        return None if None in cases else Phase(layer, unit, *cases)

    def _fixed(self) -> list[Comparison]:
        rows = []
        bounds = _intervals(self.readout, self.region) if self.units else []
        for (layer, unit), ends in zip(self.units, bounds, strict=True):
            x, y = self.signals.unit(layer, unit)
            low, high = min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)
            rows += [
                Comparison(((y, 1.0),)),
                Comparison(((x, -1.0), (y, 1.0))),
                Comparison(((x, high), (y, low - high)), -high * low),
            ]
        return rows

    def _row(self, comparison: Comparison) -> tuple[np.ndarray, float]:
        """Return a comparison over (u, y)."""
        sizes = self.signals.size
        starts = np.concatenate([[0], np.cumsum(sizes)])
        total, constant = np.zeros(starts[-1]), comparison.constant
        for signal, weight in comparison.terms:
            layer, row, offset = self.signals.row(signal)
            values = np.array([float(v) for v in row.values()])
            total[starts[layer] : starts[layer] + sizes[layer]] += weight * values
            constant += weight * float(offset)
        return self._to_u(total, constant)

    def _to_u(self, total: np.ndarray, constant: float) -> tuple[np.ndarray, float]:
        z = total[: self.signals.size[0]]
        u = z if self.body.basis is None else z @ self.body.basis.astype(float)
        constant += float(z @ self.body.centre.astype(float))
        return np.concatenate([u, total[self.signals.size[0] :]]), constant

    def _leaf(self, branch: Branch, is_last: bool) -> Leaf | None:
        comparisons = [*self.fixed, *branch.comparisons]
        rows = [self._row(c) for c in comparisons]
        pad = np.zeros(sum(self.signals.hidden))
        rows += [
            self._to_u(np.concatenate([w.astype(float), pad]), float(b))
            for w, b in zip(self.region.weights, self.region.offsets, strict=True)
        ]
        if not rows:
            rows = [(np.zeros(len(self._bounds())), 1.0)]
        g = np.array([row for row, _ in rows])
        c = np.array([constant for _, constant in rows])
        # The greatest t such that some point gives every row at least t; ReLUs' rows at least 0.
        slack = [float(all(s < self.n_plain for s, _ in c.terms)) for c in comparisons]
        slack += [1.0] * (len(rows) - len(slack))
        program = linprog(
            np.append(np.zeros(g.shape[1]), -1.0),
            A_ub=np.column_stack([-g, slack]),
            b_ub=c,
            A_eq=None if self.body.shape is not Shape.SIMPLEX else self._sum_to_one(g.shape[1]),
            b_eq=None if self.body.shape is not Shape.SIMPLEX else [1.0],
            bounds=[*self._bounds(), (-1e3, 1e3)],
        )
        if program.status != 0:
            return None
        if program.x[-1] > 1e-6 and is_last:
            self._remember(program.x[: len(self._bounds()) - len(pad)])
        if program.x[-1] >= 0:
            return None
        weights = np.maximum(-program.ineqlin.marginals, 0.0)
        n = len(comparisons)
        return Leaf(
            tuple((i, float(w)) for i, w in enumerate(weights[:n]) if w > 0),
            tuple((i, float(w)) for i, w in enumerate(weights[n:]) if w > 0),
        )

    def _sum_to_one(self, n: int) -> np.ndarray:
        rank = self.body.basis.shape[1]
        return np.array([[1.0] * rank + [0.0] * (n - rank + 1)])

    def _bounds(self) -> list[tuple[float, float]]:
        body = self.body
        rank = len(body.centre) if body.basis is None else body.basis.shape[1]
        if body.shape is Shape.BOX:
            own = list(zip(body.lower.tolist(), body.upper.tolist(), strict=True))
        else:
            limit = body.radius if body.shape is Shape.BALL else 1.0
            own = [(0.0 if body.shape is Shape.SIMPLEX else -limit, limit)] * rank
        bounds = _intervals(self.readout, self.region) if self.units else []
        return own + [(0.0, max(float(high), 0.0)) for _, high in bounds]

    def _remember(self, u: np.ndarray) -> None:
        if self.body.shape is Shape.SIMPLEX:
            u = simplex_weights(u)
        elif self.body.shape is Shape.BALL:
            u = u * min(1.0, 0.999 * self.body.radius / max(np.linalg.norm(u), 1e-9))
        self.witness = Witness(np.asarray(u, np.float32), 0)


def holds_slowly(formula: Formula, readout: Readout, z: Sequence[Fraction]) -> bool:
    """Evaluate a formula in fractions, written as directly as can be."""
    signals = _affine(readout.concept_rows, readout.concept_offsets, z)
    layer = list(z)
    for number, (weights, biases) in enumerate(
        zip(readout.head_weights, readout.head_biases, strict=True)
    ):
        if number:
            layer = [max(x, Fraction(0)) for x in layer]
        layer = _affine(weights, biases, layer)
    return _truth(formula, signals + layer)


def _affine(weights: np.ndarray, biases: np.ndarray, x: Sequence[Fraction]) -> list[Fraction]:
    return [
        sum((Fraction(float(a)) * v for a, v in zip(row, x, strict=True)), Fraction(float(b)))
        for row, b in zip(weights, biases, strict=True)
    ]


def _truth(formula: Formula, signals: list[Fraction]) -> bool:
    if isinstance(formula, Comparison):
        total = Fraction(formula.constant)
        total += sum(Fraction(w) * signals[s] for s, w in formula.terms)
        return total > 0 or (total == 0 and not formula.is_strict)
    return sum(_truth(part, signals) for part in formula.parts) >= formula.n
