"""Verifying a session: specifications proved or refuted over regions of its model's embeddings.

A region is fitted to correctly classified embeddings of one class: with a reference split to its
images, otherwise to three of the five folds. The images it is fitted to and those that measure its
coverage (the analysed ones, or the other folds) share no near-duplicates. All specifications on a
class share one region: slabs take the shape of all their goals together, so that one coverage
stands for everything proved over it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from faultlens import files, reopen, signals
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.errors import InputError, InsufficientDataError, ShapeError, SolverError
from faultlens.finding import SCHEMA
from faultlens.models.classifier import Classifier
from faultlens.session import DebugSession
from faultlens.spec import parse, regions, told
from faultlens.spec.certify import Claim, write_certificate
from faultlens.spec.check import Observed
from faultlens.spec.formula import Formula, all_of
from faultlens.spec.gamma import gamma_star
from faultlens.spec.ground import GroundSpec
from faultlens.spec.region import Readout, Region
from faultlens.spec.suite import Outcome, Report, exit_code, joined, outcome, worst
from faultlens.spec.syntax import RegionExpr, SpecFile
from faultlens.spec.verify import Verdict, Verifier
from faultlens.stats import clopper_pearson

DEFAULT_REGION = "slabs(coverage=0.9)"
#: A region whose coverage is surely smaller says little about images.
LOW_COVERAGE = 0.5
#: Relative width at which the search for gamma* ends.
_TOLERANCE = 0.02
_DECIDED = ("PROVED", "REFUTED")
_NOTHING: dict[str, Any] = {"gamma_star": None, "certificate": None}
#: With folds, those that regions are fitted to; the others measure coverage.
_FIT_FOLDS = (0, 2, 4)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to verify.

    Attributes:
        region: For specifications that name none, as a file would write it; fitted to each class.
        timeout_s: Seconds that one specification over one region may take.
        seed: Of what regions choose at random.
        certificates: Folder for the certificates; None is `specs/certificates` in the session's.
        has_gamma: Search gamma*, the largest scale of the region at which a specification is
            proved; as long again as a verdict may take.

    Raises:
        InputError: A time limit that is not positive.
    """

    region: str = DEFAULT_REGION
    timeout_s: float = 60.0
    seed: int = 0
    certificates: str | Path | None = None
    has_gamma: bool = True

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise InputError(f"timeout must be above 0 seconds, got {self.timeout_s}")


@dataclass(frozen=True, slots=True, eq=False)
class _Embeddings:
    """The session's embeddings.

    Attributes:
        all: (N, D).
        names: N names.
        labels: (N,).
        is_right: (N,) correctly classified.
        is_fit: (N,) that regions are fitted to.
        is_heldout: (N,) that measure coverage.
    """

    all: FloatArray
    names: Sequence[str]
    labels: IntArray
    is_right: BoolArray
    is_fit: BoolArray
    is_heldout: BoolArray

    @classmethod
    def of(cls, session: DebugSession, found: signals.Signals) -> "_Embeddings":
        rows, fit_of = found.rows, found.model.fit_of
        is_fit = np.arange(len(rows.labels)) >= len(fit_of)
        if session.info["fit"]["is_cross_fitted"]:
            is_fit = np.isin(fit_of, _FIT_FOLDS)
        return cls(
            all=np.ascontiguousarray(rows.embeddings, np.float32),
            names=rows.names,
            labels=rows.labels,
            is_right=rows.logits.argmax(axis=1) == rows.labels,
            is_fit=is_fit,
            is_heldout=~is_fit,
        )

    def of_class(self, k: int, part: BoolArray) -> FloatArray:
        """Return the correctly classified ones of a class in one part."""
        return np.asarray(self.all[part & self.is_right & (self.labels == k)])


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One region, fitted to one class, and who is to be verified there.

    Attributes:
        expr: As declared.
        cls: Class index.
        specs: Indices of the specifications.
    """

    expr: RegionExpr
    cls: int
    specs: list[int]


def verify(
    session: DebugSession,
    spec: str | Path | SpecFile,
    settings: Settings | None = None,
    *,
    model: Classifier | None = None,
    progress: Progress | None = None,
) -> Report:
    """Prove or refute the specifications of a file, and write a certificate of each verdict.

    Args:
        session: Finished.
        spec: A file of specifications, or one already parsed.
        settings: How.
        model: The classifier, where the session cannot load it by its SPEC; only its head is used.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        SpecError: The file is wrong, or speaks of what the session does not know.
        InputError: The head is not known, or model, features or images are no longer where they
            were.
        StoreError: The embeddings of the session are missing or damaged.
    """
    settings = settings or Settings()
    file = spec if isinstance(spec, SpecFile) else parse.read(spec)
    default = _default_region(settings.region)
    found = signals.of(session)
    specs = list(signals.ground(session, "model", file, found.full))
    _, seen = signals.observed(session, found.model, file)
    readout = signals.readout(session, reopen.shipped_head(session, model))
    places = _places(specs, default, len(session.classes))
    embeddings = _Embeddings.of(session, found)
    entries = [_entry(s, s.region or default, o) for s, o in zip(specs, seen, strict=True)]
    report = progress or (lambda stage, done, total: None)
    total, done = sum(len(p.specs) for p in places), 0
    for place in places:
        arena = _Arena(session, embeddings, readout, place, settings)
        for i, case in arena.cases(specs):
            entries[i]["regions"].append(case)
            done += 1
            report("verifying", done, total)
    return _report(session, spec, settings, [_joined(e) for e in entries])


def _default_region(text: str) -> RegionExpr:
    file = parse.parse(f"region default = {text};", "--region")
    region = file.statements[0]
    if len(file.statements) > 1 or not isinstance(region, RegionExpr):
        raise InputError(f"region must be one region, got '{text}'; write {DEFAULT_REGION}")
    for part in region.parts:
        regions.REGIONS.load(part.kind)
    return RegionExpr(text, region.parts)


def _places(specs: Sequence[GroundSpec], default: RegionExpr, n_classes: int) -> list[_Place]:
    """Gather the specifications by region and class, in the order of the file."""
    found: list[_Place] = []
    exprs: list[RegionExpr] = []
    place_of: dict[tuple[int, int], _Place] = {}
    for i, spec in enumerate(specs):
        expr = spec.region or default
        if expr not in exprs:
            exprs.append(expr)
        for k in range(n_classes) if spec.cls is None else (spec.cls,):
            key = exprs.index(expr), k
            if key not in place_of:
                place_of[key] = _Place(expr, k, [])
                found.append(place_of[key])
            place_of[key].specs.append(i)
    return found


class _Arena:
    """One place with its region fitted: where specifications meet it one after the other."""

    def __init__(
        self,
        session: DebugSession,
        embeddings: _Embeddings,
        readout: Readout,
        place: _Place,
        settings: Settings,
    ) -> None:
        self.session, self.embeddings, self.readout = session, embeddings, readout
        self.place, self.settings = place, settings
        own = session.folder / "specs" / "certificates"
        self.folder = Path(settings.certificates or own)
        self._name = session.classes[place.cls]
        self._has_scale = False
        self._at: Callable[[float], Region] | None = None

    def cases(self, specs: Sequence[GroundSpec]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the index of each specification with its verdict here."""
        goal = all_of(*dict.fromkeys(specs[i].goal for i in self.place.specs))
        try:
            region = self._fit(goal)
            verifier = Verifier(region, self.readout, samples=self.embeddings.all)
        except (InsufficientDataError, ShapeError) as error:
            status = "ERROR" if isinstance(error, ShapeError) else "UNKNOWN"
            for i in self.place.specs:
                yield i, self._case(Verdict(status, str(error)), None) | _NOTHING
            return
        heldout = self.embeddings.of_class(self.place.cls, self.embeddings.is_heldout)
        coverage = _coverage(region, heldout)
        for i in self.place.specs:
            verdict, path = self._verdict(verifier, specs[i], coverage)
            star = self._star(goal, specs[i], heldout) if verdict.status in _DECIDED else None
            more = {"gamma_star": star, "certificate": path and str(path)}
            yield i, self._case(verdict, coverage) | more

    def _fit(self, goal: Formula) -> Region:
        own = self.embeddings.of_class(self.place.cls, self.embeddings.is_fit)
        if len(own) < 2:
            raise InsufficientDataError(
                f"regions must have at least 2 correctly classified images of {self._name} to be "
                f"fitted "
                f"to, got {len(own)}"
            )
        rng = np.random.default_rng([self.settings.seed, self.place.cls])
        return regions.fit_region(self.place.expr, own, self.readout, goal, rng)

    def _scale(self, goal: Formula) -> Callable[[float], Region] | None:
        """Return the region of every scale; None where not just one of its parts has a scale."""
        own = self.embeddings.of_class(self.place.cls, self.embeddings.is_fit)
        rng = np.random.default_rng([self.settings.seed, self.place.cls])
        reference = regions.Reference(own, self.readout, goal, rng)
        scaled: list[regions.Family] = []
        others: list[Region] = []
        for part in self.place.expr.parts:
            family = regions.REGIONS.load(part.kind)(reference)
            if family.fixed is None:
                scaled.append(family)
            else:
                others.append(regions.fit_part(part.kind, part.options, reference))
        if len(scaled) != 1:
            return None
        return lambda gamma: reduce(regions.intersect, others, scaled[0].at(gamma))

    def _star(self, goal: Formula, spec: GroundSpec, heldout: FloatArray) -> dict[str, Any] | None:
        """Return the largest scale with a proof, and how many images the region holds there."""
        if self.settings.has_gamma and not self._has_scale:
            self._has_scale, self._at = True, self._scale(goal)
        at = self._at
        if at is None:
            return None
        end = time.monotonic() + self.settings.timeout_s

        def decide(region: Region) -> Verdict:
            left = max(end - time.monotonic(), 0.001)
            return Verifier(region, self.readout).verify(spec.goal, spec.given, timeout_s=left)

        try:
            found = gamma_star(at, decide, tolerance=_TOLERANCE).gamma
        except SolverError:
            return None
        if found is None:
            return {"gamma": None, "coverage": None}
        return {"gamma": found, "coverage": _coverage(at(found), heldout)}

    def _verdict(
        self, verifier: Verifier, spec: GroundSpec, coverage: Mapping[str, Any]
    ) -> tuple[Verdict, Path | None]:
        """Decide one specification; without a certificate that holds there is no verdict."""
        try:
            verdict = verifier.verify(spec.goal, spec.given, timeout_s=self.settings.timeout_s)
            evidence = verdict.proof or verdict.evidence
            if evidence is None:
                return verdict, None
            name = f"{spec.name} on {self.place.expr.name}({self._name})"
            claim = Claim(verdict.status, spec.goal, spec.given, verifier.region, self.readout)
            about = {"spec": spec.text, "name": name, "coverage": coverage}
            return verdict, write_certificate(self.folder, name, claim, evidence, about)
        except SolverError as error:
            return Verdict("UNKNOWN", f"numerical: {error}"), None

    def _case(self, verdict: Verdict, coverage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "class": self._name,
            "verdict": verdict.status,
            "reason": verdict.reason,
            "slack": verdict.slack,
            "coverage": coverage,
            "witness": self._witness(verdict),
            "seconds": verdict.seconds,
        }

    def _witness(self, verdict: Verdict) -> dict[str, Any] | None:
        if verdict.witness_kind is None:
            return None
        nearest = verdict.nearest
        name = None if nearest is None else self.embeddings.names[nearest]
        return {"kind": verdict.witness_kind, "image": name, "distance": verdict.distance}


def _coverage(region: Region, heldout: FloatArray) -> dict[str, Any]:
    """Return the share of held-out images in a region, with its interval."""
    k, n = regions.coverage(region, heldout) if len(heldout) else (0, 0)
    low, high = (float(v) for v in clopper_pearson(k, n))
    return {"n": n, "n_inside": k, "interval": (low, high), "is_low": high < LOW_COVERAGE}


def _entry(spec: GroundSpec, expr: RegionExpr, seen: Observed) -> dict[str, Any]:
    n, k = len(seen.rows), int(seen.is_kept.sum())
    low, high = (float(v) for v in clopper_pearson(k, n))
    return {
        "name": spec.name,
        "text": spec.text,
        "line": spec.line,
        "region": expr.name,
        "expect": spec.expect,
        "observed": {
            "n": n, "n_holds": k, "rate": k / n if n else None, "interval": (low, high),
        },
        "regions": [],
    }  # fmt: skip


def _joined(entry: dict[str, Any]) -> dict[str, Any]:
    verdict = joined([case["verdict"] for case in entry["regions"]])
    return entry | {"verdict": verdict, "outcome": outcome(verdict, entry["expect"]).value}


def _report(
    session: DebugSession,
    spec: str | Path | SpecFile,
    settings: Settings,
    entries: list[dict[str, Any]],
) -> Report:
    document = dict(files.json_value({
        "schema": SCHEMA,
        "file": None if isinstance(spec, SpecFile) else str(spec),
        "session": str(session.folder),
        "status": worst(e["verdict"] for e in entries),
        "exit_code": exit_code(Outcome(e["outcome"]) for e in entries),
        "counts": dict(Counter(e["outcome"] for e in entries)),
        "timeout_s": settings.timeout_s,
        "seed": settings.seed,
        "specs": entries,
    }))  # fmt: skip
    path = session.folder / "specs" / "verify.json"
    files.write_json(path, document)
    table = told.table(entries)
    markdown = f"## Specifications over embeddings: {document['status']}\n\n{table.markdown()}\n"
    name = session.folder.resolve().name
    return Report(
        path, document, {name: [told.case(e) for e in entries]}, table, markdown,
        told.remarks(entries),
    )  # fmt: skip
