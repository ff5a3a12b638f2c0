"""Sequential tests of a rate: they look at one case after the other and stop when decided."""

import math
from dataclasses import dataclass, field

from faultlens.errors import InputError


@dataclass(slots=True)
class Sprt:
    """Wald's sequential probability ratio test between two rates.

    Attributes:
        low: The smaller rate, in (0, 1).
        high: The larger rate, in (0, 1).
        alpha: Chance to accept `high` where the rate is `low` or smaller, at most (nearly).
        beta: Chance to accept `low` where the rate is `high` or larger, at most (nearly).
        n: Cases seen until the decision.
        n_holds: Those of them that hold.
        verdict: `high` or `low`, whichever was accepted; None while undecided.

    Raises:
        InputError: Rates or error chances out of order or range.

    Example:
        >>> test = Sprt(low=0.95, high=0.99, alpha=0.001, beta=0.001)
        >>> while test.verdict is None:
        ...     test.update(True)
        >>> test.n, test.verdict
        (168, 'high')

    References:
        Wald, Annals of Mathematical Statistics 1945.
    """

    low: float
    high: float
    alpha: float = 0.05
    beta: float = 0.05
    n: int = 0
    n_holds: int = 0
    verdict: str | None = None
    _gain: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < 1:
            raise InputError(
                "low and high must be rates with 0 < low < high < 1, got "
                f"{self.low} and {self.high}"
            )
        if not (0 < self.alpha < 0.5 and 0 < self.beta < 0.5):
            raise InputError(
                f"alpha and beta must be in (0, 0.5), got {self.alpha} and {self.beta}"
            )
        self._gain = math.log((1 - self.high) / (1 - self.low)), math.log(self.high / self.low)

    def update(self, holds: bool) -> None:
        """See one more case; after the decision nothing changes it."""
        if self.verdict is not None:
            return
        self.n += 1
        self.n_holds += bool(holds)
        ratio = (self.n - self.n_holds) * self._gain[0] + self.n_holds * self._gain[1]
        if ratio >= math.log((1 - self.beta) / self.alpha):
            self.verdict = "high"
        elif ratio <= math.log(self.beta / (1 - self.alpha)):
            self.verdict = "low"


class RateTest:
    """Is a rate above a required one, below it, or too near to tell?

    Two tests run side by side: the required rate against a clearly better one, and against a
    clearly worse one; clearly means `factor` times smaller or larger odds of a violation.

    Args:
        required: The required rate, in (0, 1).
        error: Chance of a wrong `holds`, and of a wrong `fails`.
        factor: Above 1.

    Raises:
        InputError: A number out of range.

    Example:
        >>> test = RateTest(0.95)
        >>> for holds in [True, False] * 5:
        ...     test.update(holds)
        >>> test.verdict
        'fails'

    References:
        Sobel and Wald, Annals of Mathematical Statistics 1949 (three decisions by two tests).
    """

    def __init__(self, required: float, error: float = 0.05, factor: float = 5.0) -> None:
        if not (0 < required < 1 and factor > 1):
            raise InputError(
                f"required must be in (0, 1) and factor above 1, got {required} and {factor}; a "
                "rate of exactly 1 can never be shown by sampling"
            )
        odds = (1 - required) / required
        self._better = Sprt(required, 1 / (1 + odds / factor), error, error)
        self._worse = Sprt(1 / (1 + odds * factor), required, error, error)

    def update(self, holds: bool) -> None:
        """See one more case."""
        self._better.update(holds)
        self._worse.update(holds)

    @property
    def verdict(self) -> str | None:
        """`holds`, `fails`, `near` (nothing clearly better or worse); None while undecided."""
        better, worse = self._better.verdict, self._worse.verdict
        if better == "high":
            return "holds"
        if worse == "low":
            return "fails"
        return "near" if better == "low" and worse == "high" else None
