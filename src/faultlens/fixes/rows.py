"""Restoring rows of a head: only those of the classes at fault are replaced by refitted ones."""

import numpy as np
from numpy.typing import NDArray

from faultlens.arrays import FloatArray
from faultlens.fixes.trial import Material, Part
from faultlens.models.head import Head


def restored(material: Material, part: Part, chosen: NDArray[np.int64]) -> Head:
    """Put refitted rows into a linear head, on the shipped head's scale.

    Softmax heads are free up to a common row, and a penalty shrinks a refit. So the chosen rows
    are read relative to the mean of the anchors (the classes that stay), stretched until the
    anchors spread as much as they do in the shipped head, and put beside its own anchors.

    Args:
        material: The images and the shipped head.
        part: The reference set and its refit.
        chosen: Class indices; those without reference images keep their row.
    """
    seen = np.flatnonzero(np.isfinite(part.bias))
    chosen = np.intersect1d(chosen, seen)
    kept = np.setdiff1d(seen, chosen)
    anchors = kept if len(kept) >= 2 else seen
    shipped = np.c_[material.head.weight, material.head.bias].astype(np.float64)
    refitted = np.c_[part.weight, part.bias].astype(np.float64)
    ours, theirs = shipped[anchors].mean(axis=0), refitted[anchors].mean(axis=0)
    z = material.embeddings[part.reference]
    scale = _spread(z, shipped[anchors] - ours) / max(
        _spread(z, refitted[anchors] - theirs), np.finfo(float).tiny
    )
    rows = shipped.copy()
    rows[chosen] = ours + scale * (refitted[chosen] - theirs)
    return material.head.replace(rows[:, :-1], rows[:, -1])


def _spread(z: FloatArray, rows: FloatArray) -> float:
    """Root mean square of the logits that centred rows give."""
    return float(np.sqrt(np.mean((z @ rows[:, :-1].T + rows[:, -1]) ** 2)))
