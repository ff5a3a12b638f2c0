"""Signals: what a specification speaks of, for the images and the embeddings of a session.

The strength of concept c is linear, `q_c · A(z) - o_c` for the classifier and `q_c · v` less the
same offset for the vision-language model, with `v` of unit length. The offset is the mean over the
reference images. It is one number for both, since a ridge regression with a free intercept maps
the mean of the embeddings to the mean of its targets.

Checking asks the map that never saw the image (the fit of its fold, or of the reference split).
Verification asks one map for all embeddings, `full`: fitted on all images when the session was
cross-fitted, on the reference images otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultlens import reopen
from faultlens.alignment import normalize
from faultlens.arrays import Array, BoolArray, FloatArray, IntArray
from faultlens.data.images import open_images
from faultlens.errors import FaultlensError, SpecError
from faultlens.files import read_json
from faultlens.models.head import Head
from faultlens.session import DebugSession
from faultlens.spec import ground as grounding
from faultlens.spec.check import Images, Observed, observe
from faultlens.spec.formula import Comparison, Formula
from faultlens.spec.ground import GroundSpec, Scope
from faultlens.spec.region import Readout
from faultlens.spec.syntax import SpecFile
from faultlens.spec.thresholds import Thresholds, calibrate

#: The VLM names a class and has no logits: the named one stands this far above all others.
_ABOVE = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One of the two that look at the images.

    Attributes:
        name: `model` or `vlm`.
        images: What it sees.
        thresholds: Of `hasCon`, one set a fit, from reference images of that fit only.
        fit_of: (n,) the fit that serves each image.
    """

    name: str
    images: Images
    thresholds: tuple[Thresholds, ...]
    fit_of: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """A session's signals.

    Attributes:
        model: The classifier, through the map.
        vlm: The vision-language model itself; its logits only say which class it names.
        full: Thresholds of `hasCon` for the classifier, from all reference images.
        rows: The images again.
    """

    model: Source
    vlm: Source
    full: Thresholds
    rows: reopen.Rows


def of(session: DebugSession) -> Signals:
    """Measure the signals of a session's images.

    Raises:
        InputError: Features, or the images of a reference split, are no longer where they were.
        StoreError: The embeddings of the run are missing or damaged.
    """
    rows = reopen.images(session)
    n = len(session.images)
    fit_of = np.array([row["fit"] for row in session.images], np.int64)
    stored = session.arrays("alignment")
    seen = _vlm_strengths(session, rows, stored)
    mapped = _model_strengths(rows, stored, fit_of)
    is_cross_fitted = bool(session.info["fit"]["is_cross_fitted"])
    n_fits = int(session.info["fit"]["n_fits"])
    reference = [fit_of != i if is_cross_fitted else np.arange(len(mapped)) >= n
                 for i in range(n_fits)]  # fmt: skip
    truth = _Truth.of(session, rows)
    named = {row: k for k, row in enumerate(session.classes)}
    zero_shot = np.array([named[row["vlm"]] for row in session.images], np.int64)
    own = np.eye(len(session.classes))[zero_shot] * _ABOVE
    labels, logits = rows.labels[:n], rows.logits[:n].astype(np.float64)
    known = np.concatenate([np.eye(len(session.classes))[k] for k in (labels, zero_shot)], axis=1)
    known = 2 * known - 1
    model, vlm = (
        Source(
            name,
            Images(np.concatenate([strengths[:n], scores, known], axis=1), labels, predicted),
            tuple(truth.thresholds(strengths, part) for part in reference),
            fit_of,
        )
        for name, strengths, scores, predicted in (
            ("model", mapped, logits, logits.argmax(axis=1)),
            ("vlm", seen, own, zero_shot),
        )
    )
    everything = np.ones(n, bool) if is_cross_fitted else reference[0]
    return Signals(model, vlm, truth.thresholds(mapped, everything), rows)


def ground(
    session: DebugSession,
    source: str,
    file: SpecFile,
    thresholds: Thresholds,
    *,
    has_truth: bool = False,
) -> Iterator[GroundSpec]:
    """Yield the ground specifications of a file for a session's classes and concepts.

    Args:
        session: Finished.
        source: Whose thresholds they are, for messages.
        file: As parsed.
        thresholds: Of `hasCon`.
        has_truth: Whether they are asked of images, whose labels are known.

    Raises:
        SpecError: It names what the session does not have, or asks `hasCon` of a concept that has
            no usable threshold.
    """
    names = Scope(
        session.concepts, session.classes, thresholds.values, relevance(session), has_truth
    )
    try:
        yield from grounding.ground(file, names)
    except SpecError as error:
        why = next(
            (why for c, why in thresholds.reasons.items()
             if f"threshold, got none for '{session.concepts[c]}'" in str(error)), None,
        )  # fmt: skip
        if why is None:
            raise
        raise SpecError(f"{error}\n(none can be found for the {source}: {why})") from error


def observed(
    session: DebugSession, source: Source, file: SpecFile
) -> tuple[list[GroundSpec], list[Observed]]:
    """Evaluate a file on the images as one source sees them.

    Returns:
        The specifications, and what was observed of each. Those that ask for logits are left out
        for the vision-language model, which has none: it only names a class. Where thresholds of
        `hasCon` enter, an image is held against those from reference images of its own fit.

    Raises:
        SpecError: See `ground`; or there is no specification at all.
    """
    grounded = [
        ground(session, source.name, file, thresholds, has_truth=True)
        for thresholds in source.thresholds
    ]
    specs: list[GroundSpec] = []
    seen: list[Observed] = []
    is_empty = True
    for of_fits in zip(*grounded, strict=True):
        is_empty = False
        if source.name == "vlm" and not _names_classes_only(of_fits[0], session):
            continue
        specs.append(of_fits[0])
        seen.append(_across_fits(of_fits, source))
    if is_empty:
        raise SpecError("the file must hold at least one specification, got none; add a 'spec'")
    return specs, seen


def _names_classes_only(spec: GroundSpec, session: DebugSession) -> bool:
    """Whether logits enter a specification through `predict` alone."""
    n_concepts, n_rivals = len(session.concepts), len(session.classes) - 1

    is_logit = range(n_concepts, n_concepts + len(session.classes)).__contains__

    def is_named(formula: Formula) -> bool:
        if isinstance(formula, Comparison):
            return not any(is_logit(signal) for signal, _ in formula.terms)
        leaves = [p for p in formula.parts if isinstance(p, Comparison)]
        if not any(is_logit(signal) for leaf in leaves for signal, _ in leaf.terms):
            return all(is_named(p) for p in formula.parts)
        # `predict` is all of the rivals beaten, its negation any not beaten; `top` is between.
        wanted = n_rivals if leaves[0].is_strict else 1
        is_pairs = all(sorted(w for _, w in leaf.terms) == [-1, 1] for leaf in leaves)
        return is_pairs and len(leaves) == n_rivals and formula.n == wanted

    return is_named(spec.goal) and is_named(spec.given)


def _across_fits(of_fits: Sequence[GroundSpec], source: Source) -> Observed:
    first = of_fits[0]
    if all(s.goal == first.goal and s.given == first.given for s in of_fits[1:]):
        return observe(first, source.images)
    parts = [observe(s, source.images) for s in of_fits]
    mine = [source.fit_of[p.rows] == i for i, p in enumerate(parts)]
    rows = np.concatenate([p.rows[m] for p, m in zip(parts, mine, strict=True)])
    is_kept = np.concatenate([p.is_kept[m] for p, m in zip(parts, mine, strict=True)])
    order = np.argsort(rows)
    return Observed(rows[order], is_kept[order])


def relevance(session: DebugSession) -> BoolArray:
    """Return (K, C): which concepts each class should have, from the concepts file."""
    listed = read_json(session.folder / "concepts.json")["classes"]
    return np.array([[c in k["relevant"] for c in session.concepts] for k in listed], bool)


def readout(session: DebugSession, head: Head) -> Readout:
    """Return how strengths and logits depend on an embedding, by the session's `full` map."""
    rows, offsets = _affine(session.arrays("alignment"), "full")
    return Readout(rows, offsets, head.weights, head.biases)


def _affine(stored: Mapping[str, Array], fit: str) -> tuple[FloatArray, FloatArray]:
    """Return the (C, D) rows and (C,) offsets of the strengths through one map, as float32."""
    q = stored["directions"].astype(np.float64)
    weight, bias, centre = (stored[f"{fit}.{key}"] for key in ("weight", "bias", "centre_vlm"))
    return (q @ weight).astype(np.float32), (q @ bias - centre).astype(np.float32)


def _model_strengths(
    rows: reopen.Rows, stored: Mapping[str, Array], fit_of: IntArray
) -> FloatArray:
    """Return (N, C): analysed images by their own fit, reference images by the only one."""
    fits = np.concatenate([fit_of, np.zeros(len(rows.labels) - len(fit_of), np.int64)])
    out = np.empty((len(fits), len(stored["directions"])))
    for i in np.unique(fits):
        weight, offset = _affine(stored, f"fit{i}")
        z = rows.embeddings[fits == i].astype(np.float64)
        out[fits == i] = z @ weight.T.astype(np.float64) + offset
    return out


def _vlm_strengths(
    session: DebugSession, rows: reopen.Rows, stored: Mapping[str, Array]
) -> FloatArray:
    seen = np.asarray(session.arrays("strengths")["vlm"], np.float64)
    if rows.vlm is None:
        return seen
    more = normalize(rows.vlm.astype(np.float64)) @ stored["directions"].T
    return np.concatenate([seen, more - stored["fit0.centre_vlm"]])


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """What is known of the images: their classes, and which concepts they have.

    Attributes:
        labels: (N,).
        relevant: (K, C).
        attributes: Concept index -> (N,) labels 1, 0, -1.
    """

    labels: IntArray
    relevant: BoolArray
    attributes: Mapping[int, IntArray]

    @classmethod
    def of(cls, session: DebugSession, rows: reopen.Rows) -> "_Truth":
        return cls(rows.labels, relevance(session), _attributes(session, rows.names))

    def thresholds(self, strengths: FloatArray, part: BoolArray) -> Thresholds:
        """Calibrate on some of the images."""
        known = {c: values[part] for c, values in self.attributes.items()}
        return calibrate(strengths[part], self.labels[part], self.relevant, known)


def _attributes(session: DebugSession, names: tuple[str, ...]) -> dict[int, IntArray]:
    """Return attribute labels under concept indices, where the run's list of images has them."""
    config: dict[str, Any] = session.info["config"]
    if not config.get("images"):
        return {}
    try:
        source = open_images(config["images"])
    except FaultlensError:
        # Without the images there are no such labels; the concepts file says what is relevant.
        return {}
    place = {name: i for i, name in enumerate(source.names)}
    if not all(name in place for name in names):
        return {}
    rows = np.array([place[name] for name in names])
    return {
        session.concepts.index(a): np.asarray(values)[rows]
        for a, values in source.attributes.items()
        if a in session.concepts
    }
