"""Right or wrong: near ties against exact Z3, planted counterexamples, coverage, certificates."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import linprog

from faultlens.errors import SolverError
from faultlens.spec import certificate as checker
from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.certify import Claim, write_certificate
from faultlens.spec.formula import TRUE, Comparison, all_of, negate
from faultlens.spec.region import Readout, Region
from faultlens.spec.regions import Reference, axis_box, coverage, fit_part
from faultlens.spec.support import signals_at
from faultlens.spec.verify import PROVED, REFUTED, VACUOUS, Verdict, verify
from verifying.families import NAMES, specification
from verifying.mutate import Battery
from verifying.peers import Question, z3_satisfiable

Case = tuple[Claim, Verdict]


def small(rng: np.random.Generator, hidden: tuple[int, ...] = ()) -> tuple[Readout, Region, int]:
    """A random readout with at most 32 dimensions, a box, and the class of the box's middle."""
    n_dims, n_concepts, n_classes = int(rng.integers(2, 33)), 6, 5

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    sizes = [n_dims, *hidden, n_classes]
    readout = Readout(
        draw(n_concepts, n_dims), draw(n_concepts),
        tuple(draw(b, a) for a, b in itertools.pairwise(sizes)),
        tuple(draw(b) for b in sizes[1:]),
    )  # fmt: skip
    middle = rng.normal(size=n_dims)
    width = rng.choice([0.05, 0.2, 0.8])
    cls = int(signals_at(readout, middle[None])[0, n_concepts:].argmax())
    return readout, axis_box(middle - width, middle + width), cls


def near_tie(rng: np.random.Generator) -> Case | None:
    """`predict(class) => a > b + m` with m such that the optimum is 1e-12 … 1e-6 from zero."""
    readout, region, cls = small(rng)
    question = Question(readout, region, cls)
    weights, offset = question.goal(0, 1)
    found = linprog(
        -weights, A_ub=-question.margins, b_ub=question.offsets,
        bounds=np.column_stack([question.lower, question.upper]),
    )  # fmt: skip
    if found.status:
        return None
    gap = 10 ** rng.uniform(-12, -6) * rng.choice([-1, 1])
    shift = -found.fun + offset - gap
    goal = Comparison(stronger(0, 1).terms, float(shift), bool(rng.integers(2)))
    claim = Claim("", goal, predicts(readout, cls), region, readout)
    return claim, verify(goal, claim.given, region, readout)


def ordinary(rng: np.random.Generator) -> Case:
    """A Boolean specification of one of the families."""
    readout, region, _ = small(rng)
    goal = specification(NAMES[int(rng.integers(4))], readout, rng)
    return Claim("", goal, TRUE, region, readout), verify(goal, TRUE, region, readout)


def against_z3(n: int) -> tuple[dict[str, Any], list[Case]]:
    """Half near ties, half ordinary; a verdict that exact Z3 contradicts is a disagreement."""
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    cases = []
    while counts["specs"] < n:
        case = near_tie(rng) if counts["specs"] % 2 else ordinary(rng)
        if case is None:
            continue
        claim, verdict = case
        cases.append(case)
        counts["specs"] += 1
        counts[verdict.status] += 1
        wrong = all_of(claim.given, negate(claim.goal))
        truth = REFUTED if z3_satisfiable(wrong, claim.region, claim.readout) else PROVED
        if verdict.status == VACUOUS:
            is_vacuous = not z3_satisfiable(claim.given, claim.region, claim.readout)
            counts["disagreements"] += not is_vacuous
        elif verdict.status in (PROVED, REFUTED):
            counts["disagreements"] += verdict.status != truth
    return {"disagreements": 0, **counts}, cases


def planted(n: int) -> dict[str, int]:
    """A violation planted at one corner: the rest of the box obeys up to a margin of 1e-3 … 1e-6.

    Every second readout has a hidden layer, and its violation is planted at a random point.
    """
    rng = np.random.default_rng(1)
    counts: Counter[str] = Counter({"called PROVED": 0})
    for i in range(n):
        readout, region, cls = small(rng, (6,) if i % 2 else ())
        lower, upper = region.bodies[0].lower, region.bodies[0].upper
        depth = 10 ** rng.uniform(-6, -3)
        pull = readout.concept_rows[1].astype(float) - readout.concept_rows[0]
        point = np.where(pull > 0, upper, lower)
        first = len(readout.concept_rows)
        terms = stronger(0, 1).terms
        if i % 2:
            point = np.clip(rng.uniform(lower, upper).astype(np.float32), lower, upper)
            terms = stronger(first + cls, first + (cls + 1) % 5).terms
        value = sum(w * signals_at(readout, point[None])[0, s] for s, w in terms)
        goal = Comparison(terms, float(-value - depth))
        counts[f"called {verify(goal, TRUE, region, readout).status}"] += 1
    return dict(counts)


def calibration(embeddings: np.ndarray, readout: Readout) -> list[dict[str, Any]]:
    """Realised against nominal coverage over 20 splits: region kinds and levels."""
    rows = []
    for kind in ("box", "pcabox", "ellipsoid", "slabs"):
        for level in (0.5, 0.9, 0.95):
            inside = total = calibrated = 0
            for split in range(20):
                rng = np.random.default_rng(split)
                order = rng.permutation(len(embeddings))
                half = len(order) // 2
                reference = Reference(embeddings[order[:half]], readout, stronger(0, 1), rng)
                region = fit_part(kind, {"coverage": level}, reference)
                k, n = coverage(region, embeddings[order[half:]])
                inside, total, calibrated = inside + k, total + n, calibrated + half - half // 2
            # The conformal guarantee: level <= mean <= level + 1 / (n + 1), up to sampling error
            # of the calibration embeddings and of those that are counted.
            error = np.sqrt(level * (1 - level) * (1 / total + 1 / calibrated))
            room = stats.norm.ppf(0.9995) * error
            realised = inside / total
            is_ok = level - room <= realised <= level + room + 20 / calibrated
            rows.append({"kind": kind, "nominal": level, "realised": realised, "ok": bool(is_ok)})
    return rows


def regional(rng: np.random.Generator, n: int) -> Iterator[Case]:
    """Verdicts over every kind of region, a third with a hidden layer."""
    for i in range(n):
        readout, _, cls = small(rng, (5,) if i % 3 == 0 else ())
        n_dims = readout.concept_rows.shape[1]
        z = (rng.normal(size=(40, n_dims)) * 0.4 + rng.normal(size=n_dims)).astype(np.float32)
        kind = ("box", "pcabox", "ellipsoid", "hull", "slabs")[i % 5]
        region = fit_part(kind, {"gamma": 0.7}, Reference(z, readout, stronger(0, 1)))
        goal, given = stronger(0, 1), predicts(readout, cls)
        yield (
            Claim("", goal, given, region, readout),
            verify(goal, given, region, readout, samples=z, timeout_s=20),
        )


def certified(cases: list[Case], folder: Path) -> tuple[dict[str, int], list[Path]]:
    """Write and check the certificate of every verdict; UNKNOWN has none."""
    counts = {"verdicts": 0, "accepted": 0}
    paths = []
    for claim, verdict in cases:
        evidence = verdict.proof or verdict.evidence
        if evidence is None:
            continue
        counts["verdicts"] += 1
        whole = replace(claim, verdict=verdict.status)
        try:
            path = write_certificate(folder, f"case {counts['verdicts']}", whole, evidence, {})
        except SolverError:
            continue
        if checker.main([str(path)]) == 0:
            counts["accepted"] += 1
            paths.append(path)
    return counts, paths


def mutated(paths: list[Path], folder: Path, n: int) -> dict[str, int]:
    """Count changed certificates, and those of them that the checker accepts."""
    battery = Battery(folder, np.random.default_rng(2))
    accepted = made = 0
    for mutant in battery.mutants(paths, n):
        made += 1
        accepted += checker.main([str(mutant.path)]) == 0
    return {"mutants": made, "accepted": accepted, "harmless": sum(battery.harmless.values())}
