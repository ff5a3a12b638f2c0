"""Specifications on a store of any size: how often each holds, and where it does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from faultlens.arrays import Array, IntArray
from faultlens.embeddings.store import EmbeddingStore
from faultlens.scale.columns import Folder, Labels, blocks, labels_of
from faultlens.scale.counting import Concepts, checked_labels, opened
from faultlens.scale.partials import Arrays, Partials, added, key_of
from faultlens.spec.check import Images, Rule, observe, p_values, verdict_of
from faultlens.spec.ground import GroundSpec
from faultlens.stats import clopper_pearson

#: Violating rows that are kept, of one specification.
MAX_ROWS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """A specification's rate and verdict over all rows, as `faultlens.spec.check.Checked` has them.

    Attributes:
        spec: The specification.
        n: Images it speaks of.
        n_holds: Those on which it holds.
        interval: Clopper-Pearson, two-sided, of this specification alone.
        p_holds: That the rate is at most the required one, adjusted over the suite.
        p_fails: That it is at least the required one, likewise.
        verdict: `HOLDS`, `FAILS` or `UNKNOWN`.
        reason: Why it is unknown, or empty.
        asked: (K,) images it speaks of, by label.
        violated: (K,) those on which it does not hold.
        rows: The first violating rows, at most `MAX_ROWS`.
    """

    spec: GroundSpec
    n: int
    n_holds: int
    interval: tuple[float, float]
    p_holds: float
    p_fails: float
    verdict: str
    reason: str
    asked: IntArray
    violated: IntArray
    rows: IntArray

    @property
    def rate(self) -> float | None:
        """Share of the images on which it holds; None without any."""
        return self.n_holds / self.n if self.n else None


def check_job(
    specs: Sequence[GroundSpec],
    model: Folder,
    labels: Labels,
    concepts: Concepts,
    out: Folder,
    rule: Rule | None = None,
) -> Partials[list[Tally]]:
    """Return the job that checks a suite on a classifier's store.

    Args:
        specs: Ground specifications over the strengths of `concepts`, then the logits; see
            `faultlens.spec.ground.ground`.
        model: Store with columns `embedding` and `logits`.
        labels: (N,) integers below K, or an `.npy` file of them; the truth.
        concepts: How strengths depend on an embedding.
        out: Folder or URL of the partial tallies.
        rule: For what the specifications leave open; partial tallies do not depend on it.

    Raises:
        StoreError: The store is absent or not finished.
        ShapeError: Labels or concepts that do not fit the store.
    """
    suite = tuple(specs)
    store = opened(model, concepts)
    n = store.layout.n_rows
    known = checked_labels(labels, n, len(concepts.classes))
    key = key_of(
        "check", store.content_hash, np.asarray(known), concepts.names, concepts.classes,
        concepts.weight, concepts.offset, [(s.goal, s.given, s.cls) for s in suite],
    )  # fmt: skip
    mapper = partial(_mapper, suite, model, labels, concepts)
    finish = partial(_tallies, suite, rule or Rule())
    return Partials(out, f"check-{key}", n, mapper, finish, _joined)


def _mapper(
    specs: Sequence[GroundSpec], model: Folder, labels: Labels, concepts: Concepts
) -> Callable[[range], Arrays]:
    store = EmbeddingStore.open(model, is_checked=False)
    truth = labels_of(labels, store.layout.n_rows)
    columns = [(store, "embedding"), (store, "logits")]

    def tallies(rows: range) -> Arrays:
        total = _zeros(len(specs), len(concepts.classes))
        for block in blocks(columns, rows):
            z, logits = block.columns
            signals = np.concatenate([concepts.strengths(z), logits], axis=1, dtype=np.float64)
            known = np.asarray(truth[block.rows], np.int64)
            images = Images(signals, known, logits.argmax(axis=1))
            found = [_tally(spec, images, block.rows, len(concepts.classes)) for spec in specs]
            stacked = {name: np.stack([f[name] for f in found]) for name in total}
            total = _joined(total, stacked)
        return total

    return tallies


def _zeros(s: int, k: int) -> Arrays:
    counts = np.zeros((s, k), np.int64)
    return {"asked": counts, "violated": counts, "rows": np.full((s, MAX_ROWS), -1, np.int64)}


def _tally(spec: GroundSpec, images: Images, rows: IntArray, k: int) -> Arrays:
    seen = observe(spec, images)
    violations = seen.violations
    first = np.full(MAX_ROWS, -1, np.int64)
    first[: len(violations)] = rows[violations[:MAX_ROWS]]
    return {
        "asked": np.bincount(images.labels[seen.rows], minlength=k),
        "violated": np.bincount(images.labels[violations], minlength=k),
        "rows": first,
    }


def _joined(first: Mapping[str, Array], second: Mapping[str, Array]) -> Arrays:
    """Add counts, and keep the first violating rows of both, of which the first come first."""
    counts = {name: array for name, array in first.items() if name != "rows"}
    rows = np.concatenate([first["rows"], second["rows"]], axis=1)
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :MAX_ROWS]
    return added(counts, second) | {"rows": np.take_along_axis(rows, order, axis=1)}


def _tallies(specs: Sequence[GroundSpec], rule: Rule, arrays: Arrays) -> list[Tally]:
    n = arrays["asked"].sum(axis=1)
    k = n - arrays["violated"].sum(axis=1)
    p = p_values(specs, n, k, rule)
    tallies = []
    for i, spec in enumerate(specs):
        confidence = spec.confidence or rule.confidence
        low, high = clopper_pearson(int(k[i]), int(n[i]), confidence)
        verdict, reason = verdict_of(spec, int(n[i]), rule, p[i])
        rows = arrays["rows"][i]
        tallies.append(
            Tally(
                spec, int(n[i]), int(k[i]), (float(low), float(high)), *p[i], verdict, reason,
                arrays["asked"][i], arrays["violated"][i], rows[rows >= 0],
            )
        )  # fmt: skip
    return tallies
