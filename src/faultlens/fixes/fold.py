"""Erasure folded into the head: a linear head that no longer listens to a concept."""

import numpy as np

from faultlens.fixes.trial import Material, Part
from faultlens.localize.erase import Eraser, leace_eraser
from faultlens.models.head import Head


def unheard(material: Material, part: Part, concept: int) -> Head:
    """Return the shipped head with a concept erased from what it reads.

    Args:
        material: The images and the shipped linear head.
        part: The reference set that the eraser is fitted on.
        concept: Index.
    """
    z = material.embeddings[part.reference]
    reading = material.directions[concept].astype(np.float64) @ part.map_weight
    return folded(material.head, leace_eraser(z, (z @ reading)[:, None]))


def folded(head: Head, eraser: Eraser) -> Head:
    """Fold an eraser into a linear head; exact, up to rounding.

    With `z - M (z - mean)` the erased embedding, the weight becomes `W - W M` and the bias
    `b + W M mean`.

    Raises:
        InputError: The head is not linear.

    Example:
        >>> from faultlens.localize.erase import orthogonal_eraser
        >>> head = Head((np.array([[1.0, 2.0]]),), (np.array([0.5]),))
        >>> erase = orthogonal_eraser(np.array([[0.0, 2.0]]), np.array([5.0, 1.0]))
        >>> z = np.array([[3.0, 4.0]])
        >>> folded(head, erase)(z).tolist() == head(erase(z)).tolist() == [[5.5]]
        True
    """
    weight = head.weight.astype(np.float64)
    heard = (weight @ eraser.left.T) @ eraser.inverse_gram @ eraser.right
    return head.replace(weight - heard, head.bias + heard @ eraser.mean)
