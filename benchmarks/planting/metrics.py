"""Metrics over instances, each with a bootstrap interval over the instances."""

from collections.abc import Callable, Sequence

import numpy as np

from planting.instances import SYNONYMS

LABELS = ("head", "encoder", "data", "input", "none")
N_BOOTSTRAP = 1000

Row = dict


def with_interval(rows: Sequence[Row], metric: Callable[[Sequence[Row]], float]) -> dict:
    """Value of a metric with its 95 % percentile interval; n is the number of instances."""
    rng = np.random.default_rng(0)
    rows = list(rows)
    if not rows:
        return {"value": float("nan"), "interval": [float("nan")] * 2, "n": 0}
    draws = [
        metric([rows[i] for i in rng.integers(0, len(rows), len(rows))]) for _ in range(N_BOOTSTRAP)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {"value": metric(rows), "interval": [float(low), float(high)], "n": len(rows)}


def mean(name: str) -> Callable[[Sequence[Row]], float]:
    """Mean of one column, rows without a number left out."""

    def metric(rows: Sequence[Row]) -> float:
        values = [r[name] for r in rows if r.get(name) is not None and np.isfinite(r[name])]
        return float(np.mean(values)) if values else float("nan")

    return metric


def module_is_right(verdict: dict, truth: Sequence[str]) -> bool:
    return verdict["module"] in truth


def macro_f1(rows: Sequence[Row]) -> float:
    """Mean F1 over the modules; where several are right, the one that was said counts as truth."""
    said = [r["module"] for r in rows]
    truth = [s if s in r["modules"] else r["modules"][0] for s, r in zip(said, rows, strict=True)]
    scores = []
    for label in LABELS:
        hit = sum(s == t == label for s, t in zip(said, truth, strict=True))
        n = said.count(label) + truth.count(label)
        if truth.count(label):
            scores.append(2 * hit / n)
    return float(np.mean(scores)) if scores else float("nan")


def matches(word: str, truth: Sequence[str]) -> bool:
    """Whether a word names something true, itself or a declared synonym."""
    return word in truth or any(word in s and s & set(truth) for s in SYNONYMS)


def concept_scores(said: Sequence[str], truth: Sequence[str], needs_all: bool) -> dict:
    """Top 1, top 3 and reciprocal rank; with `needs_all` the first three must hold every one."""
    ranks = [i for i, word in enumerate(said, 1) if matches(word, truth)]
    first = ranks[0] if ranks else None
    top3 = any(r <= 3 for r in ranks)
    if needs_all:
        top3 = all(any(matches(w, [t]) for w in said[:3]) for t in truth)
    return {
        "top1": float(first == 1),
        "top3": float(top3),
        "reciprocal_rank": 1 / first if first else 0.0,
    }


def at_coverage(rows: Sequence[Row], coverage: float = 0.8) -> float:
    """Module accuracy on the share of instances with the most confident verdicts."""
    order = sorted(rows, key=lambda r: -r["confidence"])
    kept = order[: max(1, round(coverage * len(order)))]
    return float(np.mean([r["module_right"] for r in kept]))


def kappa(rows: Sequence[Row], name: str) -> float:
    """Cohen's kappa of two verdicts on all errors of all instances: summed 2 x 2 tables."""
    table = np.sum([r[name] for r in rows], axis=0, dtype=float)
    n = table.sum()
    if not n:
        return float("nan")
    agreed = np.trace(table) / n
    chance = float(table.sum(0) @ table.sum(1)) / n**2
    return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")


def jaccard(sets: Sequence[frozenset[str]]) -> float | None:
    """Mean Jaccard index over pairs; pairs of empty sets say nothing."""
    scores = [len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[i + 1 :] if a | b]
    return float(np.mean(scores)) if scores else None
