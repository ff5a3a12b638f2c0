"""The swap test: which errors go away when only the head is refitted on the frozen embeddings?

An error that the refitted head fixes was the head's. The refit is class-balanced multinomial
logistic regression on reference images, so that no image judges itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize
from threadpoolctl import threadpool_limits

from faultlens.arrays import BoolArray, Embeddings, FloatArray, IntArray, read_only

#: Penalties tried (per image, on standardised embeddings); the held-out part chooses.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
#: More reference images than this change the refit little and cost much.
MAX_IMAGES = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class RefittedHead:
    """A linear head fitted on frozen embeddings.

    Attributes:
        weight: (K, D), in the embedding's own units.
        bias: (K,); -inf for a class without reference images.
        penalty: The chosen L2 penalty.
        n: Reference images used.
    """

    weight: Float[np.ndarray, "K D"]
    bias: Float[np.ndarray, "K"]
    penalty: float
    n: int

    def __call__(self, embeddings: Embeddings) -> FloatArray:
        """Return (N, K) logits."""
        return np.asarray(embeddings @ self.weight.T + self.bias)


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _loss(theta: FloatArray, x: FloatArray, y: IntArray) -> float:
    logits = x @ theta[:, :-1].T + theta[:, -1]
    return -float(_log_softmax(logits)[np.arange(len(y)), y].mean())


def _fit(x: FloatArray, y: IntArray, penalty: float, start: FloatArray) -> FloatArray:
    """Minimise cross-entropy + penalty/2 · ‖W‖²; the last column of the result is the bias.

    Every class weighs alike: the refit must not gain by knowing how frequent the classes are here.
    """
    n, d = x.shape
    rows = np.arange(n)
    counts = np.bincount(y, minlength=len(start))
    share = (1 / (np.count_nonzero(counts) * counts[y])).astype(x.dtype)

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        theta = flat.reshape(start.shape)
        weight = theta[:, :d]
        log_p = _log_softmax(x @ weight.T.astype(x.dtype) + theta[:, d].astype(x.dtype))
        loss = -float((share * log_p[rows, y]).sum(dtype=np.float64))
        residual = np.exp(log_p)
        residual[rows, y] -= 1
        residual *= share[:, None]
        gradient = np.empty_like(theta)
        gradient[:, :d] = residual.T @ x + penalty * weight
        gradient[:, d] = residual.sum(axis=0)
        return loss + 0.5 * penalty * float((weight**2).sum()), gradient.ravel()

    options = {"maxiter": 100, "ftol": 1e-6, "gtol": 1e-4}
    # Hundreds of small products: on a busy machine threads wait for each other a hundred times
    # longer than they compute.
    with threadpool_limits(1, user_api="blas"):
        result = optimize.minimize(
            objective, start.ravel(), jac=True, method="L-BFGS-B", options=options
        )
    return np.asarray(result.x).reshape(start.shape)


def choose_penalty(
    embeddings: Embeddings, labels: IntArray, n_classes: int, tune: BoolArray
) -> float:
    """Return the penalty with the least cross-entropy on the held-out part `tune`."""
    keep = _subset(labels)
    embeddings, labels, tune = embeddings[keep], labels[keep], tune[keep]
    x, _, _ = _standardized(np.asarray(embeddings, np.float32))
    theta = np.zeros((n_classes, x.shape[1] + 1))
    losses = []
    # From the strongest down, each fit starting from the last one.
    for penalty in PENALTIES:
        theta = _fit(x[~tune], labels[~tune], penalty, theta)
        losses.append(_loss(theta, x[tune], labels[tune]))
    return PENALTIES[int(np.argmin(losses))]


def _subset(labels: IntArray) -> IntArray:
    """At most `MAX_IMAGES` rows; every class keeps its share by a fixed stride."""
    if len(labels) <= MAX_IMAGES:
        return np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    return np.asarray(order[np.linspace(0, len(labels) - 1, MAX_IMAGES).astype(int)])


def _standardized(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    mean, std = z.mean(axis=0), z.std(axis=0)
    # A constant dimension says nothing: an infinite scale silences it.
    std = np.where(std > 1e-6 * max(float(std.max()), 1e-30), std, np.inf).astype(np.float32)
    return (z - mean) / std, mean, std


def refit_head(
    embeddings: Embeddings, labels: IntArray, n_classes: int, penalty: float
) -> RefittedHead:
    """Fit a head on reference images.

    Args:
        embeddings: (N, D).
        labels: (N,).
        n_classes: K.
        penalty: L2 strength, from `choose_penalty`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> z = np.eye(3)[y] * 3 + rng.normal(size=(300, 3))
        >>> head = refit_head(z, y, 3, penalty=1e-3)
        >>> bool((head(z).argmax(axis=1) == y).mean() > 0.8)
        True
    """
    keep = _subset(labels)
    z, y = np.asarray(embeddings[keep], np.float32), labels[keep]
    x, mean, std = _standardized(z)
    theta = _fit(x, y, penalty, np.zeros((n_classes, z.shape[1] + 1)))
    weight = theta[:, :-1] / std
    bias = theta[:, -1] - weight @ mean
    bias = np.where(np.bincount(y, minlength=n_classes) > 0, bias, -np.inf)
    return RefittedHead(read_only(weight), read_only(bias), penalty, len(z))
