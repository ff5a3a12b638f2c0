"""The attacked model as the attacks see it: inputs in the unit box, and a goal to climb to."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn import functional

Batch = Float[torch.Tensor, "N ..."]
Logits = Float[torch.Tensor, "N K"]
Scores = Float[torch.Tensor, "N"]
Labels = Int64[torch.Tensor, "N"]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Candidates, one an input, and how good they are for the attacker.

    Attributes:
        u: Inputs in the unit box, (N, ...).
        loss: What an ascent climbs, (N,).
        margin: Above 0 where the goal is reached, (N,).
    """

    u: Batch
    loss: Scores
    margin: Scores

    def only(self, rows: torch.Tensor) -> "Point":
        """Return the same for some inputs of the batch."""
        return Point(self.u[rows], self.loss[rows], self.margin[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """A model with inputs mapped to the unit box, and what the attacker wants of it.

    Attributes:
        model: Gives logits.
        low: Least value of the model's inputs.
        width: Greatest value less the least.
        labels: The classes to reach if `targeted`, otherwise the classes to leave, (N,).
        targeted: See above.

    Example:
        >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
        >>> victim = Victim(nn.Identity(), zero, one, torch.tensor([0]), targeted=False)
        >>> victim.look(torch.tensor([[0.75, 0.25]])).margin
        tensor([-0.5000])
    """

    model: nn.Module
    low: torch.Tensor
    width: torch.Tensor
    labels: Labels
    targeted: bool

    def logits(self, u: Batch) -> Logits:
        """Return the model's logits for inputs in the unit box."""
        logits: torch.Tensor = self.model(self.low + u * self.width)
        return logits

    def margin(self, logits: Logits) -> Scores:
        """Return how far beyond the goal the logits are; above 0 where it is reached."""
        own = logits.gather(1, self.labels[:, None]).squeeze(1)
        others = logits.scatter(1, self.labels[:, None], -torch.inf).amax(1)
        return own - others if self.targeted else others - own

    def loss(self, logits: Logits) -> Scores:
        """Return the cross-entropy, negated for a target, so that attacks always climb."""
        entropy = functional.cross_entropy(logits, self.labels, reduction="none")
        return -entropy if self.targeted else entropy

    def look(self, u: Batch) -> Point:
        """Return the value of candidates, without gradients."""
        with torch.no_grad():
            logits = self.logits(u)
            return Point(u, self.loss(logits), self.margin(logits))

    def climb(self, u: Batch) -> tuple[Point, Batch]:
        """Return the value of candidates and the gradient of their loss."""
        u = u.detach().requires_grad_()
        logits = self.logits(u)
        loss = self.loss(logits)
        (gradient,) = torch.autograd.grad(loss.sum(), u)
        return Point(u.detach(), loss.detach(), self.margin(logits.detach())), gradient

    def only(self, rows: torch.Tensor) -> "Victim":
        """Return the same for some inputs of the batch."""
        return replace(self, labels=self.labels[rows])


def better(a: Point, b: Point) -> Point:
    """Return, input by input, the better of two: the one at the goal, then that of greater loss.

    Ties go to `a`.

    Example:
        >>> a = Point(torch.tensor([[0.0], [0.0]]), torch.tensor([2.0, 1.0]), torch.ones(2))
        >>> b = Point(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 2.0]), torch.ones(2))
        >>> better(a, b).u
        tensor([[0.],
                [1.]])
    """
    reached_a, reached_b = a.margin > 0, b.margin > 0
    pick = (reached_b & ~reached_a) | ((reached_a == reached_b) & (b.loss > a.loss))
    return Point(
        torch.where(spread(pick, a.u), b.u, a.u),
        torch.where(pick, b.loss, a.loss),
        torch.where(pick, b.margin, a.margin),
    )


def spread(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return one value an input, (N,), with as many axes as a batch.

    Example:
        >>> spread(torch.ones(2), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 1, 1])
    """
    return values.reshape(-1, *[1] * (like.ndim - 1))


def length(batch: Batch) -> Scores:
    """Return the Euclidean length of each input.

    Example:
        >>> length(torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """
    lengths: Scores = batch.flatten(1).norm(dim=1)
    return lengths


def uniform(shape: tuple[int, ...], generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Return uniform numbers in [0, 1) of the type and on the device of `like`.

    They are drawn where the generator is: the same seed gives the same numbers on any device.

    Example:
        >>> uniform((2, 3), torch.Generator().manual_seed(0), torch.zeros(1)).shape
        torch.Size([2, 3])
    """
    drawn: torch.Tensor = torch.rand(shape, generator=generator, device=generator.device)
    return drawn.to(like)
