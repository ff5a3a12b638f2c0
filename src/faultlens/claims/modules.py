"""Claims about the whole model: its head, or its encoder."""

from dataclasses import asdict
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims import confusion
from faultlens.claims.case import MIN_FRAGILE, Case
from faultlens.claims.refit import Refit
from faultlens.claims.wording import confused, listing, portion, words
from faultlens.files import json_value
from faultlens.finding import Finding
from faultlens.localize import gains
from faultlens.localize.gains import Meaning
from faultlens.stats import wilson

_CLASSES_WITH_CONCEPTS = 4
_CONCEPTS_PER_CLASS = 3
#: An encoder is behind for a reason of its own where other claims explain less of it than this.
_MAX_EXPLAINED = 0.5


def head(case: Case) -> list[Finding]:
    """Claim a head fault where a refitted head repairs errors whose embeddings are right.

    A gain without the right meaning in the repaired errors is a shift between what the head was
    trained on and what it gets now; dead dimensions explain one. It is told as such.
    """
    # The refit adapts to a broken encoder: no word about the head.
    if case.is_broken:
        return []
    refit = Refit.of(case)
    if refit.is_fault and case.is_fragile(refit.repaired):
        return [_fragile(case, refit)]
    if case.meaning is None:
        return [_undecided(case, refit)] if refit.is_fault else []
    if refit.is_fault and case.meaning.is_kept:
        return [_head_fault(case, refit, case.meaning)]
    return [_shift(case, refit, case.meaning)] if refit.overall.is_significant else []


def _head_fault(case: Case, refit: Refit, meaning: Meaning) -> Finding:
    e, main = case.analysis.evidence, refit.main
    names = [case.classes[k] for k in refit.classes]
    return Finding(
        id="head",
        kind="localization.head",
        severity="fault",
        subject=listing(names) if names else "model",
        claim=(
            f"The head misreads good embeddings{refit.where}: refitting it alone repairs "
            f"{int(refit.repaired.sum())} of {int(e.is_error.sum())} errors and breaks "
            f"{int((~e.is_error & (e.refit != e.labels)).sum())} other images.{_long(case)}"
        ),
        statistic=main.gain,
        interval=main.interval,
        n=main.n,
        confidence=meaning.repaired,
        # The refitted head was put in place and asked about images it never saw.
        confirmed=main.is_significant,
        evidence=_head_evidence(case, refit, meaning),
        advice=(
            "Compare the last layer's rows and biases"
            + (f" of {listing(names[:4])}" if names else "")
            + " with the training checkpoint (order of classes, export, fine-tuning); if they are "
            "as intended, refit the last layer on clean images."
        ),
    )


def _long(case: Case) -> str:
    told = [f"{case.classes[k]} ({ratio:.1f} times)" for k, ratio in case.long_rows.items()]
    return f" Rows longer than the median one: {listing(told)}." if told else ""


def _head_evidence(case: Case, refit: Refit, meaning: Meaning) -> dict[str, Any]:
    e, classes = case.analysis.evidence, case.classes
    # The concepts of the classes that gain most, each beside its class.
    weighed = [
        (classes[k], concept)
        for k in list(refit.classes)[:_CLASSES_WITH_CONCEPTS]
        for concept in case.head_concepts(k)[:_CONCEPTS_PER_CLASS]
    ]
    evidence = case.evidence(
        refit.repaired,
        refit.statistic,
        [concept for _, concept in weighed],
        classes=[classes[k] for k in refit.classes],
        long_rows={classes[k]: ratio for k, ratio in case.long_rows.items()},
        gains=[
            {"class": classes[k], "gain": g.gain, "interval": g.interval, "n": g.n}
            for k, g in refit.classes.items()
        ],
        p_value=refit.main.p_value,
        accuracy_now=float((~e.is_error).mean()),
        accuracy_refitted=float((e.refit == e.labels).mean()),
        meaning=asdict(meaning),
    )
    for row, (name, _) in zip(evidence["concepts"], weighed, strict=True):
        row["class"] = name
    return evidence


def _fragile(case: Case, refit: Refit) -> Finding:
    """Tell of errors that small changes of the picture undo: of the pixels' making."""
    vanished, n = case.fragile(refit.repaired)
    low, high = (float(x) for x in wilson(vanished, n))
    names = [case.classes[k] for k in refit.classes]
    return Finding(
        id="fragile",
        kind="localization.encoder",
        severity="fault",
        subject=names[0] if names else "model",
        claim=(
            f"{int(refit.repaired.sum())} of {int(case.is_error.sum())} errors{refit.where} hang "
            f"on the pixels: {portion(vanished / n)} of them vanish when the picture is mirrored, "
            "shifted, cropped or blurred a little. The encoder follows something in the pixels "
            "that has no meaning: perturbed or adversarial pictures, or noise."
        ),
        statistic=vanished / n,
        interval=(low, high),
        n=n,
        confidence=1 - 0.5 * MIN_FRAGILE / max(vanished / n, MIN_FRAGILE),
        # The pictures were changed and the model asked again.
        confirmed=low > 1 / 3,
        evidence=case.evidence(
            refit.repaired,
            "share of errors that vanish under small changes",
            case.changed(refit.repaired),
            classes=names,
            **_apart(case, refit.repaired),
        ),
        advice=(
            "Look at these pictures at the level of pixels; train with perturbed ones, or average "
            "over changed copies of a picture where it matters."
        ),
    )


def _apart(case: Case, errors: BoolArray) -> dict[str, Any]:
    """What was made of what: concepts that tell the two classes of the main confusion apart."""
    pair = confusion.main_confusion(case, errors)
    return {} if pair is None else {"apart": confusion.apart(case, *pair)}


def _undecided(case: Case, refit: Refit) -> Finding:
    """Tell of a refit that repairs errors whose meaning nobody can judge."""
    main = refit.main
    return Finding(
        id="refit",
        kind="localization.unknown",
        severity="fault",
        subject="model",
        claim=(
            f"A refitted head repairs {int(refit.repaired.sum())} of {int(case.is_error.sum())} "
            f"errors{refit.where}; whether their embeddings carry the right meaning cannot be "
            "judged here."
        ),
        statistic=main.gain,
        interval=main.interval,
        n=main.n,
        confidence=1 - main.p_value,
        evidence=case.evidence(
            refit.repaired,
            refit.statistic,
            p_value=main.p_value,
            classes=[case.classes[k] for k in sorted(refit.classes)],
        ),
        advice=(
            "Compare the last layer with the training checkpoint first; a vision-language model "
            "that knows these images would tell whether the encoder is sound."
        ),
    )


def _shift(case: Case, refit: Refit, meaning: Meaning) -> Finding:
    """Tell of a gain that does not make the head wrong: too small, or without the right meaning."""
    overall = refit.overall
    is_fault = (
        not meaning.is_kept and overall.is_fault and overall.interval[0] > gains.MIN_ENCODER_GAP
    )
    return Finding(
        id="shift",
        kind="localization.encoder" if is_fault else "localization.shift",
        severity="fault" if is_fault else "notice",
        subject="model",
        claim=(
            f"A head refitted on these images would gain {portion(overall.gain)}, "
            f"{portion(overall.share)} of the errors: {_why_no_head_fault(meaning)}"
        ),
        statistic=overall.gain,
        interval=overall.interval,
        n=overall.n,
        confidence=1 - overall.p_value,
        evidence=case.evidence(
            refit.repaired,
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


def _why_no_head_fault(meaning: Meaning) -> str:
    if meaning.is_kept:
        return "too few to blame the head; a refit on the images it is judged on always gains."
    return (
        "but what it repairs seldom carries the right meaning "
        f"({portion(meaning.repaired)} against {portion(meaning.correct)} of correct images), "
        "so the embeddings, not the head, seem to differ from those it was trained with."
    )


def encoder(case: Case, explained: BoolArray) -> list[Finding]:
    """Claim an encoder fault: dead dimensions, or images that another encoder reads far better.

    Args:
        case: The case.
        explained: (n,) errors that follow what training taught; an encoder that is behind on
            these alone is not claimed.
    """
    return [*_dead(case), *_gap(case, explained)]


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
                case.broken_concepts() or case.changed(e.is_error),
                dimensions=list(case.dead[:64]),
                head_refit_gain=overall.gain,
            ),
            advice=(
                "Look for channels zeroed by pruning, a wrong mask, a damaged checkpoint or dying "
                "units; restore the encoder's weights before touching the head."
            ),
        )
    ]


def _gap(case: Case, explained: BoolArray) -> list[Finding]:
    e = case.analysis.evidence
    if not case.encoder_gaps or not case.encoder_gaps[0].is_fault:
        return []
    overall = case.encoder_gaps[0]
    # A small network is behind without being broken. Its head fits it, though: where a refit
    # gains too, the encoder is not the one that the head was trained on.
    if overall.interval[0] <= gains.MIN_GAP_ALONE and not case.head_gains[0].is_significant:
        return []
    missed = (gains.best_linear(e) != e.labels) & (e.vlm == e.labels)
    if explained[missed].mean() >= _MAX_EXPLAINED:
        return []
    concepts = case.changed(missed)
    said = words(concepts)
    pairs = confused(case.confusions(missed & e.is_error), case.classes)
    where = f" ({pairs})" if pairs else ""
    rate = case.oracle_rate(missed)
    return [
        Finding(
            id="encoder",
            kind="localization.encoder",
            severity="fault",
            subject="model",
            claim=(
                "The encoder loses what another encoder sees: the vision-language model, not "
                f"trained on these classes, is right on {portion(overall.gain)} more images of "
                f"those it knows than the best linear head on this encoder{where}"
                + (f"; the embeddings of these errors say {said}." if said else ".")
            ),
            statistic=overall.gain,
            interval=overall.interval,
            n=overall.n,
            confidence=1 - rate if np.isfinite(rate) else 0.5,
            evidence=case.evidence(
                missed, "accuracy of the VLM above the best linear head", concepts,
                p_value=overall.p_value, **confusion.of_errors(case, missed & e.is_error),
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
    return dict(json_value(numbers))
