"""The page of a comparison: what became better or worse, changed findings, changed heatmaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faultlens.heatmaps import DifferentialHeatmap
from faultlens.report.bars import BarGroup, bar
from faultlens.report.cells import Pair, strongest_pairs
from faultlens.report.templating import environment
from faultlens.report.wording import bounds, signed

#: Concepts of one matrix, classes with a matrix, groups with a bar.
MAX_CONCEPTS, MAX_CLASSES, MAX_GROUPS = 16, 12, 60


@dataclass(frozen=True, slots=True)
class Cell:
    """A significant cell of a matrix: its place, its colour's strength, and what it says."""

    row: int
    column: int
    is_up: bool
    opacity: float
    told: str


@dataclass(frozen=True, slots=True)
class Shift:
    """A class whose heatmap changed."""

    name: str
    n_significant: int
    concepts: tuple[str, ...]
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]


def render_compared(
    document: Mapping[str, Any],
    heatmaps: Mapping[str, DifferentialHeatmap],
    pictures: Mapping[str, DifferentialHeatmap],
) -> str:
    """Render a comparison as one self-contained HTML document.

    Args:
        document: As in `diff.json`.
        heatmaps: By class, the change as the classifier sees the images.
        pictures: By class, the change as the vision-language model sees them.

    Returns:
        The document's text, to be written as UTF-8; it runs no script and asks no network.
    """
    return (
        environment()
        .get_template("compared.html.j2")
        .render(
            document=document,
            total=document["changes"][0],
            worse=[c for c in document["changes"] if c["verdict"] == "worse"],
            better=[c for c in document["changes"] if c["verdict"] == "better"],
            groups=_groups(document["changes"]),
            views=[
                ("What the embedding says differently", _shifts(heatmaps)),
                ("What the pictures show differently", _shifts(pictures)),
            ],
            n_untested=sum(c["verdict"] == "few" for c in document["changes"]),
            n_concepts=MAX_CONCEPTS,
        )
    )


def _groups(changes: Sequence[Mapping[str, Any]]) -> tuple[BarGroup, ...]:
    """Return gains as bars on one scale, the worst first."""
    tested = [c for c in changes if c["verdict"] != "few"]
    ends = [abs(x) for c in tested for x in c["interval"]]
    span = max(0.05, float(np.ceil(20 * max(ends, default=0.05)) / 20))
    out = []
    for kind, heading in (("all", "All images"), ("class", "Classes"), ("subclass", "Subclasses")):
        rows = sorted((c for c in tested if c["kind"] == kind), key=lambda c: float(c["gain"]))
        bars = []
        for c in rows[:MAX_GROUPS]:
            made = bar(c["name"], c["gain"], c["interval"], (-span, span))
            word = "" if c["verdict"] == "same" else str(c["verdict"])
            text = f"{signed(100 * c['gain'], 1)} {bounds(c['interval'], 1)}"
            bars.append(replace(made, text=text, word=word))
        if bars:
            out.append(BarGroup(heading, "", tuple(bars), len(rows) - len(bars)))
    return tuple(out)


def _shifts(heatmaps: Mapping[str, DifferentialHeatmap]) -> list[Shift]:
    """Return the classes with significant cells, those with most first."""
    found = [_shift(name, delta) for name, delta in heatmaps.items()]
    kept = sorted((s for s in found if s.n_significant), key=lambda s: -s.n_significant)
    return kept[:MAX_CLASSES]


def _shift(name: str, delta: DifferentialHeatmap) -> Shift:
    marked = delta.significant() & ~np.eye(len(delta.concepts), dtype=bool)
    weight = np.where(marked, np.abs(np.nan_to_num(delta.values)), 0).sum(axis=1)
    chosen = np.sort(np.argsort(-weight, kind="stable")[:MAX_CONCEPTS])
    chosen = chosen[weight[chosen] > 0]
    cells = []
    for i, a in enumerate(chosen):
        for j, b in enumerate(chosen):
            if marked[a, b]:
                value = float(delta.values[a, b])
                told = f"{delta.concepts[a]} > {delta.concepts[b]}: {signed(100 * value, 0)} points"
                opacity = round(0.15 + 0.85 * min(1.0, abs(value)), 2)
                cells.append(Cell(i, j, value > 0, opacity, told))
    return Shift(
        name, int(np.triu(marked, 1).sum()), tuple(delta.concepts[c] for c in chosen),
        tuple(cells), strongest_pairs(delta, {}),
    )  # fmt: skip
