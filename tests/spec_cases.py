"""Small random readouts, regions and formulas, and slow obvious twins of the engine."""

import itertools
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.formula import AtLeast, Comparison, all_of, any_of, comparisons, negate
from faultlens.spec.region import Readout, Shape
from faultlens.spec.regions import axis_box


def readout_of(rng, n_dims, n_concepts=4, n_classes=3, hidden=()):
    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    sizes = [n_dims, *hidden, n_classes]
    return Readout(
        draw(n_concepts, n_dims), draw(n_concepts) * np.float32(0.1),
        tuple(draw(b, a) for a, b in itertools.pairwise(sizes)),
        tuple(draw(b) * np.float32(0.3) for b in sizes[1:]),
    )  # fmt: skip


def box_around(rng, n_dims, width):
    middle = rng.normal(size=n_dims)
    return axis_box(middle - width, middle + width)


def formula_of(rng, readout):
    """A goal of one of six forms."""
    n_concepts, n_classes = len(readout.concept_rows), len(readout.head_biases[-1])

    def atom():
        a, b = rng.choice(n_concepts, 2, replace=False)
        return stronger(int(a), int(b))

    one = predicts(readout, int(rng.integers(n_classes)))
    two = predicts(readout, int(rng.integers(n_classes)))
    return [
        atom,
        lambda: any_of(negate(one), atom()),
        lambda: any_of(negate(all_of(atom(), atom())), one),
        lambda: any_of(negate(one), atom(), all_of(atom(), any_of(atom(), two))),
        lambda: AtLeast(2, (atom(), one, atom())),
        lambda: negate(all_of(any_of(atom(), atom()), any_of(atom(), atom()), negate(one))),
    ][int(rng.integers(6))]()


def rows_exactly(readout):
    """Strengths and logits of an affine head as exact rows with their offset last."""
    weights = np.concatenate([readout.concept_rows, readout.head_weights[0]]).tolist()
    offsets = np.concatenate([readout.concept_offsets, readout.head_biases[0]]).tolist()
    return [[Fraction(x) for x in (*w, b)] for w, b in zip(weights, offsets, strict=True)]


def value_exactly(leaf, rows, z):
    point = [*map(Fraction, np.asarray(z, float).tolist()), Fraction(1)]
    total = Fraction(leaf.constant)
    for signal, weight in leaf.terms:
        total += Fraction(weight) * sum(w * x for w, x in zip(rows[signal], point, strict=True))
    return total


def holds_exactly(formula, rows, z):
    if isinstance(formula, Comparison):
        value = value_exactly(formula, rows, z)
        return value > 0 or (value == 0 and not formula.is_strict)
    return sum(holds_exactly(part, rows, z) for part in formula.parts) >= formula.n


def sample(region, rng, n):
    """Points of a region's first body, in float64."""
    body = region.bodies[0]
    if body.shape is Shape.BOX:
        u = rng.uniform(body.lower, body.upper, size=(n, len(body.lower)))
        corner = rng.random(u.shape) < rng.random((n, 1))
        u = np.where(corner, np.where(rng.random(u.shape) < 0.5, body.lower, body.upper), u)
    elif body.shape is Shape.BALL:
        u = rng.normal(size=(n, body.basis.shape[1]))
        u *= body.radius * rng.random((n, 1)) ** 0.1 / np.linalg.norm(u, axis=1, keepdims=True)
    else:
        u = rng.dirichlet(np.full(body.basis.shape[1], 0.3), size=n)
    z = body.centre + (u if body.basis is None else u @ body.basis.T.astype(float))
    inside = (z @ region.weights.T.astype(float) + region.offsets >= 0).all(axis=1)
    return z[inside]


def is_satisfiable(formula, region, readout):
    """Whether a formula holds somewhere in a box, by one linear program a way to satisfy it."""
    rows = np.array([[float(x) for x in row] for row in rows_exactly(readout)])
    body = region.bodies[0]
    bounds = list(zip(body.lower.tolist(), body.upper.tolist(), strict=True))
    for way in _ways(formula):
        if not way:
            return True
        total = np.array([sum(w * rows[s] for s, w in leaf.terms) for leaf in way])
        constant = np.array([leaf.constant for leaf in way])
        n = total.shape[1] - 1
        found = linprog(
            np.append(np.zeros(n), -1.0), bounds=[*bounds, (None, 1.0)],
            A_ub=np.column_stack([-total[:, :n], np.ones(len(way))]),
            b_ub=total[:, n] + constant,
        )  # fmt: skip
        if found.status == 0 and -found.fun > 1e-9:
            return True
    return False


def _ways(formula):
    """Every set of leaves that makes a formula true."""
    if isinstance(formula, Comparison):
        return [(formula,)]
    return [
        tuple(itertools.chain.from_iterable(way))
        for chosen in itertools.combinations(formula.parts, max(formula.n, 0))
        for way in itertools.product(*map(_ways, chosen))
    ]


def largest_violation(leaf, given, region, readout):
    """The largest `-leaf` over a box where conjunctive hypotheses hold (closed)."""
    rows = np.array([[float(x) for x in row] for row in rows_exactly(readout)])
    body = region.bodies[0]
    total = np.array([sum(w * rows[s] for s, w in c.terms) for c in comparisons(given)])
    goal = sum(w * rows[s] for s, w in leaf.terms)
    found = linprog(
        goal[:-1], A_ub=-total[:, :-1], b_ub=total[:, -1],
        bounds=list(zip(body.lower.tolist(), body.upper.tolist(), strict=True)),
    )  # fmt: skip
    return None if found.status else -found.fun - goal[-1] - leaf.constant
