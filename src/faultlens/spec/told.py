"""What verification found, told: a row, a JUnit case and warnings for each specification.

An entry is one object of `specs` in `verify.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from faultlens.spec.suite import Case, Outcome
from faultlens.spec.table import Table, bounds


def table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row a specification; where it was asked over several regions, the worst."""
    header = ("spec", "region", "coverage", "gamma*", "observed", "witness", "verdict")
    rows = []
    for e in entries:
        worst = _telling(e)
        others = len(e["regions"]) - 1
        place = f"{e['region']}({worst['class']})" + (f" and {others} more" if others else "")
        rows.append((
            e["name"], place, _coverage_text(worst["coverage"]), _star_text(worst["gamma_star"]),
            _rate(e["observed"]), _witness_text(worst["witness"]),
            " ".join(filter(None, (e["verdict"], worst["reason"]))),
        ))  # fmt: skip
    return Table(header, tuple(rows))


def _telling(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the region that made the verdict what it is."""
    return next(c for c in entry["regions"] if c["verdict"] == entry["verdict"])


def _coverage_text(coverage: Mapping[str, Any] | None) -> str:
    if coverage is None:
        return "–"
    warning = " LOW-COVERAGE" if coverage["is_low"] else ""
    return f"{coverage['n_inside']}/{coverage['n']} {bounds(coverage['interval'])}{warning}"


def _star_text(star: Mapping[str, Any] | None) -> str:
    if star is None:
        return ""
    if star["gamma"] is None:
        return "none"
    return f"{star['gamma']:.3g} ({star['coverage']['n_inside']}/{star['coverage']['n']} inside)"


def _rate(observed: Mapping[str, Any]) -> str:
    if observed["rate"] is None:
        return "no image"
    return f"{100 * observed['rate']:.1f} {bounds(observed['interval'])} n={observed['n']}"


def _witness_text(witness: Mapping[str, Any] | None) -> str:
    if witness is None:
        return ""
    if witness["image"] is None:
        return str(witness["kind"])
    away = f" ({witness['distance']:.3g} away)" if witness["distance"] else ""
    return f"{witness['kind']}: {witness['image']}{away}"


def case(entry: Mapping[str, Any]) -> Case:
    """Return one specification's JUnit case, with a line a region."""
    lines = [entry["text"]]
    for c in entry["regions"]:
        parts = (
            f"{entry['region']}({c['class']}): {c['verdict']}", c["reason"],
            f"coverage {_coverage_text(c['coverage'])}", _witness_text(c["witness"]),
        )  # fmt: skip
        lines.append("; ".join(filter(None, parts)))
    seconds = sum(c["seconds"] for c in entry["regions"])
    return Case(
        entry["name"], entry["verdict"], Outcome(entry["outcome"]), lines[1], "\n".join(lines),
        seconds,
    )  # fmt: skip


def remarks(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Warn of proofs over regions that hold few images."""
    low = [
        e["name"]
        for e in entries
        if any(c["verdict"] == "PROVED" and c["coverage"]["is_low"] for c in e["regions"])
    ]
    if not low:
        return ()
    more = f" and {len(low) - 3} more" if len(low) > 3 else ""
    return (
        f"LOW-COVERAGE: {', '.join(low[:3])}{more}: proved over regions that surely hold fewer "
        "than half of the class's held-out images, so little is proved about images",
    )
