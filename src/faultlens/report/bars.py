"""Signed bars with whiskers: responsible concepts, and other numbers that belong to a name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faultlens.report.wording import VIEWS, bounds, is_number, rounded, signed

#: Concepts drawn for one view.
MAX_CONCEPTS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One signed bar with its interval; positions are percent of the track's width."""

    name: str
    text: str
    word: str
    left: float
    width: float
    low: float
    high: float
    zero: float
    is_valid: bool = True


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars on one scale under a heading."""

    heading: str
    note: str
    bars: tuple[Bar, ...]
    n_more: int = 0


def bar(name: str, value: float, interval: Sequence[float], span: tuple[float, float]) -> Bar:
    """Place a bar and its whisker on a track that shows `span`.

    Example:
        >>> b = bar("wings", -0.5, (-0.75, -0.25), (-1.0, 1.0))
        >>> b.left, b.width, b.low, b.high, b.text
        (25.0, 25.0, 12.5, 37.5, '−0.50 [−0.75, −0.25]')
    """

    def at(x: float) -> float:
        return round(100 * (min(max(x, span[0]), span[1]) - span[0]) / (span[1] - span[0]), 2)

    low, high = (float(v) for v in interval)
    value, zero = float(value), at(0.0)
    end = at(value) if is_number(value) else zero
    whisker = (at(low), at(high)) if is_number(low) and is_number(high) else (end, end)
    text = f"{signed(value)} {bounds((low, high), 2, 1.0)}" if is_number(low) else rounded(value, 2)
    return Bar(name, text, "", min(end, zero), round(abs(end - zero), 2), *whisker, zero)


def concept_bars(
    concepts: Iterable[Mapping[str, Any]], trusted: Mapping[str, bool]
) -> tuple[BarGroup, ...]:
    """Group responsible concepts by view; each group's scale fits its longest whisker."""
    rows = [c for c in concepts if is_number(c.get("effect"))]
    groups = []
    for view, (heading, note, words) in VIEWS.items():
        found = [c for c in rows if c.get("view", "model") == view]
        if not found:
            continue
        shown = found[:MAX_CONCEPTS]
        ends = [abs(float(x)) for c in shown for x in (c["effect"], *_interval(c)) if is_number(x)]
        span = max(0.1, np.ceil(10 * max(ends)) / 10)
        bars = []
        for c in shown:
            # A head weighs a concept for one class; elsewhere there is no class to name.
            name = f"{c['concept']} for {c['class']}" if "class" in c else str(c["concept"])
            effect = float(c["effect"])
            b = bar(name, effect, _interval(c), (-span, span))
            word = words[0] if effect > 0 else words[1]
            bars.append(replace(b, word=word, is_valid=trusted.get(str(c["concept"]), True)))
        groups.append(BarGroup(heading, note, tuple(bars), len(found) - len(shown)))
    return tuple(groups)


def _interval(concept: Mapping[str, Any]) -> tuple[float, float]:
    low, high = concept.get("interval") or (float("nan"), float("nan"))
    return low, high
