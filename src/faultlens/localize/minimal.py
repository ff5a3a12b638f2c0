"""Minimal sets: the fewest concepts that together carry a group's wrong predictions.

A *contrastive* set flips predictions when it is erased; an *abductive* one keeps them when
everything else is erased (Canizales et al., arXiv:2605.06640). There the sets of one image are
enumerated and counted over a group; here one set is sought for the whole group, the smallest that
serves a required share of its errors, since that is what a person repairs. Deviations besides: no
enumeration of all minimal sets, and erasure happens in the classifier's own embeddings, not in the
vision-language space with a second map back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.errors import InputError, nearest
from faultlens.localize.causal import HeadFunction, Part, logit_changes
from faultlens.localize.erase import Eraser
from faultlens.stats import wilson

#: `truth`: erased, the set makes the prediction right; `away`: it leaves the wrong class;
#: `keep`: with all other concepts erased, the wrong class stays.
Goal = Literal["truth", "away", "keep"]
GOALS: tuple[Goal, ...] = ("truth", "away", "keep")
#: Up to so many concepts every set of a size is tried.
EXACT_CONCEPTS = 12

_Set = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConceptSet:
    """One set of concepts and the errors it serves.

    Attributes:
        concepts: Indices, ascending.
        count: Errors that reach the goal.
        share: As a share of the group's errors.
        interval: 95 % Wilson interval of the share. The set was chosen on these images, so look
            at others before believing it.
    """

    concepts: tuple[int, ...]
    count: int
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class MinimalSets:
    """What the search found.

    Attributes:
        goal: As asked.
        n: Errors of the group.
        by_size: The best set of each size tried, from the empty set on.
        smallest: The first that serves the required share; None if none does.
        bound: No set of these concepts can serve a larger share; 1 where nothing is known.
        is_exact: Whether every set of the sizes tried was looked at.
    """

    goal: Goal
    n: int
    by_size: tuple[ConceptSet, ...]
    smallest: ConceptSet | None
    bound: float
    is_exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """A part's errors, with what an affine head needs to re-predict any set in C dimensions."""

    eraser: Eraser
    head: HeadFunction
    embeddings: FloatArray
    target: IntArray
    logits: FloatArray
    strengths: FloatArray
    gram: FloatArray
    weights: FloatArray | None

    @classmethod
    def of(cls, part: Part, head: HeadFunction, goal: Goal, is_affine: bool) -> "_Errors":
        z = np.asarray(part.embeddings, np.float64)
        logits = np.asarray(head(z), np.float64)
        before, e = logits.argmax(axis=1), part.eraser
        wrong = before != part.labels
        target = part.labels if goal == "truth" else before
        weights = logit_changes(head, e.left) if is_affine else None
        gram = e.right @ e.left.T
        return cls(
            e, head, z[wrong], np.asarray(target)[wrong], logits[wrong], e.read(z[wrong]),
            (gram + gram.T) / 2, weights,
        )  # fmt: skip

    def erased(self, concepts: Sequence[int]) -> FloatArray:
        """(n, K) logits without these concepts."""
        chosen = list(concepts)
        if not chosen or not len(self.target):
            return self.logits
        if self.weights is None:
            eraser = self.eraser.only(chosen)
            return np.asarray(self.head(self.embeddings - eraser.change(self.embeddings)))
        inverse = np.linalg.pinv(self.gram[np.ix_(chosen, chosen)], rcond=1e-10, hermitian=True)
        return self.logits - self.strengths[:, chosen] @ inverse @ self.weights[chosen]

    def can_reach(self, goal: Goal) -> BoolArray:
        """(n,) False for images that no set can serve, whatever projection it amounts to.

        A logit difference `d·x` falls by `dᵀPx` when P is projected out. Over all projections
        within the span of the concepts that is at most `(d·x + |d||x|) / 2`, both projected there.
        """
        if self.weights is None or goal == "keep":
            return np.ones(len(self.target), bool)
        inverse = np.linalg.pinv(self.gram, rcond=1e-10, hermitian=True)
        rows = np.arange(len(self.target))
        w, s = self.weights.T, self.strengths
        own = w[self.target]
        s_inverse = s @ inverse
        product = s_inverse @ self.weights - (s_inverse * own).sum(axis=1, keepdims=True)
        # |w_k - w_target|², expanded so that nothing exceeds n × K.
        squares = ((w @ inverse) * w).sum(axis=1)
        d2 = squares + squares[self.target][:, None] - 2 * (own @ inverse) @ self.weights
        x2 = (s_inverse * s).sum(axis=1, keepdims=True)
        reach = np.sqrt(np.maximum(d2, 0) * np.maximum(x2, 0))
        with np.errstate(invalid="ignore"):
            ahead = self.logits - self.logits[rows, self.target][:, None]
        slack = 1e-9 * (1 + np.abs(np.where(np.isfinite(ahead), ahead, 0)))
        if goal == "truth":  # every rival must fall behind the truth
            return np.asarray((ahead <= (product + reach) / 2 + slack).all(axis=1))
        overtakes = ahead + (reach - product) / 2 + slack >= 0
        overtakes[rows, self.target] = False
        return np.asarray(overtakes.any(axis=1))

    def only(self, images: BoolArray) -> "_Errors":
        """Leave images out."""
        return replace(
            self, embeddings=self.embeddings[images], target=self.target[images],
            logits=self.logits[images], strengths=self.strengths[images],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """Counts what sets do to the errors of all parts."""

    errors: tuple[_Errors, ...]
    goal: Goal
    n_concepts: int

    def _erased(self, concepts: _Set) -> Iterable[tuple[FloatArray, IntArray]]:
        out: Sequence[int] = concepts
        if self.goal == "keep":
            out = [c for c in range(self.n_concepts) if c not in concepts]
        return ((e.erased(out), e.target) for e in self.errors)

    def count(self, concepts: _Set) -> int:
        """Images that the set serves."""
        wanted = self.goal != "away"
        return sum(
            int(((logits.argmax(axis=1) == target) == wanted).sum())
            for logits, target in self._erased(concepts)
        )

    def missing(self, concepts: _Set) -> float:
        """Logits by which all images together still miss the goal."""
        sign = 1 if self.goal == "away" else -1
        total = 0.0
        for logits, target in self._erased(concepts):
            rows = np.arange(len(target))
            rest = logits.copy()
            rest[rows, target] = -np.inf
            total += float(np.maximum(sign * (logits[rows, target] - rest.max(axis=1)), 0).sum())
        return total

    def best(self, candidates: Sequence[_Set]) -> _Set:
        """The set that serves most images, among equals the one that misses least."""
        counts = [self.count(s) for s in candidates]
        equal = [s for s, count in zip(candidates, counts, strict=True) if count == max(counts)]
        return equal[0] if len(equal) == 1 else min(equal, key=self.missing)

    def of_size(self, size: int, smaller: _Set) -> _Set:
        """The best set of a size: of all for few concepts, else of those that grow `smaller`."""
        every = range(self.n_concepts)
        if self.n_concepts <= EXACT_CONCEPTS:
            return self.best(list(combinations(every, size)))
        return self.best([tuple(sorted((*smaller, c))) for c in every if c not in smaller])

    def pruned(self, found: _Set, needed: int) -> _Set:
        """Drop concepts, the most dispensable first, while enough images are still served."""
        while found:
            smaller = self.best([tuple(c for c in found if c != drop) for drop in found])
            if self.count(smaller) < needed:
                return found
            found = smaller
        return found


def smallest_set(
    parts: Sequence[Part],
    head: HeadFunction,
    goal: Goal = "truth",
    required: float = 0.5,
    max_size: int = 6,
    is_affine: bool = False,
) -> MinimalSets:
    """Find the fewest concepts that serve a required share of the group's errors together.

    Up to 12 concepts every set of a size is tried before the next size, so the answer is the
    smallest there is. Beyond, concepts are added greedily (most errors served, then the smallest
    remaining distance to the goal) and dispensable ones dropped again; that may miss a smaller
    set. For an affine head a bound comes first: errors that no projection can serve are left out
    of the search, and a share that they put out of reach is not searched for.

    Args:
        parts: The group's images, with erasers of all C concepts; images that the head gets
            right are left out.
        head: `(n, D) embeddings -> (n, K) logits`.
        goal: See `Goal`.
        required: Share of the errors, in (0, 1].
        max_size: Largest set tried.
        is_affine: Whether the head is a single affine layer; then a set costs `n × K`.

    Raises:
        InputError: No part, an unknown goal, or a share or size out of range.

    Example:
        >>> from faultlens.localize.erase import orthogonal_eraser
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(300, 6))
        >>> y = (z[:, 0] > 0).astype(int)
        >>> def head(z):
        ...     return np.c_[np.zeros(len(z)), z[:, 0] + 2 * z[:, 1] + 2 * z[:, 2]]
        >>> part = Part(orthogonal_eraser(np.eye(6)[:4], np.zeros(6)), z, y)
        >>> found = smallest_set([part], head, required=0.9, is_affine=True)
        >>> found.smallest.concepts, found.smallest.share, found.is_exact
        ((1, 2), 1.0, True)

    References:
        Canizales, Gopinath, Pasareanu, Mangal, Concept-Based Abductive and Contrastive
        Explanations for Behaviors of Vision Models, arXiv:2605.06640; deviations above.
    """
    _check(parts, goal, required, max_size)
    every = [_Errors.of(p, head, goal, is_affine) for p in parts]
    reachable = [e.can_reach(goal) for e in every]
    n, n_reachable = sum(map(len, reachable)), int(sum(r.sum() for r in reachable))
    errors = tuple(e.only(r) for e, r in zip(every, reachable, strict=True))
    search = _Search(errors, goal, len(parts[0].eraser.left))
    needed = max(1, int(np.ceil(required * n - 1e-9)))
    chosen = [()] if n_reachable < needed else _by_size(search, needed, max_size)
    by_size = tuple(_concept_set(s, search.count(s), n) for s in chosen)
    return MinimalSets(
        goal=goal,
        n=n,
        by_size=by_size,
        smallest=by_size[-1] if by_size[-1].count >= needed else None,
        bound=n_reachable / n if n else 0.0,
        is_exact=search.n_concepts <= EXACT_CONCEPTS,
    )


def _by_size(search: _Search, needed: int, max_size: int) -> list[_Set]:
    """The best set of each size, up to the first that serves enough images."""
    sets: list[_Set] = [()]
    while search.count(sets[-1]) < needed and len(sets) <= min(max_size, search.n_concepts):
        sets.append(search.of_size(len(sets), sets[-1]))
    if search.n_concepts > EXACT_CONCEPTS and search.count(sets[-1]) >= needed:
        found = search.pruned(sets[-1], needed)
        sets = [*sets[: len(found)], found]
    return sets


def _check(parts: Sequence[Part], goal: str, required: float, max_size: int) -> None:
    if not parts:
        raise InputError("parts must hold at least one part, got none; give the group's images")
    if goal not in GOALS:
        raise InputError(f"goal must be one of {GOALS}, got '{goal}'; {nearest(goal, GOALS)}")
    if not 0 < required <= 1:
        raise InputError(f"required must be in (0, 1], got {required}; give a share of the errors")
    if max_size < 1:
        raise InputError(f"max_size must be at least 1, got {max_size}; raise it")


def _concept_set(concepts: _Set, count: int, n: int) -> ConceptSet:
    low, high = wilson(count, n)
    share = count / n if n else float("nan")
    return ConceptSet(concepts, count, share, (float(low), float(high)))
