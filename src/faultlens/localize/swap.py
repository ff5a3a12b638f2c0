"""The swap test: which errors go away when only the head is refitted on the frozen embeddings?

An error that the refitted head fixes was the head's. The refit is multinomial logistic regression
on reference images, so that no image judges itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from faultlens.arrays import BoolArray, Embeddings, FloatArray, IntArray, read_only

#: Penalties tried (per image, on standardised embeddings); the held-out part chooses.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
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


def _fit(x: FloatArray, y: IntArray, k: int, penalty: float, start: FloatArray) -> FloatArray:
    """Minimise mean cross-entropy + penalty/2 · ‖W‖²; the last column of the result is the bias."""
    n, d = x.shape
    rows = np.arange(n)

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        theta = flat.reshape(k, d + 1)
        weight = theta[:, :d]
        logits = x @ weight.T.astype(x.dtype) + theta[:, d].astype(x.dtype)
        log_p = logits - special.logsumexp(logits, axis=1, keepdims=True)
        loss = -float(log_p[rows, y].mean(dtype=np.float64))
        residual = np.exp(log_p)
        residual[rows, y] -= 1
        gradient = np.empty_like(theta)
        gradient[:, :d] = residual.T @ x / n + penalty * weight
        gradient[:, d] = residual.mean(axis=0)
        return loss + 0.5 * penalty * float((weight**2).sum()), gradient.ravel()

    options = {"maxiter": 150, "ftol": 1e-7, "gtol": 1e-4}
    result = optimize.minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return np.asarray(result.x).reshape(k, d + 1)


def refit_head(
    embeddings: Embeddings, labels: IntArray, n_classes: int, tune: BoolArray
) -> RefittedHead:
    """Fit a head on reference images.

    Args:
        embeddings: (N, D).
        labels: (N,).
        n_classes: K.
        tune: (N,) the held-out part that chooses the penalty; the final fit uses all N.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> z = np.eye(3)[y] * 3 + rng.normal(size=(300, 3))
        >>> head = refit_head(z, y, 3, np.arange(300) % 5 == 0)
        >>> bool((head(z).argmax(axis=1) == y).mean() > 0.8)
        True
    """
    z, y = np.asarray(embeddings, np.float32), labels
    if len(z) > MAX_IMAGES:
        # Every class keeps its share: a fixed stride over images sorted by class.
        keep = np.argsort(y, kind="stable")[np.linspace(0, len(z) - 1, MAX_IMAGES).astype(int)]
        z, y, tune = z[keep], y[keep], tune[keep]
    mean, std = z.mean(axis=0), z.std(axis=0)
    std = np.where(std > 1e-6 * max(float(std.max()), 1e-30), std, np.inf).astype(np.float32)
    x = (z - mean) / std
    theta = np.zeros((n_classes, z.shape[1] + 1))
    best, chosen, chosen_theta = np.inf, PENALTIES[-1], theta
    # From the strongest penalty down, each fit starting from the last one.
    for penalty in reversed(PENALTIES):
        theta = _fit(x[~tune], y[~tune], n_classes, penalty, theta)
        logits = x[tune] @ theta[:, :-1].T + theta[:, -1]
        log_p = logits - special.logsumexp(logits, axis=1, keepdims=True)
        loss = -float(log_p[np.arange(len(logits)), y[tune]].mean())
        if loss < best:
            best, chosen, chosen_theta = loss, penalty, theta
    theta = _fit(x, y, n_classes, chosen, chosen_theta)
    weight = theta[:, :-1] / std
    bias = theta[:, -1] - weight @ mean
    bias = np.where(np.bincount(y, minlength=n_classes) > 0, bias, -np.inf)
    return RefittedHead(read_only(weight), read_only(bias), chosen, len(z))
