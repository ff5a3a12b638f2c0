"""Auto-PGD: ascent whose step size adapts itself, so that there is nothing to tune."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.pgd import project_linf, start_linf
from faultlens.models.attacks.victim import Batch, Point, Scores, Victim, better, spread

_MOMENTUM = 0.75  # α of the paper: share of the gradient step against the step before
_RISING = 0.75  # ρ of the paper: share of steps that must raise the loss


@dataclass(frozen=True, slots=True, eq=False)
class APGD(Attack):
    """Auto-PGD on the cross-entropy in the L∞ ball.

    Steps start at `2 * eps` and have momentum. At checkpoints that come ever closer, the step
    size of an input is halved and its search restarts at its best point, if too few steps raised
    the loss or if neither step size nor best loss changed since the last checkpoint.

    Attributes:
        eps: Greatest change of a value.
        steps: Number of steps.

    Example:
        >>> APGD(eps=4 / 255).steps
        50

    References:
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", 2020, arXiv:2003.01690, section 3. Deviation: one random start,
        and 50 steps instead of 100, enough for undefended networks; a point that fools the model
        is preferred to one of greater loss that does not.
    """

    norm: ClassVar[Literal["linf", "l2"] | None] = "linf"
    eps: float = 8 / 255
    steps: int = 50

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        if self.steps == 0:
            return clean
        peak, slope = victim.climb(start_linf(clean, self.eps, generator))
        best = better(victim.look(clean), peak)
        here, gradient, before = peak, slope, peak.u
        schedule = _Schedule(peak.loss, 2 * self.eps, self.steps)
        for k in range(self.steps):
            step = spread(schedule.step_size, clean) * gradient.sign()
            u = project_linf(here.u + step, clean, self.eps)
            if k > 0:
                u = here.u + _MOMENTUM * (u - here.u) + (1 - _MOMENTUM) * (here.u - before)
                u = project_linf(u, clean, self.eps)
            before, loss = here.u, here.loss
            here, gradient = victim.climb(u)
            best = better(best, here)
            higher = here.loss > peak.loss
            peak, slope = _choose(higher, here, peak), _where(higher, gradient, slope)
            stuck = schedule.update(k + 1, here.loss > loss, peak.loss)
            here, gradient = _choose(stuck, peak, here), _where(stuck, slope, gradient)
        return best.u


class _Schedule:
    """The step size of each input, halved at checkpoints where the search is stuck."""

    def __init__(self, loss: Scores, step_size: float, steps: int) -> None:
        self.step_size = torch.full_like(loss, step_size)
        self._checkpoints = checkpoints(steps)
        self._last = 0
        self._rises = torch.zeros_like(loss)
        self._peak = loss
        self._halved = torch.ones_like(loss, dtype=torch.bool)

    def update(self, k: int, rose: torch.Tensor, peak: Scores) -> torch.Tensor:
        """Count step `k`; return which inputs are to restart at their best point, (N,) bool."""
        self._rises += rose
        if k not in self._checkpoints:
            return torch.zeros_like(rose)
        window, self._last = k - self._last, k
        few = self._rises < _RISING * window
        stuck = few | (~self._halved & (self._peak == peak))
        self.step_size = torch.where(stuck, self.step_size / 2, self.step_size)
        self._rises, self._peak, self._halved = torch.zeros_like(self._rises), peak, stuck
        return stuck


def checkpoints(steps: int) -> frozenset[int]:
    """Return the steps after which step sizes are reconsidered.

    Example:
        >>> sorted(checkpoints(100))[:4]
        [22, 41, 57, 70]
    """
    share, gap, found = 0.22, 0.22, set()
    while share <= 1:
        found.add(math.ceil(share * steps - 1e-9))
        gap = max(gap - 0.03, 0.06)
        share += gap
    return frozenset(found)


def _choose(pick: torch.Tensor, a: Point, b: Point) -> Point:
    return Point(
        _where(pick, a.u, b.u),
        torch.where(pick, a.loss, b.loss),
        torch.where(pick, a.margin, b.margin),
    )


def _where(pick: torch.Tensor, a: Batch, b: Batch) -> Batch:
    return torch.where(spread(pick, a), a, b)
