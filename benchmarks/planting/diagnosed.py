"""One instance through the debugger: its verdict, how steady it is, and whether it is true."""

import time
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from faultlens import rerun
from faultlens.analysis import Analysis, Measurements, analyse
from faultlens.claims import collect
from faultlens.claims.case import Case
from faultlens.claims.diagnosis import Diagnosis, diagnose
from faultlens.concepts import Vocabulary
from faultlens.data.images import ImageSource
from faultlens.data.world.names import CLASSES
from faultlens.finding import Finding
from faultlens.fixes import advice
from faultlens.fixes.trial import Material, Part
from faultlens.input_check import check_inputs
from faultlens.localize.verdict import MODULES
from faultlens.measure import Measured
from faultlens.stages import case_of
from planting import subjects
from planting.baselines import BASELINES
from planting.instances import Instance
from planting.metrics import concept_scores, jaccard, module_is_right
from planting.observe import Observed, observe
from planting.subjects import Subject
from planting.worldtest import is_causal

N_RESAMPLES = 5
#: Fewer errors than this beyond the healthy twin's: there is nothing that a fix could win.
MIN_EXCESS = 20


def measured(seen: Observed, subject: Subject | None, rows: np.ndarray | None = None) -> Measured:
    """What a run would have measured; without a subject, only what stored features show."""
    m = seen.measurements(rows)
    return Measured(
        measurements=m,
        names=tuple(str(i) for i in range(len(m.labels))),
        classes=CLASSES,
        source=None,
        slices={},
        head=seen.head,
        is_independent=True,
        **({} if subject is None else checks(subject, seen, m)),
    )


def checks(subject: Subject, seen: Observed, m: Measurements) -> dict:
    """The checks that run the model again, as a run makes them."""
    source = ImageSource.from_arrays(subject.pixels, seen.labels, CLASSES)
    drifts = rerun.drifts(subject.model, source)
    return {
        "drifts": drifts,
        "channels": rerun.channels(subject.model, source, drifts, np.arange(len(source))),
        "vanishing": rerun.vanishing(subject.model, source, seen.labels, seen.predictions),
        "input_trials": check_inputs(subject.model, source, m, batch_size=64),
    }


def diagnosed(
    given: Measured, words: Vocabulary
) -> tuple[Analysis, Case, list[Finding], Diagnosis]:
    """The debugger itself, from measurements to one diagnosis."""
    analysis = analyse(given.measurements, words, subjects.vlm().encode_text)
    case = case_of(given, words, analysis)
    found = collect.findings(case)
    return analysis, case, found, diagnose(case, found)


def judge(instance: Instance) -> dict:
    """Run one instance and score it: a row of the table."""
    words = subjects.vocabulary()
    seen, subject = observe(instance), subjects.make(instance)
    start = time.perf_counter()
    given = measured(seen, subject)
    checked = time.perf_counter()
    analysis, case, found, verdict = diagnosed(given, words)
    seconds = time.perf_counter() - checked
    row = {
        "name": instance.name,
        "row": instance.row,
        "is_scoring": instance.is_scoring,
        "fault": instance.fault,
        "modules": sorted(instance.modules),
        "truth": sorted(instance.concepts),
        "true_classes": sorted(instance.classes),
        "accuracy": float((seen.predictions == seen.labels).mean()),
        "healthy_accuracy": float((seen.healthy == seen.labels).mean()),
        "module": verdict.module,
        "confidence": verdict.confidence,
        "concepts": list(verdict.concepts),
        "classes": list(verdict.classes),
        "findings": [f"{f.kind}: {f.claim}" for f in found if f.severity == "fault"],
        "first": next((f.id for f in found if f.severity == "fault"), ""),
        "seconds": seconds,
        "seconds_checks": checked - start,
        "module_right": module_is_right({"module": verdict.module}, instance.modules),
        "classes_right": classes_right(verdict.classes, instance),
        "stage_right": stage_right(found, instance),
        "votes": votes(analysis, seen),
        "oracle_votes": votes(analysis, seen, oracle=True),
        "causal": causal(found, case, subject),
        "baselines": {},
    }
    row |= scored(verdict.concepts, instance)
    row["stability"] = stability(given, words, instance)
    row |= action(case, found, seen)
    reference = observe(replace(instance, row="N0", fault={}))
    for name, method in BASELINES.items():
        rng = np.random.default_rng([7, instance.index])
        said = method(seen, reference, words, rng)
        row["baselines"][name] = {
            "module": said.module,
            "confidence": said.confidence,
            "module_right": module_is_right({"module": said.module}, instance.modules),
        } | scored(said.concepts, instance)
    return row


def scored(concepts, instance: Instance) -> dict:
    """Concept scores, where the row asks for concepts."""
    if not instance.concepts:
        return {"top1": None, "top3": None, "reciprocal_rank": None}
    return concept_scores(list(concepts), sorted(instance.concepts), instance.needs_all)


def classes_right(said, instance: Instance) -> float | None:
    """Where the row asks for classes and not for concepts: whether the first one is right."""
    if not instance.classes or instance.concepts:
        return None
    return float(bool(said) and said[0] in instance.classes)


def stage_right(found: list[Finding], instance: Instance) -> float | None:
    """Where a stage is broken: whether the first fault is about a layer of that stage."""
    if "stage" not in instance.fault:
        return None
    first = next((f.subject for f in found if f.severity == "fault"), "")
    return float(first.startswith(instance.fault["stage"]["stage"]))


def votes(analysis: Analysis, seen: Observed, oracle: bool = False) -> list[list[int]]:
    """Head or encoder, our verdict (or the plain oracle's) against another's swap test: 2 x 2."""
    e = analysis.evidence
    head, encoder = MODULES.index("head"), MODULES.index("encoder")
    module = analysis.verdicts.module
    judged = e.is_error & e.is_gated & np.isin(module, [head, encoder])
    ours = (e.mapped == e.labels) if oracle else module == head
    swap = swapped(seen)[analysis.rows] == e.labels
    table = np.zeros((2, 2), int)
    np.add.at(table, (ours[judged].astype(int), swap[judged].astype(int)), 1)
    return table.tolist()


def swapped(seen: Observed) -> np.ndarray:
    """Predictions of a head refitted by scikit-learn on the other half of the images."""
    out = np.empty(len(seen.labels), int)
    halves = np.arange(len(seen.labels)) % 2
    for half in (0, 1):
        scaler = StandardScaler().fit(seen.embedding[halves != half])
        head = LogisticRegression(C=0.1, max_iter=200)
        head.fit(scaler.transform(seen.embedding[halves != half]), seen.labels[halves != half])
        out[halves == half] = head.predict(scaler.transform(seen.embedding[halves == half]))
    return out


def causal(found: list[Finding], case: Case, subject: Subject) -> list[bool]:
    """For each confirmed cause in words: is it one in the pictures?"""
    out = []
    for f in found:
        word = f.evidence.get("cue") or f.evidence.get("subclass_concept")
        if f.severity == "fault" and f.confirmed and word:
            e, k = case.analysis.evidence, CLASSES.index(f.subject)
            errors = e.is_error & ((e.labels == k) | (e.predictions == k))
            answer = is_causal(subject, str(word), case.analysis.rows[errors])
            if answer is not None:
                out.append(answer)
    return out


def stability(given: Measured, words: Vocabulary, instance: Instance) -> float | None:
    """Mean Jaccard index of the first three concepts over resamples of the images."""
    if not instance.concepts:
        return None
    m, rng, sets = given.measurements, np.random.default_rng([11, instance.index]), []
    for _ in range(N_RESAMPLES):
        rows = rng.integers(0, len(m.labels), len(m.labels))
        drawn = replace(
            m, embeddings=m.embeddings[rows], logits=m.logits[rows], labels=m.labels[rows],
            vlm_embeddings=m.vlm_embeddings[rows], folds=m.folds[rows],
            is_reference=m.is_reference[rows],
        )  # fmt: skip
        vanishing = None if given.vanishing is None else given.vanishing[rows]
        channels = given.channels
        if channels is not None:
            channels = replace(channels, pooled=channels.pooled[rows])
        # What was tried on the inputs speaks of rows that a resample moves.
        changed = {
            "measurements": drawn, "vanishing": vanishing, "channels": channels,
            "input_trials": None,
        }  # fmt: skip
        again = diagnosed(replace(given, **changed), words)[-1]
        sets.append(frozenset(again.concepts[:3]))
    return jaccard(sets)


def action(case: Case, found: list[Finding], seen: Observed) -> dict:
    """Errors that the best advised fix removes, as a share of what the perfect fix removes."""
    wrong = int((seen.predictions != seen.labels).sum())
    excess = wrong - int((seen.healthy != seen.labels).sum())
    if excess < MIN_EXCESS:
        return {"actionability": None, "fix": ""}
    stuff = material(case, seen)
    tried = advice.tried(stuff, advice.proposals(stuff, found))
    best = next((f for f in tried if f.is_advised), None)
    if best is None:
        return {"actionability": 0.0, "fix": ""}
    drop = best.overall.gain * len(seen.labels)
    return {"actionability": float(np.clip(drop / excess, 0, 1)), "fix": best.proposal.kind}


def material(case: Case, seen: Observed) -> Material:
    """What fixes are made of, as a finished session gives it."""
    a = case.analysis
    rows = np.arange(len(a.rows))
    parts = [
        Part(rows[a.fit_of != i], rows[a.fit_of == i], f.map.weight, f.head.weight, f.head.bias)
        for i, f in enumerate(a.fits)
    ]
    full = Part(rows, rows[:0], a.full.map.weight, a.full.head.weight, a.full.head.bias)
    names = a.verdicts.names()
    images = tuple(
        {
            "name": str(i),
            "label": CLASSES[a.evidence.labels[i]],
            "prediction": CLASSES[a.evidence.predictions[i]],
            "vlm": CLASSES[a.evidence.vlm[i]],
            "verdict": names[i],
            "verdict_confidence": float(a.verdicts.confidence[i]),
        }
        for i in rows
    )
    words = subjects.vocabulary()
    return Material(
        embeddings=seen.embedding[a.rows], labels=a.evidence.labels,
        predictions=a.evidence.predictions, strengths=a.strengths_vlm,
        directions=words.directions, head=seen.head, parts=tuple(parts), full=full,
        penalty=a.full.head.penalty, classes=CLASSES, concepts=case.concepts, images=images,
    )  # fmt: skip
