"""Notices: likely label errors, and what limits the run's word."""

import numpy as np

from faultlens.claims.case import Case
from faultlens.claims.wording import listing, portion
from faultlens.files import json_value
from faultlens.finding import Finding
from faultlens.localize.verdict import MODULES
from faultlens.stats import wilson


def _notice(  # noqa: PLR0913, PLR0917 (a finding has that many parts)
    id_: str, kind: str, subject: str, claim: str, statistic: float, name: str,
    interval: tuple[float, float], n: int, advice: str, **more: object,
) -> Finding:  # fmt: skip
    return Finding(
        id_, kind, "notice", subject, claim, statistic, interval, n, 1.0,
        evidence={"statistic": name, **json_value(more)}, advice=advice,
    )  # fmt: skip


def labels(case: Case) -> list[Finding]:
    """List images whose label both the VLM and the refitted head contradict with the same class."""
    verdicts = case.analysis.verdicts
    suspects = np.flatnonzero(verdicts.module == MODULES.index("data"))
    if not len(suspects) or not case.may_judge:
        return []
    suspects = suspects[np.argsort(-verdicts.confidence[suspects], kind="stable")]
    mask = np.zeros(case.n, bool)
    mask[suspects] = True
    low, high = wilson(len(suspects), case.n)
    evidence = case.evidence(mask, "share of images with a doubtful label")
    evidence["images"] = [int(i) for i in suspects[:100]]
    count = f"{len(suspects)} image{'s' if len(suspects) > 1 else ''}"
    return [
        Finding(
            "labels", "data.labels", "notice", "labels",
            f"{count} may be labelled wrongly: another encoder and the refitted head agree on "
            "another class.",
            len(suspects) / case.n, (float(low), float(high)), case.n,
            float(verdicts.confidence[suspects].mean()), evidence=evidence,
            advice="Check these labels by eye, or hand them to a label-cleaning library.",
        )
    ]  # fmt: skip


def limits(case: Case) -> list[Finding]:
    """Say what the run cannot judge: the VLM, some classes, some concepts, the oracle."""
    kinds = (_invalid_vlm, _shared_encoder, _invalid_classes, _invalid_concepts, _ties)
    return [notice for kind in kinds if (notice := kind(case)) is not None]


def _invalid_vlm(case: Case) -> Finding | None:
    c = case.analysis.class_validity
    if c.is_usable:
        return None
    return _notice(
        "vlm-invalid", "validity.vlm", "vlm",
        f"The vision-language model is right on only {portion(c.accuracy)} of these images, "
        "not clearly above chance: nothing is said in concepts, and no module is blamed.",
        c.accuracy, "zero-shot accuracy", (c.accuracy_low, c.accuracy), case.n,
        "Use a vision-language model that knows this kind of image, or better class names.",
    )  # fmt: skip


def _shared_encoder(case: Case) -> Finding | None:
    if case.is_independent:
        return None
    return _notice(
        "oracle-shared", "validity.oracle", "vlm",
        "The vision-language model shares its image encoder with the classifier: its "
        "localization proves nothing.", 1.0, "shared encoder", (1.0, 1.0), case.n,
        "Use a vision-language model with another image encoder.",
    )  # fmt: skip


def _invalid_classes(case: Case) -> Finding | None:
    c, n_classes = case.analysis.class_validity, len(case.classes)
    present = np.bincount(case.analysis.evidence.labels, minlength=n_classes) > 0
    weak = [n for k, n in enumerate(case.classes) if present[k] and not c.is_valid[k]]
    if not weak or not c.is_usable:
        return None
    return _notice(
        "classes-invalid", "validity.classes", listing(weak),
        f"The vision-language model does not recognise {listing(weak)} here; errors of "
        f"{'this class' if len(weak) == 1 else 'these classes'} stay without a verdict.",
        len(weak) / n_classes, "share of classes", (0.0, 1.0), case.n,
        "Give these classes more names in the concepts file (synonyms, subclasses).",
        classes=weak,
    )  # fmt: skip


def _invalid_concepts(case: Case) -> Finding | None:
    reasons = {v.concept: v.reason for v in case.analysis.concept_validity if not v.is_valid}
    if not reasons:
        return None
    names = list(reasons)
    return _notice(
        "concepts-invalid", "validity.concepts", listing(names),
        f"{len(names)} of {len(case.concepts)} concepts cannot be trusted on these images and "
        f"are left out of every claim: {listing(names)}.",
        len(names) / len(case.concepts), "share of concepts", (0.0, 1.0), case.n,
        "Give these concepts other prompts, or remove them.",
        reasons=reasons,
    )  # fmt: skip


def _ties(case: Case) -> Finding | None:
    n_ties = case.analysis.n_ties
    if not n_ties:
        return None
    return _notice(
        "ties", "model.ties", "model",
        f"{n_ties} images have two largest logits; the lower class index was taken.",
        n_ties / case.n, "share of images", (0.0, 1.0), case.n,
        "Check the model's output precision.",
    )  # fmt: skip
