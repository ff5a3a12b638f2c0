"""Alignment: the affine map from the classifier's embeddings into the vision-language space.

`A(z) = W z + b` predicts the VLM's unit-length image embedding `v` from the classifier's `z`
(Text2Concept, Moayeri et al., ICML 2023, arXiv:2305.06386). Deviation: a closed-form ridge from
mergeable sums instead of gradient steps; its strength is chosen on held-out images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_info, threadpool_limits

from faultlens.arrays import (
    Array,
    BoolArray,
    Embeddings,
    FloatArray,
    IntArray,
    VlmEmbeddings,
    check_array,
    read_only,
)  # fmt: skip
from faultlens.errors import InputError, ShapeError

#: Images whose products are one matrix multiplication.
BLOCK = 8192
#: Images whose blocks are added up one after the other; then parts are added up likewise. Fixed, so
#: that a sum has the same bits whoever computed which part, on however many machines.
PART = 16 * BLOCK
#: Ridge strengths tried, relative to the mean variance of an embedding dimension.
RIDGE_GRID = np.logspace(-6, 2, 25)


def normalize(x: FloatArray) -> FloatArray:
    """Return rows of unit length; a zero row stays zero.

    Example:
        >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1))


class Rows(Protocol):
    """Rows that are given out in slices: an array, or a column of a store on disk."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, rows: slice, /) -> Array:
        """Return some consecutive rows."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentSums:
    """Sums that the map is solved from; they add up, so shards merge.

    Merging in another order changes the last bits. `of` and `total` keep to one order: blocks of
    `BLOCK` images are added up from left to right within each part of `PART` images, and parts
    from left to right. So the total of the sums of all parts is `of` all images, bit for bit.

    Attributes:
        n: Images.
        z: (D,) sum of embeddings.
        v: (E,) sum of unit VLM embeddings.
        zz: (D, D) sum of outer products.
        zv: (D, E) likewise.
        vv: (E,) sum of squares.
    """

    n: int
    z: NDArray[np.float64]
    v: NDArray[np.float64]
    zz: NDArray[np.float64]
    zv: NDArray[np.float64]
    vv: NDArray[np.float64]

    @classmethod
    def of(
        cls, embeddings: Embeddings | Rows, vlm_embeddings: VlmEmbeddings | Rows,
        n_threads: int | None = None,
    ) -> "AlignmentSums":  # fmt: skip
        """Sum over images in blocks, in double precision; targets are L2-normalised first.

        Each block is multiplied by one thread, so that its bits do not depend on their number.

        Args:
            embeddings: (N, D).
            vlm_embeddings: (N, E).
            n_threads: Blocks worked on at once; None takes as many as matrix products would.
        """
        n = len(embeddings)
        starts = [list(range(i, min(i + PART, n), BLOCK)) for i in range(0, n, PART)]

        def block(start: int) -> "AlignmentSums":
            rows = slice(start, start + BLOCK)
            return cls.of_block(embeddings[rows], vlm_embeddings[rows])

        n_threads = n_threads or (_n_threads() if n > BLOCK else 1)
        with threadpool_limits(1, user_api="blas"):
            blocks = _in_order(block, [start for part in starts for start in part], n_threads)
            return cls.total(cls.total(next(blocks) for _ in part) for part in starts)

    @classmethod
    def of_block(cls, embeddings: FloatArray, vlm_embeddings: FloatArray) -> "AlignmentSums":
        """Sum over the images of one block, by whole matrix products."""
        z = np.asarray(embeddings, np.float64)
        v = normalize(np.asarray(vlm_embeddings, np.float64))
        return cls(len(z), z.sum(0), v.sum(0), z.T @ z, z.T @ v, (v * v).sum(0))

    @classmethod
    def total(cls, parts: "Iterable[AlignmentSums]") -> "AlignmentSums":
        """Add up sums in their order, two in memory at a time.

        Raises:
            InputError: There is none.
        """
        total = None
        for part in parts:
            total = part._copy() if total is None else total._plus(part)
        if total is None:
            raise InputError("alignment must have images, got none; check the reference split")
        return total

    def _copy(self) -> "AlignmentSums":
        arrays = (self.z, self.v, self.zz, self.zv, self.vv)
        return type(self)(self.n, *(a.copy() for a in arrays))

    def _plus(self, other: "AlignmentSums") -> "AlignmentSums":
        """Add in place."""
        for name in ("z", "v", "zz", "zv", "vv"):
            array = getattr(self, name)
            np.add(array, getattr(other, name), out=array)
        return type(self)(self.n + other.n, self.z, self.v, self.zz, self.zv, self.vv)

    def __add__(self, other: "AlignmentSums") -> "AlignmentSums":
        return type(self)(
            self.n + other.n, self.z + other.z, self.v + other.v,
            self.zz + other.zz, self.zv + other.zv, self.vv + other.vv,
        )  # fmt: skip

    def centred(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return scatter `(zz, zv, vv)` about the means."""
        mean_z, mean_v = self.z / self.n, self.v / self.n
        return (
            self.zz - np.outer(self.z, mean_z),
            self.zv - np.outer(self.z, mean_v),
            self.vv - self.v * mean_v,
        )


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """`A(z) = W z + b`.

    Attributes:
        weight: W, (E, D) float32.
        bias: b, (E,) float32.
        ridge: λ relative to the mean variance of an embedding dimension.
        n: Images it was fitted on.
    """

    weight: Float[np.ndarray, "E D"]
    bias: Float[np.ndarray, "E"]
    ridge: float
    n: int

    def __call__(self, embeddings: Embeddings) -> VlmEmbeddings:
        """Map (N, D) to (N, E), not normalised."""
        if embeddings.shape[-1] != self.weight.shape[1]:
            raise ShapeError(
                f"embeddings must have {self.weight.shape[1]} dimensions, got "
                f"{embeddings.shape[-1]}; use the model that the map was fitted for"
            )
        return np.asarray(np.asarray(embeddings, np.float32) @ self.weight.T + self.bias)


def _n_threads() -> int:
    """Return how many threads matrix products may use now."""
    return max((i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"), default=1)


def _in_order(
    block: Callable[[int], AlignmentSums], starts: Sequence[int], n_threads: int
) -> Iterator[AlignmentSums]:
    """Yield the blocks in their order, at most one a thread finished and waiting."""
    if n_threads == 1:
        yield from map(block, starts)
        return
    waiting: deque[Future[AlignmentSums]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="faultlens-sums") as pool:
        for start in starts:
            waiting.append(pool.submit(block, start))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def choose_ridge(train: AlignmentSums, heldout: AlignmentSums) -> float:
    """Return the ridge of `RIDGE_GRID` with the least squared error on held-out sums.

    One eigendecomposition serves the whole grid: each candidate then costs O(D²).
    """
    szz, szv, _ = train.centred()
    values, vectors = linalg.eigh(szz)
    a = vectors.T @ szv
    # Held-out scatter about the *training* means, since that is what the map predicts from.
    mean_z, mean_v = train.z / train.n, train.v / train.n
    hz, hv = heldout.z - heldout.n * mean_z, heldout.v - heldout.n * mean_v
    hzz = heldout.zz - np.outer(heldout.z, mean_z) - np.outer(mean_z, hz)
    hzv = heldout.zv - np.outer(heldout.z, mean_v) - np.outer(mean_z, hv)
    b = vectors.T @ hzv
    linear = (a * b).sum(axis=1)
    quadratic = (vectors.T @ hzz @ vectors) * (a @ a.T)
    scale = max(float(np.trace(szz)) / len(szz), np.finfo(float).tiny)
    errors = []
    for ridge in RIDGE_GRID:
        w = 1 / (np.maximum(values, 0) + ridge * scale)
        errors.append(float(w @ quadratic @ w - 2 * linear @ w))
    return float(RIDGE_GRID[int(np.argmin(errors))])


def solve(sums: AlignmentSums, ridge: float) -> AffineMap:
    """Solve the ridge regression for one strength (relative, see `AffineMap.ridge`)."""
    szz, szv, _ = sums.centred()
    scale = max(float(np.trace(szz)) / len(szz), np.finfo(float).tiny)
    szz[np.diag_indices_from(szz)] += ridge * scale
    w = linalg.solve(szz, szv, assume_a="pos").T
    b = sums.v / sums.n - w @ (sums.z / sums.n)
    return AffineMap(
        read_only(w.astype(np.float32)), read_only(b.astype(np.float32)), ridge, sums.n
    )


def align(embeddings: FloatArray, vlm_embeddings: FloatArray, tune: BoolArray) -> AffineMap:
    """Fit the map on reference images.

    Args:
        embeddings: (N, D) of the classifier.
        vlm_embeddings: (N, E) of the VLM, any length.
        tune: (N,) the held-out part on which the ridge is chosen; the final map uses all N.

    Raises:
        ShapeError: Arrays that do not match, or are not finite.
        InputError: Fewer than two images on either side of `tune`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(200, 4))
        >>> fitted = align(z, z @ rng.normal(size=(4, 3)) + 1, np.arange(200) % 5 == 0)
        >>> fitted.weight.shape
        (3, 4)
    """
    z = check_array(embeddings, "N D", name="embeddings")
    v = check_array(vlm_embeddings, "N E", name="vlm_embeddings")
    if len(z) != len(v) or len(tune) != len(z):
        raise ShapeError(
            f"embeddings, vlm_embeddings and tune must have one row an image, "
            f"got {len(z)}, {len(v)} and {len(tune)}"
        )
    if min(tune.sum(), (~tune).sum()) < 2:
        raise InputError(f"alignment must have at least 4 images, got {len(z)}; give more images")
    train, heldout = AlignmentSums.of(z[~tune], v[~tune]), AlignmentSums.of(z[tune], v[tune])
    return fit(train, heldout)


def fit(train: AlignmentSums, heldout: AlignmentSums) -> AffineMap:
    """Fit the map: the ridge chosen on the held-out sums, the map solved from both.

    Args:
        train: Sums over the reference images but the held-out ones.
        heldout: Over these.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(200, 4))
        >>> fit(AlignmentSums.of(z[:160], z[:160]), AlignmentSums.of(z[160:], z[160:])).n
        200
    """
    return solve(train + heldout, choose_ridge(train, heldout))


def r_squared(truth: FloatArray, predicted: FloatArray) -> FloatArray:
    """Coefficient of determination of each column; NaN where the truth is constant.

    Example:
        >>> r_squared(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0]])).tolist()
        [0.5]
    """
    rest = ((truth - predicted) ** 2).sum(axis=0, dtype=np.float64)
    spread = ((truth - truth.mean(axis=0, dtype=np.float64)) ** 2).sum(axis=0, dtype=np.float64)
    return np.where(spread > 1e-12, 1 - rest / np.maximum(spread, 1e-12), np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentReport:
    """How good the map is, on images it was not fitted on.

    Attributes:
        r2: Overall, variance-weighted over dimensions.
        r2_dimensions: (E,).
        r2_concepts: (C,) of `q_c · v` against `q_c · A(z)`, not normalised.
        correlation2_concepts: (C,) squared correlation of the same pairs.
        mean_cosine: Between `A(z)` and `v`.
        zero_shot_map: Zero-shot accuracy of `A(z)` against the class directions.
        zero_shot_vlm: The VLM's own.
    """

    r2: float
    r2_dimensions: FloatArray
    r2_concepts: FloatArray
    correlation2_concepts: FloatArray
    mean_cosine: float
    zero_shot_map: float
    zero_shot_vlm: float


def evaluate(
    vlm_embeddings: VlmEmbeddings,
    mapped: VlmEmbeddings,
    concept_directions: FloatArray,
    class_directions: FloatArray,
    labels: IntArray,
) -> AlignmentReport:
    """Report the map's quality on held-out images; see `AlignmentReport`."""
    v = normalize(np.asarray(vlm_embeddings, np.float32))
    rest = ((v - mapped) ** 2).sum(dtype=np.float64)
    spread = ((v - v.mean(axis=0)) ** 2).sum(dtype=np.float64)
    truth, predicted = v @ concept_directions.T, mapped @ concept_directions.T
    centred_t, centred_p = truth - truth.mean(axis=0), predicted - predicted.mean(axis=0)
    scale = np.sqrt((centred_t**2).sum(axis=0) * (centred_p**2).sum(axis=0))
    correlation = (centred_t * centred_p).sum(axis=0) / np.where(scale > 0, scale, np.inf)
    return AlignmentReport(
        r2=float(1 - rest / max(spread, 1e-12)),
        r2_dimensions=r_squared(v, mapped),
        r2_concepts=r_squared(truth, predicted),
        correlation2_concepts=correlation**2,
        mean_cosine=float((v * normalize(mapped)).sum(axis=1).mean()),
        zero_shot_map=float((np.argmax(mapped @ class_directions.T, axis=1) == labels).mean()),
        zero_shot_vlm=float((np.argmax(v @ class_directions.T, axis=1) == labels).mean()),
    )
