"""Comparing two sessions: two models, or two dates, and whether the second one is worse."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faultlens import files
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.errors import InputError
from faultlens.finding import SCHEMA, Finding
from faultlens.heatmaps import DifferentialHeatmap, Heatmap, HeatmapCounts
from faultlens.regressions import (
    LEVEL,
    Change,
    heatmap_shifts,
    judged,
    paired,
    paired_shifts,
    unpaired,
)
from faultlens.report.cells import strongest_pairs
from faultlens.report.compared import render_compared
from faultlens.session import DebugSession

#: Largest difference of two cosines that the vision-language model gives of the same picture.
_SAME = 1e-3
#: Of the images of the smaller session, so many must be shared to compare these alone.
_MIN_SHARED = 0.5
_NUMBERS = (
    "accuracy", "accuracy_refitted_head", "accuracy_vlm", "head_share", "map_r2",
    "n_valid_concepts",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Images that two sessions have in common, row by row.

    Attributes:
        first: (n,) rows of the first session.
        second: (n,) rows of the second.
        is_checked: Whether the pictures themselves were compared, not their names only.
    """

    first: IntArray
    second: IntArray
    is_checked: bool


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What changed from a first session to a second one.

    Attributes:
        first: The earlier one, or the one to compare with.
        second: The later one.
        is_paired: Whether the same images were compared.
        changes: Accuracy over all images, of every class and of every subclass.
        new: Findings of the second session only.
        gone: Findings of the first session only.
        kept: Findings of both: as in the first, as in the second.
        heatmaps: By class, how the heatmap of its images changed as the classifier sees them.
        concepts: Those that mean the same in both sessions and passed both validity gates.
        pictures: By class, the same as the vision-language model sees them; empty where the
            images are the same, since then it cannot change.
        remarks: What a reader should know.
    """

    first: DebugSession
    second: DebugSession
    is_paired: bool
    changes: tuple[Change, ...]
    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    kept: tuple[tuple[Finding, Finding], ...]
    concepts: tuple[str, ...]
    heatmaps: Mapping[str, DifferentialHeatmap]
    pictures: Mapping[str, DifferentialHeatmap]
    remarks: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Groups of images on which the second session is significantly worse."""
        return tuple(c for c in self.changes if c.verdict == "worse")

    @property
    def exit_code(self) -> int:
        """1 where something became significantly worse, else 0."""
        return 1 if self.regressions else 0

    @property
    def told(self) -> str:
        """The result in one line."""
        total = self.changes[0]
        change = f"accuracy {100 * total.first:.1f} % to {100 * total.second:.1f} %"
        if not self.regressions:
            return f"no significant regression; {change}"
        names = ", ".join(c.name for c in self.regressions[:5])
        names += f" and {n - 5} more" if (n := len(self.regressions)) > 5 else ""
        return f"significantly worse: {names}; {change}"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as one JSON object, as the command prints it with `--json`."""
        numbers = {k: [s.numbers.get(k) for s in (self.first, self.second)] for k in _NUMBERS}
        return dict(files.json_value({
            "schema": SCHEMA,
            "first": _about(self.first),
            "second": _about(self.second),
            "exit_code": self.exit_code,
            "told": self.told,
            "is_paired": self.is_paired,
            "changes": [asdict(c) for c in self.changes],
            "findings": {
                "new": [f.to_json() for f in self.new],
                "gone": [f.to_json() for f in self.gone],
                "kept": [{"first": a.to_json(), "second": b.to_json()} for a, b in self.kept],
            },
            "concepts": self.concepts,
            "heatmaps": {k: self._cells(d) for k, d in self.heatmaps.items()},
            "pictures": {k: self._cells(d) for k, d in self.pictures.items()},
            "numbers": numbers,
            "remarks": self.remarks,
        }))  # fmt: skip

    def _cells(self, delta: DifferentialHeatmap) -> dict[str, Any]:
        pairs = strongest_pairs(delta, {})
        cells = [{"pair": a, "points": b, "q": c} for a, b, c in pairs]
        n = int(np.triu(delta.significant(), 1).sum())
        return {"n_first": delta.n_first, "n_second": delta.n_second,
                "n_significant": n, "strongest": cells}  # fmt: skip

    def write(self, out: str | Path | None = None) -> Path:
        """Write `diff.json` and the page `diff.html`.

        Args:
            out: The folder; `diff` in the second session's folder by default.

        Returns:
            The page.

        Raises:
            StoreError: A file cannot be written.
        """
        folder = self.second.folder / "diff" if out is None else Path(out)
        document = self.to_json()
        files.write_json(folder / "diff.json", document)
        page = folder / "diff.html"
        text = render_compared(document, self.heatmaps, self.pictures)
        files.write_atomic(page, text.encode())
        return page


def compare(
    first: DebugSession | str | Path, second: DebugSession | str | Path, level: float = LEVEL
) -> Difference:
    """Compare two sessions: accuracies, findings and heatmaps.

    Images are paired by name and label, and where both sessions have the same vision-language
    model it must also see the same picture. If at least half of the smaller session's images are
    shared, these alone are compared; otherwise all are, as two independent samples.

    Args:
        first: The earlier one.
        second: The later one.
        level: Chance of calling any group worse that is not, in (0, 1).

    Raises:
        InputError: The sessions are the same, or share no class.
        StoreError: A session is missing or damaged.
    """
    a, b = (s if isinstance(s, DebugSession) else DebugSession.open(s) for s in (first, second))
    if a.folder.resolve() == b.folder.resolve():
        raise InputError(f"sessions must be two, got {a.folder} twice; name another one")
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}")
    classes = tuple(k for k in a.classes if k in b.classes)
    if not classes:
        raise InputError("sessions must share classes, got none in common; compare others")
    concepts, is_same_space = _shared_concepts(a, b)
    shared = _shared(a, b, concepts if is_same_space else ())
    n_least = min(len(a.images), len(b.images))
    is_paired = len(shared.first) >= max(1, _MIN_SHARED * n_least)
    rows = (shared.first, shared.second) if is_paired else _all_rows(a, b)
    rows = _of_classes((a, b), rows, classes, is_paired)
    changes = judged(_changes((a, b), rows, classes, is_paired), level)
    trusted = tuple(c for c in concepts if all(_is_trusted(s, c) for s in (a, b)))
    heatmaps, pictures = _heatmaps((a, b), rows, classes, trusted, is_paired)
    return Difference(
        a, b, is_paired, changes, *_findings(a.findings, b.findings), trusted, heatmaps, pictures,
        tuple(_remarks((a, b), shared, is_paired, is_same_space, trusted)),
    )  # fmt: skip


Pair = tuple[DebugSession, DebugSession]
Rows = tuple[IntArray, IntArray]


def _all_rows(a: DebugSession, b: DebugSession) -> Rows:
    return np.arange(len(a.images)), np.arange(len(b.images))


def _of_classes(pair: Pair, rows: Rows, classes: Sequence[str], is_paired: bool) -> Rows:
    """Leave out images of classes that only one session knows."""
    kept = [
        np.array([s.images[i]["label"] in classes for i in r], bool)
        for s, r in zip(pair, rows, strict=True)
    ]
    if is_paired:
        kept = [kept[0] & kept[1]] * 2
    return rows[0][kept[0]], rows[1][kept[1]]


def _is_trusted(session: DebugSession, concept: str) -> bool:
    return session.concepts.index(concept) in session.valid_concepts


def _shared_concepts(a: DebugSession, b: DebugSession) -> tuple[tuple[str, ...], bool]:
    """Return the concepts that mean the same in both, and whether the VLM is the same."""
    hashes = {s.info["facts"].get("vlm", {}).get("content_hash") for s in (a, b)}
    if len(hashes) > 1:
        return (), False
    directions = [s.arrays("alignment")["directions"] for s in (a, b)]
    if directions[0].shape[1] != directions[1].shape[1]:
        return (), False
    same = [
        c for i, c in enumerate(a.concepts)
        if c in b.concepts
        and np.abs(directions[0][i] - directions[1][b.concepts.index(c)]).max() < _SAME
    ]  # fmt: skip
    return tuple(same), True


def _shared(a: DebugSession, b: DebugSession, concepts: Sequence[str]) -> Shared:
    """Pair images by name and label, and by what the VLM sees in them where it is the same."""
    place = {row["name"]: i for i, row in enumerate(b.images)}
    pairs = [
        (i, place[row["name"]]) for i, row in enumerate(a.images)
        if row["name"] in place and b.images[place[row["name"]]]["label"] == row["label"]
    ]  # fmt: skip
    first, second = (np.array([p[side] for p in pairs], np.int64) for side in (0, 1))
    if not pairs or not concepts:
        return Shared(first, second, False)
    seen = [_cosines(s, r, concepts) for s, r in ((a, first), (b, second))]
    same = np.abs(seen[0] - seen[1]).max(axis=1) < _SAME
    return Shared(first[same], second[same], True)


def _cosines(session: DebugSession, rows: IntArray, concepts: Sequence[str]) -> FloatArray:
    """Return (n, C) what the VLM gives of images before centring: a fingerprint of the picture."""
    stored = session.arrays("alignment")
    columns = _columns(session, concepts)
    fits = [session.images[i]["fit"] for i in rows]
    centres = np.stack([stored[f"fit{fit}.centre_vlm"][columns] for fit in fits])
    return np.asarray(_strengths(session, "vlm", rows, concepts) + centres)


def _columns(session: DebugSession, concepts: Sequence[str]) -> IntArray:
    return np.array([session.concepts.index(c) for c in concepts], np.int64)


def _strengths(
    session: DebugSession, source: str, rows: IntArray, concepts: Sequence[str]
) -> FloatArray:
    stored = np.asarray(session.arrays("strengths")[source])
    return np.asarray(stored[np.ix_(rows, _columns(session, concepts))])


def _changes(pair: Pair, rows: Rows, classes: Sequence[str], is_paired: bool) -> list[Change]:
    test = paired if is_paired else unpaired
    right = [
        np.array([s.images[i]["label"] == s.images[i]["prediction"] for i in r], bool)
        for s, r in zip(pair, rows, strict=True)
    ]
    found = [test("all", "all images", *right)]
    for kind, key in (("class", "label"), ("subclass", "subclass")):
        of = [[s.images[i][key] for i in r] for s, r in zip(pair, rows, strict=True)]
        names = classes if kind == "class" else sorted({x for xs in of for x in xs if x})
        for name in names:
            first, second = (_is(xs, name) for xs in of)
            if is_paired:
                first = second = first & second
            found.append(test(kind, name, right[0][first], right[1][second]))
    return found


def _is(values: Sequence[str], name: str) -> BoolArray:
    return np.array([v == name for v in values], bool)


def _heatmaps(
    pair: Pair, rows: Rows, classes: Sequence[str], concepts: tuple[str, ...], is_paired: bool
) -> tuple[dict[str, DifferentialHeatmap], dict[str, DifferentialHeatmap]]:
    """Return how heatmaps of labelled images changed, for the classifier and for the VLM."""
    if len(concepts) < 2:
        return {}, {}
    sides = list(zip(pair, rows, strict=True))
    labels = [np.array([s.images[i]["label"] for i in r]) for s, r in sides]
    if is_paired:
        first, second = (_strengths(s, "model", r, concepts) for s, r in sides)
        groups = {k: np.flatnonzero(labels[0] == k) for k in classes}
        return paired_shifts(first, second, groups, concepts), {}
    model, vlm = (
        heatmap_shifts(*(
            _by_class(_strengths(s, source, r, concepts), y, classes, concepts)
            for (s, r), y in zip(sides, labels, strict=True)
        ))
        for source in ("model", "vlm")
    )  # fmt: skip
    return model, vlm


def _by_class(
    strengths: FloatArray, labels: Any, classes: Sequence[str], concepts: tuple[str, ...]
) -> dict[str, Heatmap]:
    place = {k: i for i, k in enumerate(classes)}
    groups = np.array([place[y] for y in labels], np.int64)
    counts = HeatmapCounts.of(strengths, groups, len(classes))
    return {
        k: Heatmap("ground-truth", k, concepts, counts.wins[i], int(counts.n[i]))
        for i, k in enumerate(classes)
    }


def _findings(
    first: Sequence[Finding], second: Sequence[Finding]
) -> tuple[tuple[Finding, ...], tuple[Finding, ...], tuple[tuple[Finding, Finding], ...]]:
    """Part findings into new, gone and kept: the same kind of the same subject, or the same id."""
    left, kept, new = list(first), [], []
    for f in second:
        same = [g for g in left if g.kind == f.kind and f.subject == g.subject]
        same += [g for g in left if g.kind == f.kind and f.id == g.id]
        if same:
            left.remove(same[0])
            kept.append((same[0], f))
        else:
            new.append(f)
    return tuple(new), tuple(left), tuple(kept)


def _remarks(
    pair: Pair, shared: Shared, is_paired: bool, is_same_space: bool, concepts: Sequence[str]
) -> list[str]:
    said = []
    a, b = pair
    n = len(shared.first)
    if is_paired and n < max(len(a.images), len(b.images)):
        said.append(
            f"{n} images are in both sessions ({len(a.images)} and {len(b.images)}); only these "
            "are compared"
        )
    if is_paired and not shared.is_checked:
        said.append("images are paired by name and label; whether the pictures are the same was "
                    "not checked")  # fmt: skip
    if not is_same_space:
        said.append("the vision-language models differ, so heatmaps cannot be compared")
    elif len(concepts) < max(len(a.concepts), len(b.concepts)):
        said.append(f"heatmaps are compared over the {len(concepts)} concepts that both can trust")
    if a.classes != b.classes:
        said.append("the classes differ; only images of classes that both know are compared")
    for s in (a, b):
        if s.status == "unknown":
            said.append(f"{s.folder}: {s.headline}")
    return said


def _about(session: DebugSession) -> dict[str, Any]:
    facts = session.info["facts"]
    model = facts.get("model") or {"name": facts.get("features", {}).get("file")}
    return {
        "session": str(session.folder), "model": model["name"],
        "content_hash": model.get("content_hash"), "n_images": len(session.images),
        "images": facts.get("images", {}).get("root"), "status": session.status,
        "headline": session.headline,
    }  # fmt: skip
