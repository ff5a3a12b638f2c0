"""Queries: the images of a session on which a formula holds, those first where it holds clearly.

The formulas are those of specifications (`docs/guide/con_spec.md`), with what is known of images:
`label(class)`, `vlm(class)`, `correct` and `wrong`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faultlens import files, signals
from faultlens.arrays import BoolArray, FloatArray, IntArray, read_only
from faultlens.data.images import ImageSource, open_images
from faultlens.data.thumbnails import thumbnail
from faultlens.errors import FaultlensError, InputError, SpecError, nearest
from faultlens.finding import SCHEMA
from faultlens.heatmaps import DifferentialHeatmap, Heatmap, HeatmapCounts, differential
from faultlens.report.found import render_found
from faultlens.session import DebugSession
from faultlens.spec import parse
from faultlens.spec.check import Images
from faultlens.spec.formula import Formula, all_of, comparisons, holds
from faultlens.spec.margin import margins
from faultlens.spec.syntax import Let, Spec, SpecFile

#: What images can be grouped by: the key of their row that says it.
KEYS = {
    "class": "label", "label": "label", "prediction": "prediction", "vlm": "vlm",
    "verdict": "verdict", "subclass": "subclass",
}  # fmt: skip
SOURCES = ("model", "vlm")
_SIDE = 192


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a query asks: signals of the session's images, and which fit serves each image."""

    images: Images
    thresholds: signals.Source
    n_measured: int


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Images of a session, ranked by how clearly a formula holds on them.

    The first image is the one with the largest margin: the smallest distance, over all that the
    formula asks for, to the point where it would no longer hold. Distances are counted in standard
    deviations over the session's images. What is known without a measure (a label) never decides
    the order; where nothing else is asked for, the order is that of the run.

    Attributes:
        session: Whose images they are.
        formula: What holds on them.
        source: Whose strengths were asked: `model` or `vlm`.
        rows: (n,) places in `session.images`, the clearest first.
        margins: (n,) margins; infinite where only labels decide.
        untrusted: Concepts asked for that did not pass the validity gate: what they say may be
            noise. All of them where the vision-language model does not know the images.
    """

    session: DebugSession
    formula: str
    source: str
    rows: IntArray
    margins: FloatArray
    untrusted: tuple[str, ...]
    _seen: _Seen

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the images' rows, as in `images.json`, each with its `rank` and `margin`."""
        for rank, (row, margin) in enumerate(zip(self.rows, self.margins, strict=True), 1):
            measured = float(margin) if np.isfinite(margin) else None
            yield {"rank": rank, "margin": measured, **self.session.images[row]}

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names, as in the run."""
        return tuple(self.session.images[row]["name"] for row in self.rows)

    def where(self, formula: str) -> "Selection":
        """Return those images on which another formula holds too.

        Args:
            formula: As for `DebugSession.where`.
        """
        held, margin, untrusted = _asked(self.session, self._seen, formula, self.source)
        own = np.full(len(held), -np.inf)
        own[self.rows] = self.margins
        both = np.minimum(own, margin)
        kept = self.rows[held[self.rows]]
        text = f"({_bare(self.formula)}) and ({_bare(formula)})"
        doubted = tuple(dict.fromkeys((*self.untrusted, *untrusted)))
        return _ranked(replace(self, formula=text, untrusted=doubted), kept, both)

    def by(self, key: str) -> "Groups":
        """Part the images.

        Args:
            key: `class` (or `label`), `prediction`, `vlm`, `verdict`, `subclass`, or `confusion`
                (`ship -> truck`, misclassified images only).

        Returns:
            Selections by value, the largest first; each keeps the order of the ranks.

        Raises:
            InputError: Another key.
        """
        if key not in KEYS and key != "confusion":
            known = [*KEYS, "confusion"]
            raise InputError(f"key must be one of the images', got '{key}'; {nearest(key, known)}")
        groups: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            value = _value(self.session.images[row], key)
            if value:
                groups.setdefault(value, []).append(place)
        ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return Groups({
            value: replace(self, rows=self.rows[places], margins=self.margins[places])
            for value, places in ordered
        })  # fmt: skip

    def heatmap(self, source: str | None = None) -> Heatmap:
        """Return the semantic heatmap of these images.

        Args:
            source: `model` or `vlm`; that of the query, if None.
        """
        return self._heatmap(self.rows, source or self.source, self.formula)

    def differential(
        self, other: "Selection | None" = None, source: str | None = None
    ) -> DifferentialHeatmap:
        """Return the heatmap of these images minus that of others.

        Args:
            other: Of the same session; None compares with all images that are not among these.
            source: `model` or `vlm`; that of the query, if None.

        Raises:
            InputError: A selection of another session, or one that shares images with this one.
        """
        if other is not None and other.session.folder != self.session.folder:
            raise InputError("other must be a selection of the same session; see 'faultlens diff'")
        n = len(self.session.images)
        rest = np.setdiff1d(np.arange(n), self.rows) if other is None else other.rows
        if np.isin(rest, self.rows).any():
            raise InputError("other must share no image with this selection; narrow one of them")
        source = source or self.source
        subject = f"{self.formula} against {other.formula if other else 'the others'}"
        return differential(
            self._heatmap(self.rows, source, self.formula),
            self._heatmap(rest, source, "the others"), subject,
        )  # fmt: skip

    def _heatmap(self, rows: IntArray, source: str, subject: str) -> Heatmap:
        _check_source(source)
        concepts = self.session.concepts
        strengths = np.asarray(self.session.arrays("strengths")[source])[rows]
        wins = np.zeros((len(concepts), len(concepts)), np.int64)
        if len(rows):
            wins = HeatmapCounts.of(strengths, np.zeros(len(rows), np.int64), 1).wins[0]
        return Heatmap("selection", subject, concepts, read_only(wins), len(rows))

    def to_json(self, limit: int | None = None) -> dict[str, Any]:
        """Return the selection as one JSON object; `limit` counts the images told of."""
        n = len(self.session.images)
        return dict(files.json_value({
            "schema": SCHEMA, "session": str(self.session.folder), "formula": self.formula,
            "source": self.source, "n": len(self), "of": n, "untrusted_concepts": self.untrusted,
            "images": list(self)[:limit],
            "by_class": {k: len(v) for k, v in self.by("class").items()},
            "by_confusion": {k: len(v) for k, v in self.by("confusion").items()},
        }))  # fmt: skip

    def save_images(
        self,
        folder: str | Path,
        limit: int = 100,
        images: ImageSource | None = None,
    ) -> Path:
        """Write thumbnails of the first images, a page that shows them, and `found.json`.

        Args:
            folder: New or empty, or that of an earlier query, whose files are replaced.
            limit: At most so many pictures.
            images: Where the pictures are; None opens what the run was given.

        Returns:
            The page, `index.html`.

        Raises:
            InputError: The folder holds other files, or the pictures are no longer there.
        """
        out = Path(folder)
        _clear(out)
        shown = list(self)[:limit]
        source = images or _source(self.session)
        place = {name: i for i, name in enumerate(source.names)}
        pictures: dict[str, bytes] = {}
        for row in shown:
            jpeg = thumbnail(source, place[row["name"]], _SIDE) if row["name"] in place else b""
            if jpeg:
                pictures[row["name"]] = jpeg
                stem = Path(row["name"]).stem or "image"
                files.write_atomic(out / f"{row['rank']:04d}-{stem}.jpg", jpeg)
        document = self.to_json(limit)
        files.write_json(out / "found.json", document)
        page = out / "index.html"
        files.write_atomic(page, render_found(document, pictures).encode())
        return page


class Groups(dict[str, Selection]):
    """Selections by value, the largest first."""

    def heatmap(self, source: str | None = None) -> dict[str, Heatmap]:
        """Return the heatmap of every group; see `Selection.heatmap`."""
        return {value: group.heatmap(source) for value, group in self.items()}


def where(session: DebugSession, formula: str, source: str = "model") -> Selection:
    """Find the images on which a formula holds; see `DebugSession.where`."""
    _check_source(source)
    found = signals.of(session)
    n_concepts, n_classes = len(session.concepts), len(session.classes)
    own = found.model if source == "model" else found.vlm
    seen = np.concatenate(
        [own.images.signals[:, :n_concepts], found.model.images.signals[:, n_concepts:]], axis=1
    )
    images = Images(seen, found.model.images.labels, found.model.images.predictions)
    view = _Seen(images, own, n_concepts + n_classes)
    held, margin, untrusted = _asked(session, view, formula, source)
    empty = Selection(
        session, _bare(formula), source, np.zeros(0, np.int64), np.zeros(0), untrusted, view
    )
    return _ranked(empty, np.flatnonzero(held), margin)


def _asked(
    session: DebugSession, seen: _Seen, formula: str, source: str
) -> tuple[BoolArray, FloatArray, tuple[str, ...]]:
    """Return (N,) whether the formula holds on each image, (N,) its margin, doubtful concepts."""
    file = _parsed(formula)
    n = len(seen.images.labels)
    held, margin = np.zeros(n, bool), np.full(n, -np.inf)
    made: dict[Formula, tuple[BoolArray, FloatArray]] = {}
    for fit, thresholds in enumerate(seen.thresholds.thresholds):
        specs = signals.ground(session, source, file, thresholds, has_truth=True)
        goal = all_of(*(spec.goal for spec in specs))
        if goal not in made:
            x = seen.images.signals
            made[goal] = holds(goal, x), margins(goal, x, seen.n_measured)
        mine = seen.thresholds.fit_of == fit
        held[mine], margin[mine] = (values[mine] for values in made[goal])
    return held, margin, _untrusted(session, made)


def _untrusted(session: DebugSession, goals: Iterable[Formula]) -> tuple[str, ...]:
    """Return the concepts of formulas that cannot be trusted here."""
    is_usable = files.read_json(session.folder / "concepts.json")["is_usable"]
    valid = set(session.valid_concepts) if is_usable else set()
    used = {i for goal in goals for leaf in comparisons(goal) for i, _ in leaf.terms}
    names = session.concepts
    return tuple(names[i] for i in sorted(used) if i < len(names) and i not in valid)


def _parsed(formula: str) -> SpecFile:
    """Read a formula, after definitions if there are any; a leading `forall` asks for all cases."""
    file = parse.parse(f"{_bare(formula)};", "formula")
    specs = [s for s in file.statements if isinstance(s, Spec)]
    others = [s for s in file.statements if not isinstance(s, Spec | Let)]
    if len(specs) != 1 or others or specs[0] != Spec(None, specs[0].goal):
        raise SpecError(
            f"formula must be one formula, perhaps after 'let' definitions, got '{formula}'; "
            "a file of specifications is for 'faultlens check'"
        )
    return file


def _bare(formula: str) -> str:
    return formula.strip().rstrip(";").rstrip()


def _ranked(selection: Selection, rows: IntArray, margin: FloatArray) -> Selection:
    order = np.argsort(-margin[rows], kind="stable")
    ranked = rows[order]
    return replace(selection, rows=read_only(ranked), margins=read_only(margin[ranked]))


def _value(row: Mapping[str, Any], key: str) -> str:
    if key == "confusion":
        is_error = row["label"] != row["prediction"]
        return f"{row['label']} -> {row['prediction']}" if is_error else ""
    return str(row[KEYS[key]])


def _check_source(source: str) -> None:
    if source not in SOURCES:
        raise InputError(f"source must be 'model' or 'vlm', got '{source}'")


def _source(session: DebugSession) -> ImageSource:
    place = session.info["config"].get("images")
    if not place:
        raise InputError(
            "images must be known to save them, got a session over features; give images=…"
        )
    try:
        return open_images(place)
    except FaultlensError as error:
        raise InputError(
            f"images must be where the run found them, got '{place}' ({error}); put them back"
        ) from error


def _clear(folder: Path) -> None:
    """Remove what an earlier query wrote; InputError where there is something else."""
    if folder.is_file():
        raise InputError(f"folder must be a folder, got the file {folder}; give another name")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "found.json").exists():
        raise InputError(
            f"folder must be empty or hold an earlier query, got {folder} with other files; "
            "give a new folder"
        )
    for path in (*folder.glob("[0-9][0-9][0-9][0-9]*-*.jpg"), folder / "index.html"):
        path.unlink(missing_ok=True)
