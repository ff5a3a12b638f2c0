"""The fast gradient sign method: one step to the corner of the budget that the gradient names."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.victim import Batch, Victim, better


@dataclass(frozen=True, slots=True, eq=False)
class FGSM(Attack):
    """One step of length `eps` along the sign of the gradient of the cross-entropy.

    Attributes:
        eps: Greatest change of a value.

    Example:
        >>> FGSM(eps=4 / 255).norm
        'linf'

    References:
        Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", 2015,
        arXiv:1412.6572, section 4. Deviation: where the step lowers the loss, the input comes
        back unchanged.
    """

    norm: ClassVar[Literal["linf", "l2"] | None] = "linf"
    eps: float = 8 / 255

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        here, gradient = victim.climb(clean)
        step = (clean + self.eps * gradient.sign()).clamp(0, 1)
        return better(here, victim.look(step)).u
