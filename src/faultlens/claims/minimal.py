"""Minimal sets: which of many responsible concepts carry a group's errors, put into words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faultlens.analysis import Analysis
from faultlens.arrays import BoolArray, IntArray
from faultlens.claims.erasure import SEED, Erasure
from faultlens.claims.wording import listing, portion
from faultlens.files import json_value
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize.causal import Part
from faultlens.localize.minimal import EXACT_CONCEPTS, MinimalSets, smallest_set
from faultlens.stats import wilson

#: Larger sets explain nothing to a person.
MAX_SIZE = 3
#: A smaller set is taken if it repairs this share of what the best one repairs.
NEARLY = 0.9
#: Errors beyond which the shares hardly change.
MAX_ERRORS = 1000


def minimal_set(
    erasure: Erasure, analysis: Analysis, errors: BoolArray, concepts: Mapping[str, int]
) -> dict[str, Any] | None:
    """Find the fewest concepts whose erasure repairs nearly all that can be repaired.

    The set is chosen on one half of the errors and its share counted on the other; every image is
    erased by erasers that never saw it.

    Args:
        erasure: What concepts are erased from.
        analysis: Of the run.
        errors: (n,) a group among the analysed images.
        concepts: Candidates, name -> index; the first 12 are tried.

    Returns:
        `concepts`, `repaired` with its `interval` and `n`, and the sentence `told`; None where
        there are too few errors, or nothing to choose from.
    """
    names = list(concepts)[:EXACT_CONCEPTS]
    rows = np.random.default_rng(SEED).permutation(np.flatnonzero(errors))[:MAX_ERRORS]
    if len(names) < 2 or len(rows) < 2 * MIN_IMAGES:
        return None
    parts = erasure.parts(analysis, rows, [concepts[name] for name in names])
    chosen = _smallest(_by_size(erasure, [_half(p, 0) for p in parts]))
    others = [_half(p, 1) for p in parts if len(p.labels) > 1]
    n, count = sum(len(p.labels) for p in others), _repaired(erasure, others, chosen)
    low, high = wilson(count, n)
    taken = [names[c] for c in chosen] if count else []
    return dict(json_value({
        "concepts": taken,
        "repaired": count / n,
        "interval": [float(low), float(high)],
        "n": n,
        "told": _told(taken, count / n, len(names)),
    }))  # fmt: skip


def _half(part: Part, start: int) -> Part:
    """Every other image; their order is random."""
    return Part(part.eraser, part.embeddings[start::2], part.labels[start::2])


def _by_size(erasure: Erasure, parts: list[Part]) -> MinimalSets:
    """The best set of each size that serves as many errors as any set can."""
    limits: dict[str, Any] = {"max_size": MAX_SIZE, "is_affine": erasure.is_affine}
    found = smallest_set(parts, erasure.head, required=1.0, **limits)
    if 0 < found.bound < 1:  # what no set can repair must not be asked for
        found = smallest_set(parts, erasure.head, required=found.bound, **limits)
    return found


def _smallest(found: MinimalSets) -> tuple[int, ...]:
    best = max(s.count for s in found.by_size)
    return next(s.concepts for s in found.by_size if s.count >= NEARLY * best)


def _repaired(erasure: Erasure, parts: list[Part], chosen: tuple[int, ...]) -> int:
    def right(part: Part) -> IntArray:
        return np.asarray(erasure.head(part.eraser.only(chosen)(part.embeddings)).argmax(axis=1))

    return sum(int((right(p) == p.labels).sum()) for p in parts) if chosen else 0


def _told(taken: list[str], share: float, n: int) -> str:
    """Say what the set repairs."""
    if not taken:
        return f"Erasing up to {MAX_SIZE} of these {n} concepts repairs none of these errors."
    how = "alone" if len(taken) == 1 else "together"
    rest = "no set of up to" if len(taken) == 1 else "fewer do clearly less, and no set of up to"
    return (
        f"Erasing {listing(taken)} {how} repairs {portion(share)} of these errors (chosen on one "
        f"half of them, counted on the other); {rest} {MAX_SIZE} of the {n} concepts that were "
        "tried does clearly better."
    )
