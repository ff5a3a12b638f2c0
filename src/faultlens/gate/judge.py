"""Judging: whether one measured value keeps its limit, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultlens.gate.config import GateConfig, Limit
from faultlens.spec.suite import Case, Outcome
from faultlens.stats import clopper_pearson


@dataclass(frozen=True, slots=True)
class Value:
    """Something measured.

    Attributes:
        name: What it is.
        value: None where it could not be computed.
        n: Images it rests on; None where that is not a count of images.
        interval: Of the gate's confidence; None where it has none.
        reason: Why it could not be computed.
        is_share: Whether it is told in percent.
    """

    name: str
    value: float | None
    n: int | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""
    is_share: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """One check of the gate and what came of it.

    Attributes:
        suite: The part of the gate it belongs to.
        case: As a CI server shows it.
        value: What was measured, as text; empty for specifications and findings.
        required: What was asked, as text.
        data: The same for machines.
    """

    suite: str
    case: Case
    value: str
    required: str
    data: dict[str, Any]

    @property
    def told(self) -> str:
        """The verdict, and whether chance alone may have given it."""
        has_interval = self.data.get("interval") is not None
        is_passed = self.case.outcome is Outcome.PASSED
        is_unsure = is_passed and has_interval and not self.data["is_sure"]
        return f"{self.case.verdict}, not surely" if is_unsure else self.case.verdict


def share(name: str, n_counted: int, n: int, confidence: float) -> Value:
    """Return a share of images with its Clopper-Pearson interval.

    Example:
        >>> share("accuracy", 9, 10, 0.95).value
        0.9
        >>> share("accuracy", 0, 0, 0.95).reason
        'no image'
    """
    if not n:
        return Value(name, None, 0, None, "no image")
    low, high = clopper_pearson(n_counted, n, confidence)
    return Value(name, n_counted / n, n, (float(low), float(high)))


def judge(suite: str, value: Value, limit: Limit, config: GateConfig) -> Result:
    """Compare a value with its limit.

    What could not be computed fails. A share of too few images fails, or is skipped where the
    limit says so. An estimate that keeps its limit while its interval does not passes with a word
    about it.

    Example:
        >>> config = GateConfig.parse({"accuracy": {"min": 0.85}})
        >>> found = judge("metrics", share("accuracy", 90, 100, 0.95), config.accuracy, config)
        >>> found.case.outcome.value, found.case.message
        ('passed', 'accuracy 90.0 % [82.4, 95.1] n=100, required at least 85.0 %; not surely')
    """
    rule = limit.judge or config.judge
    is_few = value.n is not None and value.n < config.min_images
    may_skip = (limit.too_few or config.too_few) == "skip"
    required = _required(limit, value.is_share)
    is_sure = value.interval is not None and _keeps(value.interval, limit)
    if value.value is None or not np.isfinite(value.value):
        outcome = Outcome.UNKNOWN if is_few and may_skip else Outcome.FAILED
        said = f"could not be computed: {value.reason or 'not a number'}"
    elif is_few:
        outcome = Outcome.UNKNOWN if may_skip else Outcome.FAILED
        said = f"{value.n} images, fewer than {config.min_images}: too few to judge"
    elif rule == "bound" and value.interval is None:
        outcome = Outcome.FAILED
        said = "it has no interval to judge by; judge: estimate compares the number itself"
    else:
        is_kept = _keeps((value.value, value.value), limit)
        outcome = Outcome.PASSED if (is_sure if rule == "bound" else is_kept) else Outcome.FAILED
        said = "not surely" if is_kept and not is_sure and value.interval else ""
    shown = _shown(value)
    message = f"{value.name} {shown}, required {required}" + (f"; {said}" if said else "")
    data: dict[str, Any] = {
        "value": value.value, "interval": value.interval, "n": value.n, "min": limit.min,
        "max": limit.max, "judge": rule, "is_sure": is_sure,
    }  # fmt: skip
    case = Case(value.name, _VERDICTS[outcome], outcome, message)
    return Result(suite, case, shown, required, data)


_VERDICTS = {Outcome.PASSED: "PASSED", Outcome.FAILED: "FAILED", Outcome.UNKNOWN: "SKIPPED"}


def plain(suite: str, name: str, outcome: Outcome, message: str, **more: str) -> Result:
    """Return the result of a check that is not a number against a limit.

    Args:
        suite: The part of the gate.
        name: Of the check.
        outcome: What came of it.
        message: One line.
        more: `detail` (more lines), `value` and `required` for the table.
    """
    case = Case(name, _VERDICTS[outcome], outcome, message, more.get("detail", ""))
    return Result(suite, case, more.get("value", ""), more.get("required", ""), {})


def _keeps(interval: Sequence[float], limit: Limit) -> bool:
    low, high = interval
    return (limit.min is None or low >= limit.min) and (limit.max is None or high <= limit.max)


def _required(limit: Limit, is_share: bool) -> str:
    bounds = (("at least", limit.min), ("at most", limit.max))
    return " and ".join(f"{word} {_number(x, is_share)}" for word, x in bounds if x is not None)


def _number(x: float, is_share: bool) -> str:
    return f"{100 * x:.1f} %" if is_share else f"{x:.4g}"


def _shown(value: Value) -> str:
    if value.value is None or not np.isfinite(value.value):
        return "–"
    said = _number(value.value, value.is_share)
    if value.interval is not None:
        scale, digits = (100, "{:.1f}") if value.is_share else (1, "{:.4g}")
        said += " [" + ", ".join(digits.format(scale * b) for b in value.interval) + "]"
    return said if value.n is None else f"{said} n={value.n}"
