"""Counterfactual edits: the least change of concepts after which the prediction is another.

"Would be truck with less wet, more wheels." An edit adds to an embedding a combination of concept
moves, each one standard deviation of its concept over the reference images long. Two prices:
`l2` spreads the change (least weighted sum of squares), `l1` prefers few concepts (least weighted
sum of amounts). For an affine head both are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import optimize

from faultlens.arrays import FloatArray, IntArray, check_array, read_only
from faultlens.errors import InputError, ShapeError, nearest
from faultlens.localize.causal import HeadFunction, logit_changes
from faultlens.localize.erase import Eraser

Norm = Literal["l2", "l1"]
NORMS: tuple[Norm, ...] = ("l2", "l1")
#: Edits of a thousand standard deviations are no explanation: called impossible.
MAX_AMOUNT = 1e3
#: Changes below this share of the largest are not worth a word; at most so many are named.
_NAMED_SHARE = 0.1
_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class ConceptMoves:
    """By how much an embedding moves when one concept grows by one standard deviation.

    Attributes:
        concepts: C names.
        moves: (C, D).
        price: (C,) positive; a concept with a higher price is changed less.
    """

    concepts: tuple[str, ...]
    moves: Float[np.ndarray, "C D"]
    price: Float[np.ndarray, "C"]


@dataclass(frozen=True, slots=True, eq=False)
class Counterfactual:
    """The least edit of one image towards one class.

    Attributes:
        target: The class wished for.
        amounts: (C,) in standard deviations of each concept, positive: more of it; NaN where no
            edit leads there.
        cost: What was minimised, in standard deviations: `sqrt(Σ price a²)` or `Σ price |a|`.
        prediction: The head's class of the edited embedding.
    """

    target: int
    amounts: Float[np.ndarray, "C"]
    cost: float
    prediction: int

    @property
    def is_found(self) -> bool:
        """Whether the head, asked again, says the target."""
        return self.prediction == self.target and bool(np.isfinite(self.amounts).all())


def concept_moves(
    concepts: Sequence[str],
    eraser: Eraser,
    embeddings: FloatArray,
    price: FloatArray | None = None,
) -> ConceptMoves:
    """Scale an eraser's moves to one standard deviation of each concept.

    With an orthogonal eraser a concept changes along its own direction; with LEACE, as the
    embeddings vary with it. Either way its reading changes by exactly one standard deviation;
    those of similar concepts change along.

    Args:
        concepts: C names.
        eraser: Of these concepts.
        embeddings: (N, D) of reference images.
        price: (C,) see `ConceptMoves`; 1 if None.

    Raises:
        InputError: Names or prices do not match the eraser, or a price is not positive.

    Example:
        >>> from faultlens.localize.erase import orthogonal_eraser
        >>> z = np.array([[0.0, 2.0], [0.0, -2.0]])
        >>> concept_moves(["wet"], orthogonal_eraser(np.array([[0.0, 5.0]]), np.zeros(2)), z).moves
        array([[0., 2.]])
    """
    c = len(eraser.left)
    prices = np.ones(c) if price is None else np.array(check_array(price, "C", name="price"), float)
    if len(concepts) != c or len(prices) != c:
        raise InputError(
            f"concepts and price must have {c} entries, as the eraser does, got {len(concepts)} "
            f"and {len(prices)}; give one for each concept"
        )
    if not (prices > 0).all():
        raise InputError(f"price must be positive, got {prices.min()}; leave the concept out")
    spread = eraser.read(check_array(embeddings, "N D", name="embeddings")).std(axis=0)
    length = (eraser.left * eraser.right).sum(axis=1)
    scale = np.where(length > 0, spread / np.where(length > 0, length, 1), 0)
    return ConceptMoves(tuple(concepts), read_only(scale[:, None] * eraser.left), read_only(prices))


def smallest_edits(
    embeddings: FloatArray,
    targets: IntArray,
    head: HeadFunction,
    moves: ConceptMoves,
    norm: Norm = "l2",
    margin: float = 1e-3,
) -> list[Counterfactual]:
    """Find for each image the least change of concepts that makes the head predict the target.

    Minimises the norm of the amounts `a` subject to `logit_target - logit_k >= margin` for every
    other class k at `z + a @ moves`. With one binding class the l2 answer is in closed form;
    otherwise it is the dual of a non-negative least squares problem. l1 is a linear programme.

    Args:
        embeddings: (N, D).
        targets: (N,) classes wished for, usually the labels of errors.
        head: An affine head, `(n, D) -> (n, K)`. Another head is linearised at the origin, which
            the check by prediction will mostly refuse.
        moves: From `concept_moves`.
        norm: `l2` or `l1`.
        margin: In logits; keeps the edited image off the border.

    Returns:
        One an image; see `Counterfactual.is_found`.

    Raises:
        InputError: Unknown norm, or a margin that is not positive.
        ShapeError: Arrays that do not match.

    Example:
        >>> head = lambda z: np.c_[z[:, 0], np.zeros(len(z))]
        >>> moves = ConceptMoves(("wet",), np.array([[2.0, 0.0]]), np.ones(1))
        >>> [edit] = smallest_edits(np.array([[3.0, 1.0]]), np.array([1]), head, moves)
        >>> edit.amounts.round(2).tolist(), describe(edit, moves.concepts, ("boat", "truck"))
        ([-1.5], 'would be truck with less wet (1.5 sd)')

    References:
        Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23 (least distance
        programming by NNLS). Wachter et al., Harvard JOLT 2018, for the idea of the nearest
        counterfactual; here exact, and along named concepts only.
    """
    z = np.asarray(check_array(embeddings, "N D", name="embeddings"), np.float64)
    y = check_array(targets, "N", name="targets", kind="int")
    if len(z) != len(y) or z.shape[1] != moves.moves.shape[1]:
        raise ShapeError(
            f"embeddings must have shape ({len(y)}, {moves.moves.shape[1]}) to fit targets and "
            f"moves, got {z.shape}; give embeddings of the same model and split"
        )
    if norm not in NORMS:
        raise InputError(f"norm must be one of {NORMS}, got '{norm}'; {nearest(norm, NORMS)}")
    if not margin > 0:
        raise InputError(f"margin must be positive, got {margin}; a tie is no prediction")
    logits = np.asarray(head(z), np.float64)
    weights = logit_changes(head, moves.moves).T
    least = _least_squares if norm == "l2" else _least_sum
    amounts = np.full((len(z), len(moves.price)), np.nan)
    for i, k in enumerate(y):
        gains, needed = _constraints(weights, logits[i], int(k), margin)
        if np.isfinite(needed).all():
            amounts[i] = least(gains, needed, moves.price)
    amounts[(np.abs(amounts) > MAX_AMOUNT).any(axis=1)] = np.nan
    # Where nothing was found the embedding stays as it is.
    after = np.asarray(head(z + np.nan_to_num(amounts) @ moves.moves)).argmax(axis=1)
    return [
        Counterfactual(int(k), read_only(a.copy()), _cost(a, moves.price, norm), int(p))
        for k, a, p in zip(y, amounts, after, strict=True)
    ]


def _cost(a: FloatArray, price: FloatArray, norm: Norm) -> float:
    return float((price * np.abs(a)).sum() if norm == "l1" else np.sqrt((price * a**2).sum()))


def _constraints(
    weights: FloatArray, logits: FloatArray, target: int, margin: float
) -> tuple[FloatArray, FloatArray]:
    """Return `gains` (k, C) and `needed` (k,): the target wins where `gains @ a >= needed`.

    Classes that are never answered (logit -inf) are no rivals; as a target they need infinity.
    """
    rivals = np.flatnonzero(np.isfinite(logits))
    rivals = rivals[rivals != target]
    if not np.isfinite(logits[target]):
        return np.zeros((1, weights.shape[1])), np.array([np.inf])
    return weights[target] - weights[rivals], logits[rivals] - logits[target] + margin


def _least_squares(gains: FloatArray, needed: FloatArray, price: FloatArray) -> FloatArray:
    """Minimise `Σ price a²`; NaN if infeasible."""
    root = np.sqrt(price)
    g = gains / root
    length = np.linalg.norm(g, axis=1)
    nothing = np.full(len(price), np.nan)
    if (needed[length == 0] > 0).any():
        return nothing
    g, h = g[length > 0] / length[length > 0, None], needed[length > 0] / length[length > 0]
    if not len(h) or h.max() <= 0:
        return np.zeros(len(price))
    # No answer is nearer than the farthest single constraint; if that one does, it is the answer.
    far = int(h.argmax())
    alone = h[far] * g[far]
    if (g @ alone >= h - 1e-12 * h[far]).all():
        return np.asarray(alone / root)
    u = optimize.nnls(np.vstack([g.T, h / h[far]]), np.r_[np.zeros(len(price)), 1.0])[0]
    rest = np.r_[u @ g, u @ h / h[far] - 1.0]
    # |rest|² = -rest[-1] = 1 / (1 + |a|²) in units of h[far]: nearly zero means no solution.
    if -rest[-1] < (h[far] / (MAX_AMOUNT * root.max())) ** 2 / 2 or rest[-1] >= 0:
        return nothing
    return np.asarray(-h[far] * rest[:-1] / rest[-1] / root)


def _least_sum(gains: FloatArray, needed: FloatArray, price: FloatArray) -> FloatArray:
    """Minimise `Σ price |a|`; NaN if infeasible."""
    result = optimize.linprog(
        np.r_[price, price], A_ub=np.hstack([-gains, gains]), b_ub=-needed, method="highs"
    )
    if result.x is None:
        return np.full(len(price), np.nan)
    more, less = np.split(result.x, 2)
    return np.asarray(more - less)


def describe(edit: Counterfactual, concepts: Sequence[str], classes: Sequence[str]) -> str:
    """Say an edit in words: at most three concepts, largest change first, in standard deviations.

    Example:
        >>> edit = Counterfactual(1, np.array([0.5, -2.0, 0.0]), 2.1, 1)
        >>> describe(edit, ("wheels", "wet", "fur"), ("ship", "truck"))
        'would be truck with less wet (2.0 sd), more wheels (0.5 sd)'
    """
    name = classes[edit.target]
    if not edit.is_found:
        return f"would not be {name} by any change of these concepts"
    size = np.abs(edit.amounts)
    if not size.any():
        return f"is {name} already"
    worth = [int(c) for c in np.argsort(-size) if size[c] >= _NAMED_SHARE * size.max()]
    changes = [
        f"{'more' if edit.amounts[c] > 0 else 'less'} {concepts[c]} ({size[c]:.1f} sd)"
        for c in worth[:_NAMED]
    ]
    rest = np.count_nonzero(size) - len(changes)
    if rest and len(worth) > _NAMED:
        changes.append("and smaller changes of others")
    return f"would be {name} with {', '.join(changes)}"
