"""Concept erasure: take a concept out of the classifier's embeddings and leave the rest alone.

A concept `q_c` of the vision-language space is read from an embedding as `q_c · A(z)`, which is
`(Wᵀ q_c) · z` up to a constant: `Wᵀ q_c` is its direction there. Erasing sets that reading to its
reference mean in every image. An eraser has two sides: `right`, what is read, and `left`, along
which the embedding moves. Orthogonal erasure moves along the direction itself, the shortest way;
LEACE moves the way the embeddings vary with the concept, the shortest on average over the images
after which nothing linear in the embedding tells the concept any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import linalg

from faultlens.alignment import AffineMap
from faultlens.arrays import FloatArray, check_array, read_only
from faultlens.errors import InputError, ShapeError

#: Concepts more alike than this are one concept when they are erased together.
_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Eraser:
    """Erases C concepts together: `z - leftᵀ G⁺ right (z - mean)` with `G = right leftᵀ`.

    `G` is symmetric and has no negative eigenvalue: `orthogonal_eraser` and `leace_eraser` build
    nothing else.

    Attributes:
        mean: (D,) where the reading of every concept ends.
        left: (C, D) along which embeddings move.
        right: (C, D) what is read.
    """

    mean: Float[np.ndarray, "D"]
    left: Float[np.ndarray, "C D"]
    right: Float[np.ndarray, "C D"]

    @property
    def inverse_gram(self) -> Float[np.ndarray, "C C"]:
        """(C, C) pseudo-inverse of `right leftᵀ`."""
        gram = self.right @ self.left.T
        return np.asarray(np.linalg.pinv((gram + gram.T) / 2, rcond=_TOLERANCE, hermitian=True))

    def only(self, concepts: Sequence[int]) -> "Eraser":
        """Return the eraser of some of the concepts."""
        rows = list(concepts)
        return Eraser(self.mean, self.left[rows], self.right[rows])

    def read(self, embeddings: FloatArray) -> NDArray[np.float64]:
        """Return (N, C) readings of the concepts, zero at the mean."""
        return np.asarray((np.asarray(embeddings, np.float64) - self.mean) @ self.right.T)

    def change(self, embeddings: FloatArray) -> NDArray[np.float64]:
        """Return (N, D): what erasing takes away from each embedding."""
        return np.asarray(self.read(embeddings) @ self.inverse_gram @ self.left)

    def __call__(self, embeddings: FloatArray) -> NDArray[np.float64]:
        """Return (N, D) erased embeddings.

        Raises:
            ShapeError: Embeddings of another dimension.
        """
        z = check_array(embeddings, "N D", name="embeddings")
        if z.shape[1] != len(self.mean):
            raise ShapeError(
                f"embeddings must have {len(self.mean)} columns, as the eraser does, "
                f"got {z.shape[1]}; give embeddings of the same model and split"
            )
        return z - self.change(z)


def embedding_directions(fitted: AffineMap, directions: FloatArray) -> NDArray[np.float64]:
    """Pull concept directions back through the map: row c is `Wᵀ q_c`.

    Args:
        fitted: The affine map from embeddings (D) to the vision-language space (E).
        directions: (C, E) unit.

    Returns:
        (C, D), not normalised: `z @ out.T` differs from `A(z) @ directions.T` by a constant.

    Example:
        >>> weight = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]], np.float32)
        >>> fitted = AffineMap(weight, np.zeros(2, np.float32), ridge=0.0, n=9)
        >>> embedding_directions(fitted, np.array([[0.0, 1.0]])).tolist()
        [[0.0, 1.0, 1.0]]
    """
    q = check_array(directions, "C E", name="directions")
    return np.asarray(q, np.float64) @ np.asarray(fitted.weight, np.float64)


def orthogonal_eraser(directions: FloatArray, mean: FloatArray) -> Eraser:
    """Erase by orthogonal projection, the least change of each single embedding.

    Args:
        directions: (C, D) in embedding space, any length, from `embedding_directions`.
        mean: (D,) mean embedding of the reference images. Strengths are centred by it, so an
            image that lacks the concept gains what the average image has of it; the mean of the
            erased embeddings stays.

    Raises:
        ShapeError: Arrays of the wrong shape, or not finite.

    Example:
        >>> erase = orthogonal_eraser(np.array([[0.0, 2.0]]), np.array([5.0, 1.0]))
        >>> erase(np.array([[3.0, 4.0]])).tolist()
        [[3.0, 1.0]]
    """
    u = np.array(check_array(directions, "C D", name="directions"), np.float64)
    centre = np.array(check_array(mean, "D", name="mean"), np.float64)
    if u.shape[1] != len(centre):
        raise ShapeError(
            f"mean must have {u.shape[1]} entries, as the directions do, got {len(centre)}; "
            "take both from the same model and split"
        )
    return Eraser(read_only(centre), read_only(u), u)


def leace_eraser(embeddings: FloatArray, scores: FloatArray) -> Eraser:
    """Fit least-squares concept erasure (LEACE).

    Among all affine maps after which no linear function of the embedding correlates with the
    scores, it changes the embeddings least (mean square over the reference images). With
    `x = z - E z` and the whitening `M = (Σ_zz^½)⁺`, it is `z - M⁺ P M x` with P the orthogonal
    projection on the columns of `M Σ_zs`. Written out, `left = Σ_sz` and `right = Σ_sz Σ_zz⁺`.

    Args:
        embeddings: (N, D) of reference images.
        scores: (N, C) what to erase: strengths, 0/1 attribute labels, or one-hot classes.
            Labels are regressed on the embedding, so they need more images than dimensions;
            readings that are linear in it, as `embeddings @ embedding_directions(…).T`, do not.

    Raises:
        ShapeError: Arrays that do not match, or are not finite.
        InputError: Fewer than two images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
        >>> is_wet = (z[:, :1] + rng.normal(size=(300, 1)) > 0) * 1.0
        >>> erased = leace_eraser(z, is_wet)(z)
        >>> bool(np.abs((erased - erased.mean(axis=0)).T @ is_wet).max() < 1e-9)
        True

    References:
        Belrose et al., LEACE: Perfect linear concept erasure in closed form, NeurIPS 2023,
        arXiv:2306.03819, section 4. Deviation: scores may be real numbers (the theorem asks only
        for their covariance with the embedding).
    """
    z = np.asarray(check_array(embeddings, "N D", name="embeddings"), np.float64)
    s = np.asarray(check_array(scores, "N C", name="scores"), np.float64)
    if len(z) != len(s):
        raise ShapeError(f"scores must have one row an embedding ({len(z)}), got {len(s)}")
    if len(z) < 2:
        raise InputError("embeddings must be of at least 2 images, got 1; give more images")
    mean = z.mean(axis=0)
    x = z - mean
    cross = (s - s.mean(axis=0)).T @ x / len(z)
    values, vectors = linalg.eigh(x.T @ x / len(z))
    # Where the reference images do not vary there is nothing to whiten.
    floor = max(float(values[-1]), 0.0) * max(z.shape) * np.finfo(float).eps
    kept = values > floor
    basis = vectors[:, kept] / np.sqrt(values[kept])
    right = (cross @ basis) @ basis.T
    return Eraser(read_only(mean), read_only(cross), read_only(right))
