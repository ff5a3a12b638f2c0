"""The attack of Carlini and Wagner: the shortest perturbation, by optimisation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.victim import Batch, Scores, Victim, length, spread

_INSIDE = 1 - 1e-6  # black and white pixels would lie at infinity otherwise


@dataclass(frozen=True, slots=True, eq=False)
class CarliniWagner(Attack):
    """Least squared Euclidean length plus `c` times the lack of margin, by Adam.

    The variables are inverse hyperbolic tangents of the input, so the box needs no clipping. A
    binary search for each input finds the least `c` that fools the model.

    Attributes:
        confidence: Margin of logits by which the goal is to be reached (κ of the paper).
        c: First value of the search.
        searches: Number of values of `c` tried; each costs `steps` gradients.
        steps: Steps of Adam for each.
        learning_rate: Of Adam, in the transformed variables.

    Example:
        >>> CarliniWagner().norm
        'l2'

    References:
        Carlini, Wagner, "Towards evaluating the robustness of neural networks", 2017,
        arXiv:1608.04644, sections V and VI. Deviation: far fewer steps at a greater learning
        rate, for speed, so perturbations are slightly longer; inputs that cannot be fooled come
        back unchanged.
    """

    norm: ClassVar[Literal["linf", "l2"] | None] = "l2"
    confidence: float = 0.0
    c: float = 0.1
    searches: int = 5
    steps: int = 50
    learning_rate: float = 0.05

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        rows = torch.nonzero(~self._reached(victim.look(clean).margin)).squeeze(1)
        result = clean.clone()
        if len(rows) > 0:
            result[rows] = self._search(victim.only(rows), clean[rows])
        return result

    def _search(self, victim: Victim, clean: Batch) -> Batch:
        """Return the shortest found for any `c`."""
        best, shortest = clean, clean.new_full((len(clean),), torch.inf)
        c = torch.full_like(shortest, self.c)
        least, most = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.searches):
            found, distance = self._minimise(victim, clean, c)
            fooled, shorter = distance.isfinite(), distance < shortest
            best = torch.where(spread(shorter, clean), found, best)
            shortest = torch.where(shorter, distance, shortest)
            most, least = torch.where(fooled, c, most), torch.where(fooled, least, c)
            c = torch.where(most.isfinite(), (least + most) / 2, 10 * c)
        return best

    def _minimise(self, victim: Victim, clean: Batch, c: Scores) -> tuple[Batch, Scores]:
        """Return the shortest found for one `c` and its length, infinite where none was."""
        w = torch.atanh((2 * clean - 1) * _INSIDE).requires_grad_()
        adam = torch.optim.Adam([w], lr=self.learning_rate)
        best, shortest = clean, torch.full_like(c, torch.inf)
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.steps)
            u = (torch.tanh(w) + 1) / 2
            margin = victim.margin(victim.logits(u))
            lack = (self.confidence - margin).clamp_min(0)
            cost = (u - clean).square().flatten(1).sum(1) + c * lack
            (w.grad,) = torch.autograd.grad(cost.sum(), w)
            adam.step()
            u, distance = u.detach(), length(u.detach() - clean)
            shorter = self._reached(margin.detach()) & (distance < shortest)
            best = torch.where(spread(shorter, clean), u, best)
            shortest = torch.where(shorter, distance, shortest)
        return best, shortest

    def _reached(self, margin: Scores) -> torch.Tensor:
        return (margin > 0) & (margin >= self.confidence)
