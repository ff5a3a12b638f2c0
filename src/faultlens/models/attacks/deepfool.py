"""DeepFool: step by step to the nearest boundary of the linearised model."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.victim import Batch, Victim, length, spread

_TINY = 1e-12  # a class whose gradient does not differ is out of reach, not at distance 0 / 0
_NUDGE = 1e-6  # an input on a boundary is to cross it, too


@dataclass(frozen=True, slots=True, eq=False)
class DeepFool(Attack):
    """The shortest way to the nearest boundary, taken again until it is crossed.

    On a linear model this is the exact least Euclidean perturbation, lengthened by `overshoot`.

    Attributes:
        steps: Greatest number of steps.
        overshoot: Share by which the whole perturbation is lengthened, to cross the boundary.
        n_candidates: Boundaries to this many classes of greatest logit are considered; each
            costs one gradient a step.

    Example:
        >>> DeepFool(steps=20).overshoot
        0.02

    References:
        Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep
        neural networks", 2016, arXiv:1511.04599, algorithm 2. Deviation: the overshoot is applied
        in every step, and the sum is clipped to the box; with targets only the boundary to the
        target counts; inputs that cannot be fooled come back unchanged.
    """

    norm: ClassVar[Literal["linf", "l2"] | None] = "l2"
    steps: int = 50
    overshoot: float = 0.02
    n_candidates: int = 9

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        result, total = clean.clone(), torch.zeros_like(clean)
        rows = torch.nonzero(victim.look(clean).margin <= 0).squeeze(1)
        for _ in range(self.steps):
            if len(rows) == 0:
                break
            active = victim.only(rows)
            here = (clean[rows] + (1 + self.overshoot) * total[rows]).clamp(0, 1)
            total[rows] += self._to_boundary(active, here)
            u = (clean[rows] + (1 + self.overshoot) * total[rows]).clamp(0, 1)
            fooled = active.look(u).margin > 0
            result[rows[fooled]] = u[fooled]
            rows = rows[~fooled]
        return result

    def _to_boundary(self, victim: Victim, u: Batch) -> Batch:
        """Return the step from each input to its nearest linearised boundary."""
        u = u.requires_grad_()
        logits = victim.logits(u)
        own = victim.labels[:, None]
        rivals = logits.detach().scatter(1, own, -torch.inf)
        n_rivals = 1 if victim.targeted else min(self.n_candidates, logits.shape[1] - 1)
        # With targets there is one boundary: that of the target with its strongest rival.
        gaps = logits.gather(1, rivals.topk(n_rivals).indices) - logits.gather(1, own)
        step = torch.zeros_like(u)
        nearest = torch.full_like(gaps[:, 0].detach(), torch.inf)
        for gap in gaps.unbind(1):
            (slope,) = torch.autograd.grad(gap.sum(), u, retain_graph=True)
            steepness = length(slope).clamp_min(_TINY)
            distance = gap.detach().abs() / steepness + _NUDGE
            closer = distance < nearest
            sign = -1.0 if victim.targeted else 1.0
            way = sign * slope * spread(distance / steepness, u)
            step = torch.where(spread(closer, u), way, step)
            nearest = torch.where(closer, distance, nearest)
        return step
