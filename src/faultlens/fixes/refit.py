"""Refitting the whole head, every class or every group weighing alike."""

import numpy as np
from numpy.typing import NDArray

from faultlens.arrays import BoolArray, IntArray
from faultlens.fixes.rows import restored
from faultlens.fixes.trial import Material, Part
from faultlens.localize.swap import refit_head
from faultlens.models.head import Head


def refitted(material: Material, part: Part) -> Head:
    """Return the session's class-balanced refit as a head with finite numbers.

    A linear head keeps its scale, and its rows of classes without reference images. A chain of
    layers is replaced by the refit as it is.

    Raises:
        ShapeError: The head is a chain and a class has no reference images.
    """
    if material.head.is_linear:
        return restored(material, part, np.arange(len(part.bias)))
    return material.head.replace(part.weight, part.bias)


def balanced(material: Material, part: Part, has_cue: BoolArray) -> Head:
    """Refit with every group (class with the cue, class without it) weighing alike in its class.

    Args:
        material: The images.
        part: The reference set.
        has_cue: (N,) where the cue is seen.
    """
    rows = part.reference[balanced_rows(material.labels[part.reference], has_cue[part.reference])]
    fitted = refit_head(
        material.embeddings[rows], material.labels[rows], len(part.bias), material.penalty
    )
    again = Part(part.reference, part.held, part.map_weight, fitted.weight, fitted.bias)
    return refitted(material, again)


def balanced_rows(labels: IntArray, has_cue: BoolArray) -> NDArray[np.int64]:
    """Return rows, the smaller group of each class repeated to the size of the larger.

    Classes stay of different size: the refit weighs them alike by itself.

    Example:
        >>> balanced_rows(np.array([0, 0, 0, 1]), np.array([True, True, False, True])).tolist()
        [0, 1, 2, 2, 3]
    """
    rows = []
    for k in np.unique(labels):
        groups = [np.flatnonzero((labels == k) & (has_cue == side)) for side in (True, False)]
        largest = max(len(g) for g in groups)
        rows += [np.resize(g, largest) for g in groups if len(g)]
    return np.sort(np.concatenate(rows))
