"""Regions of embeddings: convex sets that are kept exactly as float32 numbers.

A region is the intersection of bodies and half-spaces. A body is the image of a simple set under
an affine map, so that the maximum of any affine function over it has a closed form.
"""

from dataclasses import dataclass
from enum import StrEnum

from faultlens.arrays import FloatArray


class Shape(StrEnum):
    """The simple set a body is the image of."""

    BOX = "box"  # lower <= u <= upper
    BALL = "ball"  # |u| <= radius
    SIMPLEX = "simplex"  # u >= 0, sum(u) = 1


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """`{centre + basis @ u : u in the shape}`; every number float32.

    Attributes:
        shape: Of u.
        centre: (D,).
        basis: (D, R); None for the identity (a box along the axes, R = D).
        lower: (R,) of a box, at most `upper`.
        upper: (R,) of a box.
        radius: Of a ball.
    """

    shape: Shape
    centre: FloatArray
    basis: FloatArray | None = None
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    radius: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The intersection of bodies with half-spaces `weights @ z + offsets >= 0`.

    Attributes:
        name: As users wrote it, such as `box(gamma=0.5)`.
        bodies: At least one.
        weights: (H, D) float32.
        offsets: (H,) float32.
    """

    name: str
    bodies: tuple[Body, ...]
    weights: FloatArray
    offsets: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """How signals depend on an embedding: strengths always affine, logits through the head.

    Attributes:
        concept_rows: (C, D) float32: strength c is `concept_rows[c] @ z + concept_offsets[c]`.
        concept_offsets: (C,) float32.
        head_weights: One (out, in) float32 matrix a layer; a ReLU between each two.
        head_biases: One (out,) float32 vector a layer.
    """

    concept_rows: FloatArray
    concept_offsets: FloatArray
    head_weights: tuple[FloatArray, ...]
    head_biases: tuple[FloatArray, ...]
