"""Reasons: the pairs of concepts in an image that contradict its predicted class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from faultlens.arrays import Array, FloatArray, IntArray, check_array, read_only
from faultlens.errors import ShapeError, StoreError
from faultlens.heatmaps import MIN_IMAGES, HeatmapCounts

#: Share of a class's correct images from which a pair of concepts counts as its rule.
RELIABLE = 0.9
MAX_REASONS = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """One pair of concepts that contradicts the predicted class.

    Attributes:
        stronger: Concept that is stronger in this image.
        weaker: The other one.
        rate: Share of the class's images in which it is the other way round, in [0.9, 1].
        n: Those images.
        gap: How much stronger, in the unit of strengths; above 0.
        told: In words.
    """

    stronger: str
    weaker: str
    rate: float
    n: int
    gap: float
    told: str


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What images of each class look like.

    Attributes:
        wins: (K, C, C) images of the class in which concept a beats concept b: its correct ones,
            or all that are labelled so where fewer than 10 are correct.
        n: (K,) such images.
        is_correct: (K,) whether they are the correct ones.
        concepts: C names.
        classes: K names.
    """

    wins: Int[np.ndarray, "K C C"]
    n: Int[np.ndarray, "K"]
    is_correct: Bool[np.ndarray, "K"]
    concepts: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        strengths: FloatArray,
        labels: IntArray,
        predictions: IntArray,
        concepts: tuple[str, ...],
        classes: tuple[str, ...],
    ) -> "Expected":
        """Count over images.

        Args:
            strengths: (N, C).
            labels: (N,) truth.
            predictions: (N,).
            concepts: C names.
            classes: K names.

        Raises:
            ShapeError: Names of another number than concepts.
        """
        s = check_array(strengths, "N C", name="strengths")
        if s.shape[1] != len(concepts):
            raise ShapeError(
                f"concepts must have one name a strength, got {len(concepts)} for {s.shape[1]}"
            )
        right = labels == predictions
        is_correct = np.bincount(labels[right], minlength=len(classes)) >= MIN_IMAGES
        # A broken head may get no image of a class right; its labelled images still show it.
        counts = HeatmapCounts.of(
            s, np.where(right | ~is_correct[labels], labels, -1), len(classes)
        )
        return cls(counts.wins, counts.n, read_only(is_correct), concepts, classes)

    def reasons(self, strengths: FloatArray, prediction: int) -> tuple[Reason, ...]:
        """Return what contradicts one prediction, strongest first.

        Args:
            strengths: (C,) of the image.
            prediction: Class index.

        Returns:
            At most 3; none where the class has fewer than 10 images. A pair counts where
            at least 90 % of them have it the other way round; the surest rule comes first, of
            equals the wider gap. A concept is named once: one out of place fills a whole row.

        Example:
            >>> s = np.tile([[0.9, 0.1]], (20, 1))
            >>> k = np.zeros(20, int)
            >>> expected = Expected.of(s, k, k, ("wheels", "fur"), ("truck",))
            >>> [r.told for r in expected.reasons(np.array([0.1, 0.4]), 0)]
            ['fur above wheels: in 100 % of 20 correct images called truck it is below']
        """
        n = int(self.n[prediction])
        if n < MIN_IMAGES:
            return ()
        # rate[a, b]: how often b beats a where this image has a above b.
        rate = np.where(strengths[:, None] > strengths[None, :], self.wins[prediction].T / n, 0.0)
        gap = strengths[:, None] - strengths[None, :]
        a, b = np.nonzero(rate >= RELIABLE)
        order = np.lexsort((-gap[a, b], -rate[a, b]))
        found: list[Reason] = []
        used: set[int] = set()
        for i in order:
            pair = (int(a[i]), int(b[i]))
            if not used.intersection(pair):
                used.update(pair)
                found.append(self._reason(pair, float(rate[pair]), float(gap[pair]), prediction))
        return tuple(found[:MAX_REASONS])

    def _reason(self, pair: tuple[int, int], rate: float, gap: float, prediction: int) -> Reason:
        stronger, weaker = (self.concepts[c] for c in pair)
        n = int(self.n[prediction])
        whose = "correct images called" if self.is_correct[prediction] else "images labelled"
        told = (
            f"{stronger} above {weaker}: in {100 * rate:.0f} % of {n} {whose} "
            f"{self.classes[prediction]} it is below"
        )
        return Reason(stronger, weaker, rate, n, gap, told)

    def state(self) -> dict[str, Array]:
        """Return the arrays that `restore` needs beside the names."""
        return {"wins": self.wins, "n": self.n, "is_correct": self.is_correct}

    @classmethod
    def restore(
        cls, state: Mapping[str, Array], concepts: tuple[str, ...], classes: tuple[str, ...]
    ) -> "Expected":
        """Return what `state` was taken from; StoreError where the names do not fit."""
        wins = np.asarray(state["wins"])
        if wins.shape != (len(classes), len(concepts), len(concepts)):
            raise StoreError(
                f"counts must be of {len(classes)} classes and {len(concepts)} concepts, got "
                f"{wins.shape}; fit the monitor again"
            )
        return cls(wins, np.asarray(state["n"]), np.asarray(state["is_correct"]), concepts, classes)
