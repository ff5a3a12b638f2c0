"""The chain of evidence behind a cause: images, strengths, cells, intervention, fix.

A link that is missing says so; none is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from faultlens.finding import Finding
from faultlens.report.bars import BarGroup
from faultlens.report.cells import Cells
from faultlens.report.wording import bounds, is_number, percent, plural, signed

#: Concepts drawn in a link; the rest is below it.
MAX_STRENGTHS = 4


@dataclass(frozen=True, slots=True)
class Gauge:
    """A share beside the same share under random directions, in percent of the track.

    Attributes:
        value: What the intervention repaired.
        low: Lower end of its interval.
        high: Upper end.
        random_low: 5 % of the random directions repair less.
        random_high: 5 % repair more.
        said: All of it in words.
    """

    value: float
    low: float
    high: float
    random_low: float
    random_high: float
    said: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The links of one cause, in their order.

    Attributes:
        images: How many errors it is about.
        strengths: The responsible concepts; None where none is named.
        cells: Of the heatmap that shows them.
        told: What the intervention did; empty where there was none.
        gauge: The same as a figure.
        no_intervention: Why there was none.
        smallest: The fewest concepts that carry the errors; empty where not asked.
        fix: What a fix gained, or how to try one.
        is_fix_tried: Whether one was.
        is_fix_advised: Whether it helped.
    """

    images: str
    strengths: BarGroup | None
    cells: Cells
    told: str
    gauge: Gauge | None
    no_intervention: str
    smallest: str
    fix: str
    is_fix_tried: bool
    is_fix_advised: bool


def chain(finding: Finding, bars: tuple[BarGroup, ...], cells: Cells, folder: str) -> Chain:
    """Gather the links of a finding.

    Args:
        finding: A fault.
        bars: Of its concepts.
        cells: Of the heatmap that belongs to it.
        folder: Of the session, for the command that tries fixes.

    Example:
        >>> f = Finding("a", "localization.data", "fault", "ship", "Wrong.", 0.1, (0, 1), 9, 0.9)
        >>> found = chain(f, (), Cells(missing="no class to compare"), "out")
        >>> found.images, found.no_intervention, found.fix
        ('images not listed', 'no intervention was tried', 'no fix tried yet: `faultlens fix out`')
    """
    e = finding.evidence
    intervention, fix = _mapping(e.get("intervention")), _mapping(e.get("fix"))
    n: Any = e.get("n_errors")
    return Chain(
        images=plural(int(n), "error") if is_number(n) else "images not listed",
        strengths=_shortened(bars[0]) if bars else None,
        cells=cells,
        told=str(intervention.get("told", "")),
        gauge=gauge(intervention),
        no_intervention="" if intervention else _why_none(finding),
        smallest=", ".join(_mapping(e.get("minimal_set")).get("concepts", ())),
        fix=_fix(fix) if fix else f"no fix tried yet: `faultlens fix {folder}`",
        is_fix_tried=bool(fix),
        is_fix_advised=bool(fix.get("is_advised")),
    )


def gauge(intervention: Mapping[str, Any]) -> Gauge | None:
    """Return the figure of an intervention, None where random directions were not tried.

    Example:
        >>> rate = {"share": 0.41, "interval": [0.38, 0.44], "random_quantiles": [0, 0, 0.01]}
        >>> gauge({"repaired": rate}).said
        'repairs 41\xa0% [38, 44]; random directions 0\xa0% to 1\xa0%'
    """
    rate = _mapping(intervention.get("repaired"))
    share: Any = rate.get("share")
    random: Any = rate.get("random_quantiles") or ()
    if not is_number(share) or len(random) < 2 or not all(map(is_number, random)):
        return None
    low, high = rate.get("interval") or (share, share)
    said = (
        f"repairs {percent(share)} {bounds((low, high))}; random directions "
        f"{percent(random[0])} to {percent(random[-1])}"
    )

    def at(x: float) -> float:
        return round(100 * float(x), 1)

    return Gauge(at(share), at(low), at(high), at(random[0]), at(random[-1]), said)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shortened(group: BarGroup) -> BarGroup:
    shown = group.bars[:MAX_STRENGTHS]
    return replace(group, bars=shown, n_more=group.n_more + len(group.bars) - len(shown))


def _why_none(finding: Finding) -> str:
    if finding.confirmed:
        return "no concept was erased; the claim itself tells of the intervention"
    return "no intervention was tried"


def _fix(fix: Mapping[str, Any]) -> str:
    """Say what a fix did and gained."""
    told = str(fix.get("told", "")).rstrip(".")
    gain: Any = fix.get("gain")
    if not is_number(gain):
        return f"{told}: gain not measured"
    low, high = fix.get("interval") or (gain, gain)
    points = f"{signed(100 * float(gain), 1)} points {bounds((low, high), 1)}"
    return f"{told}: accuracy {points}, {'advised' if fix.get('is_advised') else 'not advised'}"
