"""Claims about the inputs: a wrong preprocessing, or pictures that compression has damaged.

Everything else a run says is about a network fed in this way, so these come first.
"""

from typing import Any

import numpy as np

from faultlens.arrays import IntArray
from faultlens.claims.case import Case
from faultlens.claims.wording import listing, portion
from faultlens.data.preprocess import Preprocessing
from faultlens.finding import Finding
from faultlens.localize.compression import Compression
from faultlens.localize.gains import LEVEL
from faultlens.localize.inputs import InputStatistics, InputTrial, InputTrials, as_good


def inputs(case: Case) -> list[Finding]:
    """Claim a wrong preprocessing where another one was tried and is right more often.

    Returns:
        Findings of the kind `localization.input`: `input` about the preprocessing, a fault, and
        `input-compression` about the pictures, a fault where that explains a third of the errors.
    """
    if case.input_trials is None:
        return []
    return [*_preprocessing(case, case.input_trials), *_compression(case, case.input_trials)]


def _preprocessing(case: Case, trials: InputTrials) -> list[Finding]:
    chosen = trials.chosen
    if chosen is None or not chosen.is_fault or _is_perturbed(case, chosen):
        return []
    gain = chosen.gain
    now = _accuracy_now(case, chosen.rows)
    return [
        Finding(
            id="input",
            kind="localization.input",
            severity="fault",
            subject="preprocessing",
            claim=(
                f"The model is fed wrongly: with {chosen.name} it is right on "
                f"{portion(now + gain.gain)} of {gain.n} images instead of {portion(now)}."
                f"{_far(trials.statistics)}"
            ),
            statistic=gain.gain,
            interval=gain.interval,
            n=gain.n,
            confidence=1 - gain.p_value,
            # The network ran again, on images that had no say in what was tried on them.
            confirmed=True,
            evidence=_evidence(case, trials, chosen),
            advice=_advice(case, trials, chosen),
        )
    ]


def _is_perturbed(case: Case, chosen: InputTrial) -> bool:
    """Whether most repaired errors are of one class, or hang on single pixels.

    A wrong preprocessing harms many classes. What undoes a perturbation of one class's pictures is
    no correction of the preprocessing.
    """
    e, places = case.analysis.evidence, _places(case, chosen.rows)
    repaired = case.is_error[places] & (chosen.predictions == e.labels[places])
    counts = np.bincount(e.labels[places][repaired], minlength=1)
    errors = np.zeros(case.n, bool)
    errors[places[repaired]] = True
    return bool(counts.max() > counts.sum() / 2) or case.is_fragile(errors)


def _accuracy_now(case: Case, rows: IntArray) -> float:
    return float((~case.is_error[_places(case, rows)]).mean())


def _places(case: Case, rows: IntArray) -> IntArray:
    """Places of rows of the measurements among the analysed images."""
    return np.searchsorted(case.analysis.rows, rows)


def _far(statistics: InputStatistics) -> str:
    if not statistics.is_far:
        return ""
    mean, std = np.mean(statistics.mean), np.mean(statistics.std)
    return (
        f" Its inputs now have mean {mean:.3g} and deviation {std:.2g}; most networks are trained "
        "on about 0 and 1."
    )


def _evidence(case: Case, trials: InputTrials, chosen: InputTrial) -> dict[str, Any]:
    repaired = np.zeros(case.n, bool)
    for trial in (*trials.tried, chosen):
        if trial.name == chosen.name:
            places = _places(case, trial.rows)
            right = trial.predictions == case.analysis.evidence.labels[places]
            repaired[places[right]] = True
    repaired &= case.is_error
    return case.evidence(
        repaired,
        "accuracy gained by another preprocessing, on images that did not choose it",
        classes=[],
        change=chosen.name,
        preprocessing=chosen.preprocessing.model_dump(mode="json"),
        stated=trials.stated.model_dump(mode="json"),
        gained=chosen.gain.gained,
        lost=chosen.gain.lost,
        p_value=chosen.gain.p_value,
        share_of_errors=chosen.gain.share,
        decided=chosen.decided,
        as_good=_as_good(case, trials, chosen),
        agreement_vlm=_agreements(case, chosen),
        input_mean=trials.statistics.mean,
        input_std=trials.statistics.std,
        trials=[_row(case, trial) for trial in trials.tried],
    )


def _row(case: Case, trial: InputTrial) -> dict[str, Any]:
    """One way tried, on the images that chose among all."""
    now, then = _agreements(case, trial)
    accuracy = _accuracy_now(case, trial.rows)
    return {
        "with": trial.name,
        "n": trial.gain.n,
        "accuracy": accuracy + trial.gain.gain,
        "accuracy_now": accuracy,
        "gained": trial.gain.gained,
        "lost": trial.gain.lost,
        "p_value": trial.gain.p_value,
        "agreement_vlm": then,
        "agreement_vlm_now": now,
        "decided": trial.decided[0],
        "decided_now": trial.decided[1],
    }


def _agreements(case: Case, trial: InputTrial) -> tuple[float, float]:
    """How often the network says what the VLM says, as it is fed now and in the other way."""
    e, places = case.analysis.evidence, _places(case, trial.rows)
    vlm = e.vlm[places]
    return float((e.predictions[places] == vlm).mean()), float((trial.predictions == vlm).mean())


def _as_good(case: Case, trials: InputTrials, chosen: InputTrial) -> list[str]:
    first = next(t for t in trials.tried if t.name == chosen.name)
    return as_good(trials.tried, first, case.analysis.evidence.labels[_places(case, first.rows)])


def _advice(case: Case, trials: InputTrials, chosen: InputTrial) -> str:
    others = _as_good(case, trials, chosen)
    doubt = f" As good here: {listing(others)}; the training code decides." if others else ""
    return (
        "Look up how pictures were prepared in training, and state it in the file given with "
        f"--preprocess: {_changes(trials.stated, chosen.preprocessing)}.{doubt}"
    )


def _changes(stated: Preprocessing, better: Preprocessing) -> str:
    """Say which lines of the description change, and what they say now."""
    old, new = stated.model_dump(mode="json"), better.model_dump(mode="json")
    return listing([
        f"{key}: {_yaml(new[key])} (now {_yaml(old[key])})" for key in new if new[key] != old[key]
    ])  # fmt: skip


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _compression(case: Case, trials: InputTrials) -> list[Finding]:
    found = trials.compression
    if found is None:
        return []
    cost, errors = found.cost, np.zeros(case.n, bool)
    errors[_places(case, found.rows)] = True
    errors &= case.is_error
    return [
        Finding(
            id="input-compression",
            kind="localization.input",
            severity="fault" if found.is_fault else "notice",
            subject="pictures",
            claim=_compression_claim(found),
            statistic=cost.gain,
            interval=cost.interval,
            n=cost.n,
            confidence=1 - cost.p_value,
            confirmed=found.is_fault,
            evidence=case.evidence(
                errors,
                "accuracy that compressing once more costs",
                classes=[],
                n_pictures=found.n,
                n_damaged=len(found.rows),
                quality=found.quality,
                blockiness=found.blockiness,
                gained=cost.gained,
                lost=cost.lost,
                p_value=cost.p_value,
                share_of_errors=found.share,
            ),
            advice=(
                "Use the pictures before compression, or compress them less; if only such ones "
                "exist, train with compressed pictures."
            ),
        )
    ]


def _compression_claim(found: Compression) -> str:
    cost = found.cost
    again = "compressing these once more, just as hard,"
    if found.is_fault:
        explained = f"{portion(found.share)} of the errors" if found.share < 1 else "most errors"
        result = f"{again} costs {portion(cost.gain)} of accuracy, so it explains about {explained}"
    elif cost.p_value <= LEVEL:
        result = f"{again} costs {portion(cost.gain)} of accuracy, so most errors have other causes"
    else:
        result = f"{again} costs nothing measurable; what the first time cost is not known"
    return (
        f"Hard compression damages {portion(len(found.rows) / found.n)} of {found.n} pictures "
        f"(JPEG quality about {found.quality}): {result}."
    )
