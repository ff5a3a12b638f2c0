"""Causal confirmation: does erasing a concept repair the errors, more than erasing anything would?

A concept that correlates with errors need not cause them. It is confirmed only if taking it out of
the embeddings repairs more of a group's errors than 95 % of random directions of equal norm do.

**What is equalised.** Erasing moves image i by a change of norm `n_i`. A random twin erases a
random subspace of the same rank instead: the image moves against its own component in that
subspace (so, as in true erasure, towards the reference mean), rescaled to the norm `n_i`. Every
image is thus moved by exactly as much as by the concept; only the direction differs. Random
directions are uniform over the sphere, or, given `root`, of the form `root @ gaussian`: with the
map's `Wᵀ` they are random directions of the vision-language space, with reference embeddings
random directions of the data. Both are harder to beat, since they avoid directions that neither
the data nor the head uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faultlens.arrays import BoolArray, FloatArray, IntArray, check_array
from faultlens.errors import InputError, ShapeError
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize.erase import Eraser
from faultlens.stats import wilson

HeadFunction = Callable[[FloatArray], FloatArray]

LEVEL = 0.05
#: Fewer random directions than this cannot say "more than 95 %" with any certainty.
MIN_RANDOM = 99
#: Images of a group's errors, and of its correct images, beyond which the rates hardly change.
MAX_IMAGES = 2000
_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images with an eraser that was fitted without them; cross-fitting makes one a fold.

    Attributes:
        eraser: Of the same concepts, in the same order, in every part.
        embeddings: (n, D).
        labels: (n,).
    """

    eraser: Eraser
    embeddings: FloatArray
    labels: IntArray

    def __post_init__(self) -> None:
        z = check_array(self.embeddings, "N D", name="embeddings")
        y = check_array(self.labels, "N", name="labels", kind="int")
        if z.shape != (len(y), len(self.eraser.mean)):
            raise ShapeError(
                f"embeddings must have shape ({len(y)}, {len(self.eraser.mean)}) to fit labels "
                f"and eraser, got {z.shape}; give embeddings of the same model and split"
            )


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of images under erasure, beside the same share under random directions.

    Attributes:
        count: Images.
        n: Of so many.
        share: `count / n`; NaN without any.
        interval: 95 % Wilson interval of the share.
        random_mean: Mean share over the random directions.
        random_quantiles: Their 5 %, 50 % and 95 % quantiles.
    """

    count: int
    n: int
    share: float
    interval: tuple[float, float]
    random_mean: float
    random_quantiles: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What erasing a concept, or several together, does to a group.

    Attributes:
        repaired: Errors that become correct.
        moved: Errors whose prediction changes, to the truth or not.
        broken: Correct predictions that become errors.
        p_value: One-sided, that a random direction repairs as many errors:
            `(1 + number that do) / (1 + n_random)`.
        n_random: Random directions.
        relative_change: Mean norm of the change, as a share of the mean distance of these images
            from the reference mean.
    """

    repaired: Rate
    moved: Rate
    broken: Rate
    p_value: float
    n_random: int
    relative_change: float

    @property
    def is_confirmed(self) -> bool:
        """Whether it beats 95 % of random directions, on at least 10 errors."""
        return self.p_value <= LEVEL and self.repaired.n >= MIN_IMAGES


def sample_rows(errors: BoolArray, correct: BoolArray, rng: np.random.Generator) -> IntArray:
    """Choose the images to re-predict: the group's errors, and as many correct ones at most.

    Args:
        errors: (N,) the group.
        correct: (N,) correctly classified images to watch for damage.
        rng: For the choice; at most 2000 of either kind are taken.

    Returns:
        Sorted rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sample_rows(np.arange(6) < 2, np.arange(6) > 2, rng).tolist()
        [0, 1, 3, 4, 5]
    """
    chosen = [
        rng.permutation(np.flatnonzero(mask))[:MAX_IMAGES]
        for mask in (np.asarray(errors, bool), np.asarray(correct, bool))
    ]
    return np.unique(np.concatenate(chosen))


def logit_changes(head: HeadFunction, directions: FloatArray) -> NDArray[np.float64]:
    """Return (n, K): by how much an affine head's logits change along each of n directions.

    A class that the head never answers (logit -inf) does not change.

    Example:
        >>> head = lambda z: z @ np.array([[1.0, -1.0]]) + 7
        >>> logit_changes(head, np.array([[2.0]])).tolist()
        [[2.0, -2.0]]
    """
    origin = np.asarray(head(np.zeros((1, directions.shape[1]))), np.float64)
    with np.errstate(invalid="ignore"):
        change = np.asarray(head(directions), np.float64) - origin
    return np.where(np.isfinite(origin), change, 0.0)


def confirm(
    parts: Sequence[Part],
    head: HeadFunction,
    rng: np.random.Generator,
    is_affine: bool = False,
    n_random: int = 200,
    root: FloatArray | None = None,
) -> Confirmation:
    """Erase concepts, predict again, and compare with random directions of equal norm.

    An image is an error if `head` itself gets it wrong. All parts share the random directions,
    as they share the concept.

    Args:
        parts: Images with their erasers, a group's errors and correct images of its classes.
        head: `(n, D) embeddings -> (n, K) logits`.
        rng: For the random directions.
        is_affine: Whether the head is a single affine layer: then random directions cost one
            update of the logits each, instead of a pass through the head.
        n_random: At least 99.
        root: (D, m): random directions are `root @ gaussian`; uniform if None. See above.

    Returns:
        Shares with their intervals; the p-value is 1 where there is no error.

    Raises:
        InputError: No part, too few random directions, or a root that does not fit.

    Example:
        >>> from faultlens.localize.erase import orthogonal_eraser
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(200, 8))
        >>> y = (z[:, 0] > 0).astype(int)
        >>> def head(z):  # it also listens to the second dimension, and should not
        ...     return np.c_[np.zeros(len(z)), 3 * z[:, 0] + 3 * z[:, 1]]
        >>> part = Part(orthogonal_eraser(np.eye(8)[[1]], np.zeros(8)), z, y)
        >>> found = confirm([part], head, rng, is_affine=True)
        >>> found.repaired.share, found.broken.share, found.is_confirmed
        (1.0, 0.0, True)

    References:
        Belrose et al., arXiv:2306.03819, section 6 use erasure to measure reliance in the same
        way. Deviation: a permutation test against random erasure of equal norm.
    """
    if not parts:
        raise InputError("parts must hold at least one part, got none; give the group's images")
    if n_random < MIN_RANDOM:
        raise InputError(f"n_random must be at least {MIN_RANDOM}, got {n_random}; raise it")
    frames = _random_frames(parts, rng, n_random, root)
    counts = np.zeros((3, n_random + 1), np.int64)
    n = np.zeros(2, np.int64)
    size = np.zeros(2)
    for part in parts:
        twins = _Twins(part.eraser, head, frames, is_affine)
        for start in range(0, len(part.labels), _BLOCK):
            rows = slice(start, start + _BLOCK)
            z = np.asarray(part.embeddings[rows], np.float64)
            found, n_wrong = twins.count(z, np.asarray(part.labels[rows]))
            counts += found
            n += n_wrong, len(z) - n_wrong
            size += _length(part.eraser.change(z)).sum(), _length(z - part.eraser.mean).sum()
    return _report(counts, int(n[0]), int(n[1]), float(size[0] / size[1]) if size[1] else 0.0)


def _length(rows: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(rows, axis=-1))


def _random_frames(
    parts: Sequence[Part], rng: np.random.Generator, n_random: int, root: FloatArray | None
) -> NDArray[np.float64]:
    """(R, rank, D) orthonormal frames of random subspaces, of the rank that is erased."""
    d = len(parts[0].eraser.mean)
    rank = max(1, *(int(np.linalg.matrix_rank(p.eraser.left)) for p in parts))
    if root is None:
        draws = rng.normal(size=(n_random, d, rank))
    else:
        factor = np.asarray(check_array(root, "D m", name="root"), np.float64)
        if len(factor) != d or np.linalg.matrix_rank(factor) < rank:
            raise InputError(
                f"root must have {d} rows and a rank of at least {rank}, got shape "
                f"{factor.shape}; give reference embeddings, transposed, or the map's weight"
            )
        draws = factor @ rng.normal(size=(n_random, factor.shape[1], rank))
    return np.ascontiguousarray(np.linalg.qr(draws)[0].transpose(0, 2, 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Twins:
    """One eraser and its random twins, applied to blocks of images."""

    eraser: Eraser
    head: HeadFunction
    frames: NDArray[np.float64]
    is_affine: bool

    def count(self, z: NDArray[np.float64], labels: IntArray) -> tuple[IntArray, int]:
        """Return (3, 1 + R): repaired, moved and broken by each; and the number of errors."""
        base = np.asarray(self.head(z), np.float64)
        before = base.argmax(axis=1)
        wrong = before != labels
        change = self.eraser.change(z)
        after = np.empty((1 + len(self.frames), len(z)), np.int64)
        after[0] = np.asarray(self.head(z - change)).argmax(axis=1)
        after[1:] = self._twins(z, base, _length(change))
        repaired = (wrong & (after == labels)).sum(axis=1)
        moved = (wrong & (after != before)).sum(axis=1)
        broken = (~wrong & (after != labels)).sum(axis=1)
        return np.stack([repaired, moved, broken]), int(wrong.sum())

    def _twins(self, z: FloatArray, base: FloatArray, norm: FloatArray) -> IntArray:
        """Predictions (R, n): each twin is `n × K` numbers at a time."""
        n_random, rank, d = self.frames.shape
        flat = self.frames.reshape(-1, d)
        amounts = ((z - self.eraser.mean) @ flat.T).reshape(len(z), n_random, rank)
        length = _length(amounts)
        amounts *= (norm[:, None] / np.where(length > 0, length, np.inf))[:, :, None]
        out = np.empty((n_random, len(z)), np.int64)
        if self.is_affine:
            weights = logit_changes(self.head, flat).reshape(n_random, rank, -1)
        for r in range(n_random):
            if self.is_affine:
                logits = base - amounts[:, r] @ weights[r]
            else:
                logits = self.head(z - amounts[:, r] @ self.frames[r])
            out[r] = np.argmax(logits, axis=1)
        return out


def _rate(counts: IntArray, n: int) -> Rate:
    low, high = wilson(int(counts[0]), n)
    shares = counts / n if n else np.full(len(counts), np.nan)
    q = np.quantile(shares[1:], (0.05, 0.5, 0.95))
    return Rate(
        count=int(counts[0]),
        n=n,
        share=float(shares[0]),
        interval=(float(low), float(high)),
        random_mean=float(shares[1:].mean()),
        random_quantiles=(float(q[0]), float(q[1]), float(q[2])),
    )


def _report(
    counts: IntArray, n_errors: int, n_correct: int, relative_change: float
) -> Confirmation:
    repaired, moved, broken = counts
    random = repaired[1:]
    return Confirmation(
        repaired=_rate(repaired, n_errors),
        moved=_rate(moved, n_errors),
        broken=_rate(broken, n_correct),
        p_value=float((1 + (random >= repaired[0]).sum()) / (1 + len(random))),
        n_random=len(random),
        relative_change=relative_change,
    )
