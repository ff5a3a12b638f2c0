"""Claims about the whole model: its head, or its encoder."""

from dataclasses import asdict

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims.case import Case, clean, listing, percent, words
from faultlens.finding import Finding, Severity
from faultlens.localize import gains
from faultlens.localize.gains import Gain, Meaning

_CONCEPTS_PER_CLASS = 3


def head(case: Case) -> list[Finding]:
    """Claim a head fault where a refitted head repairs errors whose embeddings are right.

    A gain without the right meaning in the repaired errors is a shift between what the head was
    trained on and what it gets now; dead dimensions explain one. It is told as such.
    """
    overall = case.head_gains[0]
    classes = [g for g in case.head_gains[1:] if g.is_fault]
    # With dead dimensions the refit adapts to the broken encoder: no word about the head.
    if case.dead or not (classes or overall.is_significant):
        return []
    is_fault = bool(classes) or overall.is_fault
    if case.meaning is None:
        return [_undecided(case, overall, classes)] if is_fault else []
    if is_fault and case.meaning.is_kept:
        return [_head_fault(case, overall, classes, case.meaning)]
    return [_shift(case, overall, case.meaning)] if overall.is_significant else []


def _head_fault(case: Case, overall: Gain, classes: list[Gain], meaning: Meaning) -> Finding:
    e = case.analysis.evidence
    repaired = e.is_error & (e.refit == e.labels)
    classes = sorted(classes, key=lambda g: -g.gained)
    names = [case.classes[g.subject] for g in classes if g.subject is not None]
    head_concepts = []
    for g in classes[:4]:
        if g.subject is not None:
            for c in case.head_concepts(g.subject)[:_CONCEPTS_PER_CLASS]:
                head_concepts.append((g.subject, c))
    # A fault of few classes shows in their gain, not in that of all images.
    main = overall if overall.is_fault else max(classes, key=lambda g: g.interval[0])
    where = f", {_pairs(case, repaired)}" if repaired.any() else ""
    evidence = case.evidence(
        repaired,
        f"accuracy gained by refitting the head, {_group(case, main)}",
        [c for _, c in head_concepts],
        classes=names,
        gains=[
            {"class": case.classes[g.subject], "gain": g.gain, "interval": g.interval, "n": g.n}
            for g in classes
            if g.subject is not None
        ],
        p_value=main.p_value,
        accuracy_now=float((~e.is_error).mean()),
        accuracy_refitted=float((e.refit == e.labels).mean()),
        meaning=asdict(meaning),
    )
    for row, (k, _) in zip(evidence["concepts"], head_concepts, strict=True):
        row["class"] = case.classes[k]
    return Finding(
        id="head",
        kind="localization.head",
        severity="fault",
        subject=listing(names) if names else "model",
        claim=(
            f"The head misreads good embeddings{where}: refitting it alone repairs "
            f"{int(repaired.sum())} of {int(e.is_error.sum())} errors and breaks "
            f"{int((~e.is_error & (e.refit != e.labels)).sum())} other images."
        ),
        statistic=main.gain,
        interval=main.interval,
        n=main.n,
        confidence=meaning.repaired,
        evidence=evidence,
        advice=(
            "Compare the last layer's rows and biases"
            + (f" of {listing(names[:4])}" if names else "")
            + " with the training checkpoint (order of classes, export, fine-tuning); if they are "
            "as intended, refit the last layer on clean images."
        ),
    )


def _group(case: Case, gain: Gain) -> str:
    if gain.subject is None:
        return "all images"
    return f"images that are or are called {case.classes[gain.subject]}"


def _pairs(case: Case, errors: BoolArray) -> str:
    top = case.confusions(errors)
    total = int(errors.sum())
    shown, covered = [], 0
    for label, predicted, n in top[:4]:
        shown.append(f"{case.classes[label]} called {case.classes[predicted]}")
        covered += n
        if covered >= 0.8 * total or len(shown) == 3:
            break
    return f"{'mostly' if covered >= 0.5 * total else 'such as'} {listing(shown)}"


def _undecided(case: Case, overall: Gain, classes: list[Gain]) -> Finding:
    """Tell of a refit that repairs errors whose meaning nobody can judge."""
    e = case.analysis.evidence
    repaired = e.is_error & (e.refit == e.labels)
    main = overall if overall.is_fault else max(classes, key=lambda g: g.interval[0])
    where = f", {_pairs(case, repaired)}" if repaired.any() else ""
    return Finding(
        id="refit",
        kind="localization.unknown",
        severity="fault",
        subject="model",
        claim=(
            f"A refitted head repairs {int(repaired.sum())} of {int(e.is_error.sum())} errors"
            f"{where}; whether their embeddings carry the right meaning cannot be judged here."
        ),
        statistic=main.gain,
        interval=main.interval,
        n=main.n,
        confidence=1 - main.p_value,
        evidence=case.evidence(
            repaired,
            f"accuracy gained by refitting the head, {_group(case, main)}",
            p_value=main.p_value,
            classes=[case.classes[g.subject] for g in classes if g.subject is not None],
        ),
        advice=(
            "Compare the last layer with the training checkpoint first; a vision-language model "
            "that knows these images would tell whether the encoder is sound."
        ),
    )


def _shift(case: Case, overall: Gain, meaning: Meaning) -> Finding:
    """Tell of a gain that does not make the head wrong: too small, or without the right meaning."""
    e = case.analysis.evidence
    repaired = e.is_error & (e.refit == e.labels)
    is_fault = (
        not meaning.is_kept and overall.is_fault and overall.interval[0] > gains.MIN_ENCODER_GAP
    )
    severity: Severity = "fault" if is_fault else "notice"
    claim = (
        f"A head refitted on these images would gain {percent(overall.gain)}, "
        f"{percent(overall.share)} of the errors: "
    )
    if meaning.is_kept:
        claim += "too few to blame the head; a refit on the images it is judged on always gains."
    else:
        claim += (
            "but what it repairs seldom carries the right meaning "
            f"({percent(meaning.repaired)} against {percent(meaning.correct)} of correct images), "
            "so the embeddings, not the head, seem to differ from those it was trained with."
        )
    return Finding(
        id="shift",
        kind="localization.encoder" if is_fault else "localization.shift",
        severity=severity,
        subject="model",
        claim=claim,
        statistic=overall.gain,
        interval=overall.interval,
        n=overall.n,
        confidence=1 - overall.p_value,
        evidence=case.evidence(
            repaired,
            "accuracy gained by refitting the head",
            p_value=overall.p_value,
            share_of_errors=overall.share,
            meaning=asdict(meaning),
        ),
        advice=(
            "Compare these images and their preprocessing with the training ones (compression, "
            "size, colour); fine-tune on images like these."
        ),
    )


def encoder(case: Case) -> list[Finding]:
    """Claim an encoder fault: dead dimensions, or images that another encoder reads far better."""
    return [*_dead(case), *_gap(case)]


def _dead(case: Case) -> list[Finding]:
    if not case.dead:
        return []
    e = case.analysis.evidence
    overall = case.head_gains[0]
    n_dim = case.analysis.fits[0].map.weight.shape[1]
    return [
        Finding(
            id="dead-dimensions",
            kind="localization.encoder",
            severity="fault",
            subject="model",
            claim=(
                f"{len(case.dead)} of {n_dim} embedding dimensions never change although the head "
                "listens to them: the encoder broke after the head was trained."
            ),
            statistic=len(case.dead) / n_dim,
            interval=(len(case.dead) / n_dim, len(case.dead) / n_dim),
            n=case.n,
            confidence=1.0,
            evidence=case.evidence(
                e.is_error,
                "share of embedding dimensions that are dead",
                case.changed(e.is_error),
                dimensions=list(case.dead[:64]),
                head_refit_gain=overall.gain,
            ),
            advice=(
                "Look for channels zeroed by pruning, a wrong mask, a damaged checkpoint or dying "
                "units; restore the encoder's weights before touching the head."
            ),
        )
    ]


def _gap(case: Case) -> list[Finding]:
    e = case.analysis.evidence
    if not case.encoder_gaps or not case.encoder_gaps[0].is_fault:
        return []
    overall = case.encoder_gaps[0]
    missed = (gains.best_linear(e) != e.labels) & (e.vlm == e.labels)
    concepts = case.changed(missed)
    said = words(concepts)
    shown = missed & e.is_error
    where = f" ({_pairs(case, shown)})" if shown.any() else ""
    rate = case.oracle_rate(missed)
    return [
        Finding(
            id="encoder",
            kind="localization.encoder",
            severity="fault",
            subject="model",
            claim=(
                "The encoder loses what another encoder sees: the vision-language model, not "
                f"trained on these classes, is right on {percent(overall.gain)} more images of "
                f"those it knows than the best linear head on this encoder{where}"
                + (f"; the embeddings of these errors say {said}." if said else ".")
            ),
            statistic=overall.gain,
            interval=overall.interval,
            n=overall.n,
            confidence=1 - rate if np.isfinite(rate) else 0.5,
            evidence=case.evidence(
                missed, "accuracy of the VLM above the best linear head", concepts,
                p_value=overall.p_value,
            ),
            advice=(
                "A new linear head does not help. Train the encoder longer or on more varied "
                "images, start from a stronger one, or check preprocessing and damaged weights."
            ),
        )
    ]  # fmt: skip


def overall_numbers(case: Case) -> dict[str, object]:
    """Return the run's numbers for `session.json`: accuracy, shares, gains of head and VLM."""
    e, a = case.analysis.evidence, case.analysis
    everything = np.ones(case.n, bool)
    s = case.shares(everything)
    # The refitted head is a healthy twin on the same encoder: what its own errors show is natural.
    twin = (e.refit != e.labels) & e.is_gated
    natural = (e.mapped == e.labels)[twin]
    head_gain = case.head_gains[0]
    numbers = {
        "n_images": case.n,
        "n_errors": s.n_errors,
        "n_ties": a.n_ties,
        "accuracy": 1 - s.n_errors / case.n,
        "accuracy_refitted_head": float((e.refit == e.labels).mean()),
        "head_gain": head_gain.gain,
        "head_gain_interval": head_gain.interval,
        "accuracy_vlm": a.class_validity.accuracy,
        "n_judged": s.n_judged,
        "head_share": s.head,
        "head_share_interval": s.interval,
        "head_share_oracle": s.oracle,
        "head_share_swap": s.swap,
        "kappa_oracle_swap": s.kappa,
        "natural_head_share_oracle": float(natural.mean()) if len(natural) else None,
        "map_r2": a.alignment.r2,
        "map_mean_cosine": a.alignment.mean_cosine,
        "map_zero_shot": a.alignment.zero_shot_map,
        "n_valid_concepts": len(a.valid_concepts),
        "n_concepts": len(case.concepts),
    }
    return dict(clean(numbers))
