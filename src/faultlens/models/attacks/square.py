"""Square attack: random squares, kept when they help; needs scores only, no gradients."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from faultlens.models.attacks.attack import Attack
from faultlens.models.attacks.victim import Batch, Scores, Victim, spread, uniform

# Shares of the queries after which the area of the squares is halved; the paper's schedule.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True, eq=False)
class Square(Attack):
    """Random search in the corners of the L∞ ball, by squares that become smaller.

    It starts from vertical stripes. Each query moves one random square of each picture to the
    edge of the budget, with a random sign for each channel, and keeps it if that helps. Pictures
    that are fooled are left alone.

    Attributes:
        eps: Greatest change of a value.
        queries: Number of proposals for each picture.
        area: Share of the picture that the first squares cover.

    Example:
        >>> Square(eps=4 / 255).images_only
        True

    References:
        Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via
        random search", 2020, arXiv:1912.00049, algorithms 1 and 2: margin loss, cross-entropy for
        targets. Deviation: 1000 queries instead of up to 10,000, with the schedule stretched to
        them; a proposal may repeat the present square; pictures not fooled come back clean if
        the search ended below them.
    """

    norm: ClassVar[Literal["linf", "l2"] | None] = "linf"
    images_only: ClassVar[bool] = True
    eps: float = 8 / 255
    queries: int = 1000
    area: float = 0.8

    def _perturb(self, victim: Victim, clean: Batch, generator: torch.Generator) -> Batch:
        result = clean.clone()
        with torch.no_grad():
            score, reached = _score(victim, clean)
            rows = torch.nonzero(~reached).squeeze(1)
            first = score[rows]  # of the clean pictures
            u, score = clean[rows], torch.full_like(first, -torch.inf)
            for query in range(self.queries):
                if len(rows) == 0:
                    break
                origin, active = clean[rows], victim.only(rows)
                proposal = self._propose(query, u, origin, generator)
                value, reached = _score(active, proposal)
                up = value > score
                u, score = torch.where(spread(up, u), proposal, u), torch.where(up, value, score)
                result[rows[reached]] = proposal[reached]
                rows, u, score, first = (t[~reached] for t in (rows, u, score, first))
            helped = score > first
            result[rows[helped]] = u[helped]
        return result

    def _propose(self, query: int, u: Batch, clean: Batch, generator: torch.Generator) -> Batch:
        """Return the pictures with one square each, or with stripes in the first query."""
        n, channels, height, width = clean.shape
        if query == 0:
            signs = uniform((n, channels, 1, width), generator, clean).sub(0.5).sign()
            return (clean + self.eps * signs).clamp(0, 1)
        area = self.area / 2 ** sum(query > share * self.queries for share in _HALVINGS)
        side = min(max(round(math.sqrt(area * height * width)), 1), height, width)
        inside = squares(side, (n, height, width), generator, clean)
        signs = uniform((n, channels, 1, 1), generator, clean).sub(0.5).sign()
        return torch.where(inside, (clean + self.eps * signs).clamp(0, 1), u)


def squares(
    side: int, shape: tuple[int, int, int], generator: torch.Generator, like: torch.Tensor
) -> torch.Tensor:
    """Return masks (N, 1, height, width) of one square each, anywhere inside the picture.

    Example:
        >>> squares(2, (5, 8, 8), torch.Generator(), torch.zeros(1)).sum((1, 2, 3))
        tensor([4, 4, 4, 4, 4])
    """
    n, height, width = shape
    corner = uniform((2, n, 1), generator, like)

    def band(size: int, where: torch.Tensor) -> torch.Tensor:
        first = (where * (size - side + 1)).floor()
        place = torch.arange(size, device=like.device)
        return (place >= first) & (place < first + side)

    return band(height, corner[0])[:, None, :, None] & band(width, corner[1])[:, None, None, :]


def _score(victim: Victim, u: Batch) -> tuple[Scores, torch.Tensor]:
    """Return what the search raises, and where the goal is reached."""
    logits = victim.logits(u)
    margin = victim.margin(logits)
    return (victim.loss(logits) if victim.targeted else margin), margin > 0
