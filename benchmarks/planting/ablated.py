"""One instance under every ablation: what the verdict owes to words, map, vocabulary and images.

From stored embeddings alone, without the checks that run the model again, so that rows compare with
each other; the first row is the same without any change.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from faultlens.concepts import Vocabulary
from planting import subjects
from planting.ablations import (
    N_IMAGES,
    QUALITIES,
    SIZES,
    meanings,
    stratified,
    true_attributes,
    vocabulary,
    with_map_r2,
    without,
)
from planting.diagnosed import diagnosed, measured, scored
from planting.instances import Instance
from planting.observe import Observed, observe

#: The largest vocabulary takes over a minute and 2.6 GB: only for the first instances of a row.
N_LARGE = 2
LARGE = 10_000


def ablate(instance: Instance) -> list[dict]:
    """Verdicts of one instance under every ablation."""
    seen, words = observe(instance), subjects.vocabulary()
    rng = np.random.default_rng([13, instance.index])
    rows = [verdict(instance, name, *given) for name, given in _cheap(instance, seen, words, rng)]
    if instance.index // 2 < N_LARGE:
        rows.append(verdict(instance, f"{SIZES[-1]} words", seen, vocabulary(SIZES[-1])))
        rows.append(verdict(instance, f"{LARGE} images", observe(instance, LARGE), words))
    return rows


def _cheap(
    instance: Instance, seen: Observed, words: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[str, tuple]]:
    yield "as it is", (seen, words)
    yield "true attributes", true_attributes(seen, words, rng)
    for r2 in QUALITIES:
        yield f"map R² {r2:.1f}", (with_map_r2(seen, words, r2, rng), words)
    for size in SIZES[:-1]:
        yield f"{size} words", (seen, vocabulary(size))
    if instance.concepts:
        yield "cue absent", (seen, without(words, sorted(instance.concepts)))
    for n in N_IMAGES:
        yield f"{n} images", (seen, words, stratified(seen.labels, n, rng))


def verdict(
    instance: Instance,
    name: str,
    seen: Observed,
    words: Vocabulary,
    rows: np.ndarray | None = None,
) -> dict:
    """One row: module and concepts under one change; `named` is whether it names a cue at all."""
    found = diagnosed(measured(seen, None, rows), words)[-1]
    said = _stated(found.concepts)
    return {
        "name": instance.name,
        "row": instance.row,
        "ablation": name,
        "module": found.module,
        "module_right": float(found.module in instance.modules),
        "named": float(bool(found.finding.startswith(("cue-", "leans-")))),
    } | scored(said, replace(instance, needs_all=False))


def _stated(concepts: tuple[str, ...]) -> list[str]:
    """Phrases of large vocabularies as the words that they state."""
    known = meanings()
    return [w for c in concepts for w in (known.get(c) or {c})]
