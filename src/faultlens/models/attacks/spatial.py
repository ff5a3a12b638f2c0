"""Spatial attack: a small rotation and shift, chosen to fool."""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.victim import Batch, Victim, better


@dataclass(frozen=True, slots=True, eq=False)
class Spatial(Attack):
    """Search of a grid of rotations and shifts, from small to large.

    The first pose that fools is taken, so poses are small; a picture that none fools gets the
    pose of greatest loss. What comes from outside the picture has the least value of the box.

    Attributes:
        rotation: Greatest angle, in degrees, either way.
        shift: Greatest shift, as a share of the picture's width and height, either way.
        n_angles: Angles of the grid.
        n_shifts: Shifts of the grid, along each axis.
        tries: Try only this many poses of the grid, drawn at random; None for all.

    Example:
        >>> Spatial(tries=10).rotation
        30.0

    References:
        Engstrom et al., "Exploring the landscape of spatial robustness", 2019, arXiv:1712.02779,
        sections 3 and 4 (grid search, worst-of-k). Deviation: 15 angles instead of 31; random
        poses are drawn from the grid, the same for the whole batch.
    """

    images_only: ClassVar[bool] = True
    rotation: float = 30.0
    shift: float = 0.1
    n_angles: int = 15
    n_shifts: int = 5
    tries: int | None = None

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        result, best = clean.clone(), victim.look(clean)
        rows = torch.arange(len(clean), device=clean.device)
        for angle, right, down in self._poses(generator):
            going = best.margin <= 0
            rows, best = rows[going], best.only(going)
            if len(rows) == 0:
                break
            posed = warp(clean[rows], angle, right, down)
            best = better(best, victim.only(rows).look(posed))
            result[rows] = best.u
        return result

    def _poses(self, generator: torch.Generator) -> list[tuple[float, float, float]]:
        """Return angle and shifts of each pose to try, smallest first, without the identity."""
        angles, shifts = _ticks(self.rotation, self.n_angles), _ticks(self.shift, self.n_shifts)
        reach = (self.rotation or 1.0, self.shift or 1.0, self.shift or 1.0)

        def size(pose: tuple[float, float, float]) -> float:
            return math.hypot(*(a / b for a, b in zip(pose, reach, strict=True)))

        poses = sorted((p for p in itertools.product(angles, shifts, shifts) if any(p)), key=size)
        if self.tries is None:
            return poses
        order = torch.randperm(len(poses), generator=generator, device=generator.device)
        return [poses[i] for i in sorted(order[: self.tries].tolist())]


def warp(pictures: Batch, angle: float, right: float, down: float) -> Batch:
    """Rotate pictures about their centre, then shift them; black comes in from outside.

    Args:
        pictures: (N, channels, height, width), in the unit box.
        angle: In degrees, anticlockwise.
        right: Shift as a share of the width.
        down: Shift as a share of the height.

    Returns:
        Pictures of the same shape, in the unit box, interpolated bilinearly.

    Example:
        >>> warp(torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]]), 0.0, 0.5, 0.0)
        tensor([[[[0., 1.],
                  [0., 0.]]]])
    """
    height, width = pictures.shape[-2:]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # From places in the result to places in the picture; both axes run from -1 to 1.
    rows = [
        [cos, -sin * height / width, 2 * (-cos * right + sin * down * height / width)],
        [sin * width / height, cos, 2 * (-sin * right * width / height - cos * down)],
    ]
    theta = torch.tensor(rows, dtype=pictures.dtype, device=pictures.device)
    grid = functional.affine_grid(theta[None], [1, *pictures.shape[1:]], align_corners=False)
    grid = grid.expand(len(pictures), -1, -1, -1)
    return functional.grid_sample(pictures, grid, align_corners=False).clamp(0, 1)


def _ticks(reach: float, n: int) -> list[float]:
    """Return `n` values from -reach to reach, and 0."""
    return sorted({0.0, *torch.linspace(-reach, reach, n).tolist()})
