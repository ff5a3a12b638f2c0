"""What batches look like: ranges, scales, labels, of one batch and of all so far."""

from dataclasses import replace

import numpy as np

from faultlens.arrays import Array, BoolArray, FloatArray
from faultlens.training.trace import DataSummary

_MOST_UNIQUE = 1000
_MOST_CLASSES = 1000
_MOST_COLUMNS = 1 << 12
_MOST_VALUES = 1 << 15  # looked at one by one; ranges are those of the whole batch


def as_rows(x: Array) -> Array:
    """Return `x` as (N, F); a vector becomes one column, a scalar one value.

    Example:
        >>> as_rows(np.zeros((4, 2, 3))).shape, as_rows(np.zeros(4)).shape
        ((4, 6), (4, 1))
    """
    x = np.asarray(x)
    return x.reshape(max(len(x), 1) if x.ndim else 1, -1)


def is_labels(x: Array) -> bool:
    """Whether `x` can be class labels: whole, not negative, small, one column or an integer map.

    Example:
        >>> is_labels(np.array([0, 2])), is_labels(np.array([[0.0], [1.0]])), is_labels([0.5])
        (True, True, False)
    """
    x = np.asarray(x)
    if x.size == 0 or x.dtype.kind not in "iubf":
        return False
    one_column = x.ndim <= 1 or (x.ndim == 2 and x.shape[1] == 1)
    if not one_column and x.dtype.kind == "f":
        return False
    low, high = x.min(), x.max()
    return bool(low >= 0 and high < _MOST_CLASSES and (x.dtype.kind != "f" or np.all(x % 1 == 0)))


def is_one_hot(rows: Array) -> bool:
    """Whether every row of (N, F > 1) is 0 but for one 1.

    Example:
        >>> is_one_hot(np.eye(3)), is_one_hot(np.ones((2, 2)))
        (True, False)
    """
    if rows.ndim != 2 or rows.shape[1] < 2:
        return False
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all())


def _class_counts(x: Array) -> Array | None:
    if is_labels(x):
        return np.bincount(np.asarray(x).ravel().astype(np.int64))
    if x.ndim == 2 and is_one_hot(x):
        return np.asarray(x.sum(axis=0), np.int64)
    return None


class BatchSummary:
    """Summaries of batches of one kind, each alone and all merged.

    Example:
        >>> seen = BatchSummary()
        >>> seen.add(np.array([[0.0, 10.0], [1.0, -30.0]])).feature_scale_max
        30.0
        >>> seen.add(np.array([[5.0, 0.0]])).maximum
        5.0
        >>> seen.merged.shape, seen.merged.minimum, seen.merged.feature_scale_min
        ((3, 2), -30.0, 5.0)
    """

    def __init__(self) -> None:
        self.merged: DataSummary | None = None
        self._low: FloatArray | None = None
        self._high: FloatArray | None = None
        self._sum: FloatArray | None = None
        self._unique: set[float] = set()
        self._counts: Array | None = None
        self._has_counts = True

    def add(self, x: Array) -> DataSummary:
        """Return the summary of one batch of numbers and merge it into `merged`."""
        x = np.asarray(x)
        rows = as_rows(x)
        step = -(-rows.shape[1] // _MOST_COLUMNS)
        columns = rows[:, ::step].astype(np.float64)
        finite = np.isfinite(columns)
        low = np.where(finite, columns, np.inf).min(axis=0)
        high = np.where(finite, columns, -np.inf).max(axis=0)
        total = np.where(finite, columns, 0.0).sum(axis=0)
        counts = _class_counts(x) if finite.all() else None
        some = columns[:: max(1, columns.size // _MOST_VALUES)]
        unique = set(np.unique(some)[:_MOST_UNIQUE].tolist())
        one = _summary(x, rows, columns, finite)
        one = _with_features(one, rows.shape[1], low, high, total / max(len(rows), 1))
        one = replace(one, n_unique=len(unique), class_counts=_as_counts(counts))
        self._merge(one, (low, high, total), unique, counts)
        return one

    def _merge(
        self,
        one: DataSummary,
        features: tuple[FloatArray, FloatArray, FloatArray],
        unique: set[float],
        counts: Array | None,
    ) -> None:
        low, high, total = features
        if (
            self.merged is None
            or self._low is None
            or self._high is None
            or self._sum is None
            or self._low.shape != low.shape
        ):
            self._low, self._high, self._sum = low, high, total
            self.merged, self._unique, self._counts = one, unique, counts
            self._has_counts = counts is not None
            return
        self._low = np.minimum(self._low, low)
        self._high = np.maximum(self._high, high)
        self._sum = self._sum + total
        if len(self._unique) < _MOST_UNIQUE:
            self._unique |= unique
        self._has_counts &= counts is not None
        self._counts = _added(self._counts, counts) if self._has_counts else None
        both = _pooled(self.merged, one)
        means = self._sum / max(both.shape[0], 1)
        both = _with_features(both, one.n_features, self._low, self._high, means)
        n_unique = min(len(self._unique), _MOST_UNIQUE)
        self.merged = replace(both, n_unique=n_unique, class_counts=_as_counts(self._counts))


def _summary(x: Array, rows: Array, columns: FloatArray, finite: BoolArray) -> DataSummary:
    """Return what needs no look at single features."""
    values = columns[finite]
    is_float = rows.dtype.kind == "f"
    last = x.reshape(-1, x.shape[-1])[:_MOST_COLUMNS] if x.ndim > 1 else rows
    sums = (last >= 0).all(axis=1) & (np.abs(last.sum(axis=1, dtype=np.float64) - 1) < 1e-4)
    smallest, largest = _range(rows)
    return DataSummary(
        shape=tuple(int(n) for n in x.shape) or (1,),
        dtype=str(x.dtype),
        minimum=smallest,
        maximum=largest,
        mean=float(values.mean()) if values.size else float("nan"),
        std=float(values.std()) if values.size else float("nan"),
        n_nan=int(np.isnan(rows).sum()) if is_float else 0,
        n_inf=int(np.isinf(rows).sum()) if is_float else 0,
        integers=float((values % 1 == 0).mean()) if values.size else 0.0,
        zeros=float((values == 0).mean()) if values.size else 0.0,
        rows_sum_to_one=float(sums.mean()),
        is_one_hot=is_one_hot(x),
    )


def _range(values: Array) -> tuple[float, float]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (np.nan, np.nan)


def _as_counts(counts: Array | None) -> tuple[int, ...] | None:
    return None if counts is None else tuple(int(n) for n in counts)


def _added(a: Array | None, b: Array | None) -> Array | None:
    """Return the sum of counts of different length."""
    if a is None or b is None:
        return None
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _with_features(
    one: DataSummary, n_features: int, low: FloatArray, high: FloatArray, means: FloatArray
) -> DataSummary:
    """Return the summary with what is known of single features."""
    seen = high >= low
    if not seen.any():
        return replace(one, n_features=n_features)
    scale = np.maximum(np.abs(low), np.abs(high))[seen]
    return replace(
        one,
        n_features=n_features,
        feature_scale_min=float(scale.min()),
        feature_scale_max=float(scale.max()),
        feature_mean_max=float(np.abs(means[seen]).max()),
        constant_features=int((low == high).sum()),
    )


def _pooled(a: DataSummary, b: DataSummary) -> DataSummary:
    """Return what needs no look at single features, of both together."""
    n, m = a.shape[0], b.shape[0]
    share = m / max(n + m, 1)

    def mixed(x: float, y: float) -> float:
        return x if np.isnan(y) else y if np.isnan(x) else x + share * (y - x)

    mean = mixed(a.mean, b.mean)
    spread = mixed(a.std**2 + (a.mean - mean) ** 2, b.std**2 + (b.mean - mean) ** 2)
    return replace(
        a,
        shape=(n + m, *a.shape[1:]),
        minimum=float(np.fmin(a.minimum, b.minimum)),
        maximum=float(np.fmax(a.maximum, b.maximum)),
        mean=mean,
        std=float(np.sqrt(spread)),
        n_nan=a.n_nan + b.n_nan,
        n_inf=a.n_inf + b.n_inf,
        integers=mixed(a.integers, b.integers),
        zeros=mixed(a.zeros, b.zeros),
        rows_sum_to_one=mixed(a.rows_sum_to_one, b.rows_sum_to_one),
        is_one_hot=a.is_one_hot and b.is_one_hot,
    )


def is_sparse(targets: Array, outputs: Array | None) -> bool:
    """Whether targets are labels, not a distribution for each row.

    Example:
        >>> import numpy as np
        >>> is_sparse(np.array([0, 2]), np.ones((2, 3))), is_sparse(np.eye(3), np.ones((3, 3)))
        (True, False)
    """
    if outputs is not None and outputs.ndim and targets.shape == outputs.shape:
        return targets.ndim == 1 and is_labels(targets)
    return True
