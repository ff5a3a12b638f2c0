"""Stages: what each one inside an encoder knows of concepts and labels.

Every stage is read by itself, from its pooled activations: what a ridge map finds in them of the
vision-language space and of the labels, on images that the map never saw, and how its channels
behave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from faultlens import alignment
from faultlens.alignment import AlignmentSums, normalize
from faultlens.arrays import Array, BoolArray, FloatArray, IntArray, check_array, read_only
from faultlens.concepts import strengths
from faultlens.errors import InputError, ShapeError
from faultlens.localize.cues import present
from faultlens.stats import auroc

#: More images or channels change little and cost much.
MAX_IMAGES = 2000
MAX_CHANNELS = 512


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What one stage tells, on n held-out images.

    Attributes:
        name: As it was asked for.
        dimension: Channels.
        r2: Of the map into the vision-language space.
        auroc: Mean over concepts: the strength read through the map against where the concept is.
        is_right: (n,) images whose label a linear probe reads off the stage.
        error: (n,) squared error of the map, relative to the variance of its target.
        sizes: (D,) mean absolute activation of every channel, sorted.
        dead: Share of channels that do not change.
        accuracy: Of the probe.
        unevenness: Standard deviation of the logarithm of the living channels' sizes.
        scale: Root mean square size.
    """

    name: str
    dimension: int
    r2: float
    auroc: float
    is_right: BoolArray
    error: FloatArray
    sizes: Float[np.ndarray, " D"]
    dead: float
    accuracy: float = field(init=False)
    unevenness: float = field(init=False)
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        alive = self.sizes[self.sizes > 1e-6 * self.sizes.max()] if self.sizes.max() > 0 else [1.0]
        object.__setattr__(self, "accuracy", float(self.is_right.mean()))
        object.__setattr__(self, "unevenness", float(np.log(alive).std()))
        object.__setattr__(self, "scale", float(np.sqrt(np.mean(self.sizes**2))))


def sample(n: int) -> IntArray:
    """Return the rows that stages are measured on: all, or evenly spread ones.

    Example:
        >>> sample(3).tolist(), len(sample(5000))
        ([0, 1, 2], 2000)
    """
    return np.linspace(0, n - 1, min(n, MAX_IMAGES)).round().astype(np.int64)


def measure_stages(
    activations: Mapping[str, Array],
    vlm_embeddings: FloatArray,
    labels: IntArray,
    folds: IntArray,
    directions: FloatArray,
) -> tuple[Stage, ...]:
    """Read every stage through maps that never saw the image.

    Args:
        activations: Name of a stage -> (N, D_s) pooled activations, in the order of the encoder.
        vlm_embeddings: (N, E).
        labels: (N,).
        folds: (N,) near-duplicates share one.
        directions: (C, E) of concepts that the vision-language model knows here.

    Returns:
        One a stage, over the images of `sample(N)`.

    Raises:
        ShapeError: Rows do not match.
        InputError: Fewer than three folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 600)
        >>> v = np.eye(3)[y] + rng.normal(0, 0.1, (600, 3))
        >>> early, late = v @ rng.normal(size=(3, 8)) + rng.normal(0, 3, (600, 8)), v @ np.eye(3)
        >>> found = measure_stages({"a": early, "b": late}, v, y, np.arange(600) % 5, np.eye(3))
        >>> found[1].accuracy > found[0].accuracy
        True
    """
    rows = sample(len(labels))
    y, folds = labels[rows], folds[rows]
    if len(np.unique(folds)) < 3:
        raise InputError("folds must be at least 3 to read stages; give more images that differ")
    v = normalize(np.asarray(vlm_embeddings[rows], np.float64))
    seen = strengths(v, directions)
    there = present(seen)
    targets = np.concatenate([v, np.eye(int(labels.max()) + 1)[y]], axis=1)
    variance = float(((v - v.mean(axis=0)) ** 2).sum(axis=1).mean())
    found = []
    # Many small products: threads would wait for each other longer than they compute.
    with threadpool_limits(1, user_api="blas"):
        for name, a in activations.items():
            z = check_array(a, "N D", name=f"stage:{name}")
            if len(z) != len(labels):
                raise ShapeError(f"stage:{name} must have {len(labels)} rows, got {len(z)}")
            z = np.asarray(z[rows], np.float64)
            predicted = _held_out(z, targets, folds)
            mapped, scores = predicted[:, : v.shape[1]], predicted[:, v.shape[1] :]
            read = strengths(mapped, directions)
            areas = np.array([auroc(read[:, c], there[:, c]) for c in range(len(directions))])
            error = ((v - mapped) ** 2).sum(axis=1) / max(variance, 1e-12)
            found.append(_stage(name, z, error, areas, scores.argmax(axis=1) == y))
    return tuple(found)


def _stage(
    name: str, z: FloatArray, error: FloatArray, areas: FloatArray, is_right: BoolArray
) -> Stage:
    spread = z.std(axis=0)
    return Stage(
        name=name,
        dimension=z.shape[1],
        r2=float(1 - error.mean()),
        auroc=float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan"),
        is_right=read_only(np.asarray(is_right)),
        error=read_only(error),
        sizes=read_only(np.sort(np.abs(z).mean(axis=0))),
        dead=float((spread <= 1e-4 * max(float(spread.max()), 1e-30)).mean()),
    )


def _held_out(z: FloatArray, targets: FloatArray, folds: IntArray) -> FloatArray:
    """Predict targets by ridge regression, each fold from the others; one strength for all."""
    z = z[:, np.linspace(0, z.shape[1] - 1, min(z.shape[1], MAX_CHANNELS)).round().astype(int)]
    std = z.std(axis=0)
    x = (z - z.mean(axis=0)) / np.where(std > 1e-6 * max(float(std.max()), 1e-30), std, np.inf)
    kinds = np.unique(folds)
    parts = {f: _sums(x[folds == f], targets[folds == f]) for f in kinds}
    tune = kinds[1]
    ridge = alignment.choose_ridge(_total([parts[f] for f in kinds[2:]]), parts[tune])
    out = np.empty(targets.shape)
    for f in kinds:
        fitted = alignment.solve(_total([parts[g] for g in kinds if g != f]), ridge)
        out[folds == f] = fitted(x[folds == f])
    return out


def _sums(x: FloatArray, t: FloatArray) -> AlignmentSums:
    return AlignmentSums(len(x), x.sum(0), t.sum(0), x.T @ x, x.T @ t, (t * t).sum(0))


def _total(parts: Sequence[AlignmentSums]) -> AlignmentSums:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
