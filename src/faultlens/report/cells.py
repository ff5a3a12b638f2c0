"""Cells: the pairs of concepts in which errors differ most from correct images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faultlens.finding import Finding
from faultlens.heatmaps import DifferentialHeatmap
from faultlens.report.content import ReportContent
from faultlens.report.wording import bounds, rounded, signed

#: Pairs of concepts listed for a class or confusion, and for a finding.
MAX_PAIRS, MAX_CELLS = 6, 3

#: `first > second`, difference in points, q.
Pair = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Cells:
    """Strongest cells of a differential heatmap.

    Attributes:
        where: Whose heatmap; empty where there is none to show.
        target: Where it is on the page.
        rows: The cells.
        missing: Why there is nothing to see; empty where there is.
    """

    where: str = ""
    target: str = ""
    rows: tuple[Pair, ...] = ()
    missing: str = ""


def strongest_pairs(delta: DifferentialHeatmap, trusted: Mapping[str, bool]) -> tuple[Pair, ...]:
    """Return the largest significant differences: `first > second`, points, q."""
    valid = np.array([trusted.get(c, True) for c in delta.concepts])
    usable = delta.significant() & np.outer(valid, valid)
    rows, columns = np.nonzero(np.triu(usable, 1))
    order = np.argsort(-np.abs(delta.values[rows, columns]), kind="stable")[:MAX_PAIRS]
    out = []
    for a, b in zip(rows[order], columns[order], strict=True):
        interval = (float(delta.low[a, b]), float(delta.high[a, b]))
        points = f"{signed(100 * float(delta.values[a, b]), 0)} points {bounds(interval)}"
        q = float(delta.q_values[a, b])
        text = "< 0.001" if q < 0.001 else rounded(q, 3)
        out.append((f"{delta.concepts[a]} > {delta.concepts[b]}", points, text))
    return tuple(out)


class CellFinder:
    """Finds the cells of classes, confusions and findings, each heatmap once."""

    def __init__(self, content: ReportContent, trusted: Mapping[str, bool]) -> None:
        self._content = content
        self._trusted = trusted
        self._classes: dict[int, tuple[bool, tuple[Pair, ...]]] = {}
        self.confusion_index = {(c.label, c.predicted): i for i, c in enumerate(content.confusions)}

    def of_class(self, k: int) -> tuple[Pair, ...]:
        """Pairs of a class."""
        return self._class(k)[1]

    def of_confusion(self, i: int) -> tuple[Pair, ...]:
        """Pairs of a confusion."""
        return strongest_pairs(self._content.confusions[i].delta_model, self._trusted)

    def of_finding(self, finding: Finding, subject: Sequence[int]) -> Cells:
        """Cells of the heatmap that belongs to a finding.

        Args:
            finding: Names classes or confusions in its evidence.
            subject: Classes named by its subject.
        """
        names = self._content.classes
        found = self.confusion_index.get((subject[0], subject[1])) if len(subject) == 2 else None
        if found is not None:
            return self._of_confusion(found)
        known = {name: k for k, name in enumerate(names)}
        named = [known[n] for n in finding.evidence.get("classes") or () if n in known]
        for k in [*subject, *named][:1]:
            is_enough, pairs = self._class(k)
            return _cells(names[k], f"#cells-class-{k}", is_enough, pairs)
        for row in finding.evidence.get("confusions") or ():
            pair = (known.get(row["label"], -1), known.get(row["predicted"], -1))
            i = self.confusion_index.get(pair)
            if i is not None:
                return self._of_confusion(i)
        return Cells(missing="no class or confusion to compare")

    def _class(self, k: int) -> tuple[bool, tuple[Pair, ...]]:
        if k not in self._classes:
            delta = self._content.counts["model"].differential(k)
            self._classes[k] = delta.is_enough, strongest_pairs(delta, self._trusted)
        return self._classes[k]

    def _of_confusion(self, i: int) -> Cells:
        c, names = self._content.confusions[i], self._content.classes
        where = f"{names[c.label]} → {names[c.predicted]}"
        pairs = self.of_confusion(i)
        return _cells(where, f"#cells-confusion-{i}", c.delta_model.is_enough, pairs)


def _cells(where: str, target: str, is_enough: bool, pairs: tuple[Pair, ...]) -> Cells:
    if not is_enough:
        return Cells(where, missing=f"too few errors of {where} for a heatmap")
    if not pairs:
        return Cells(where, target, missing=f"no cell of {where} differs by more than chance")
    return Cells(where, target, pairs[:MAX_CELLS])
