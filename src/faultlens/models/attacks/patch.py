"""Adversarial patch: a square of anything, at a random place."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from faultlens.errors import InputError
from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.pgd import ascend
from faultlens.models.attacks.square import squares
from faultlens.models.attacks.victim import Batch, Victim, uniform


@dataclass(frozen=True, slots=True, eq=False)
class Patch(Attack):
    """A square at a random place of each picture, free within the box, found by gradient ascent.

    Pixels outside the square stay as they are.

    Attributes:
        side: Side of the square, as a share of the picture's shorter side.
        step_size: Change of a value in one step.
        steps: Number of steps.

    Example:
        >>> Patch(side=0.2).images_only
        True

    References:
        Brown et al., "Adversarial patch", 2017, arXiv:1712.09665. Deviation: a patch for each
        picture and place instead of one for all, neither turned nor scaled, optimised by steps
        along the sign of the gradient; untargeted unless targets are given; where no patch on
        the way raises the loss, the picture comes back unchanged.
    """

    images_only: ClassVar[bool] = True
    side: float = 0.3
    step_size: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        Attack.__post_init__(self)
        if self.side > 1:
            raise InputError(
                f"side must be at most 1, got {self.side}; give a share of the shorter side"
            )

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        n, _, height, width = clean.shape
        pixels = round(self.side * min(height, width))
        inside = squares(pixels, (n, height, width), generator, clean)
        start = torch.where(inside, uniform(tuple(clean.shape), generator, clean), clean)

        def move(u: Batch, gradient: Batch) -> Batch:
            return torch.where(inside, (u + self.step_size * gradient.sign()).clamp(0, 1), clean)

        return ascend(victim, clean, start, self.steps, move)
