"""Diagnosis: from a trace to findings, by one rule.

Evidence that a healthy network shows as well never alarms alone. An alarm takes either a hard
error (NaN or infinity, a contradiction), or a path that is blocked while the training is not
succeeding, or signs that together point at a cause (score of at least `ALARM`) in a training that
is failing or ended weak. A training that ended failing although no part of it looks broken leaves
the data: that the labels do not go with the inputs. All else is silence, or a notice.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from faultlens.finding import Finding
from faultlens.training.causes import MEANINGS, PLACES, Cause, rank_causes
from faultlens.training.finding import TrainingFinding
from faultlens.training.reading import Reading
from faultlens.training.recorder import read_trace
from faultlens.training.repair import advise
from faultlens.training.success import MIN_STEPS, Success
from faultlens.training.symptom import Sign, read_signs
from faultlens.training.symptoms.labels import no_relation
from faultlens.training.trace import Trace

#: Score that the first cause must reach in a failing training.
ALARM = 0.65
_ALSO = 0.5
#: Faults named in one diagnosis; further signs stand in their evidence.
_MOST = 4


@np.errstate(all="ignore")  # a training that blows up overflows here as well
def diagnose(trace: Trace | str | Path) -> list[TrainingFinding]:
    """Return what is wrong with a training, worst first; an empty list is silence.

    The first finding carries the causes and repairs of the whole training; further ones those of
    their own signs. Findings of severity `fault` are alarms; a `notice` never is.

    Args:
        trace: As far as it went, or the folder it was written to; before the first step only
            contradictions are found.

    Raises:
        StoreError: The folder holds no trace, or a damaged one.

    Example:
        >>> import numpy as np
        >>> from faultlens.training.trace import DataSummary, LayerInfo, Setup
        >>> layers = (LayerInfo("0", 0, "Linear", "affine", output_shape=(8, 1)),
        ...           LayerInfo("1", 1, "Softmax", "activation", "softmax", output_shape=(8, 1)))
        >>> found = diagnose(Trace(Setup(loss="mse", batch_size=8), layers))
        >>> found[0].layer_index, found[0].causes[0].kind, found[0].claim
        (1, 'wrong_activation', 'The softmax over a single unit is always 1, so no gradient \
reaches any weight.')
    """
    reading = Reading(trace if isinstance(trace, Trace) else read_trace(trace))
    signs = read_signs(reading)
    notices = [s for s in signs if s.force == "notice"]
    signs = [s for s in signs if s.force != "notice"]
    causes = rank_causes(signs)
    found = []
    if reading.success.state == "failing" and not _alarms(signs, causes, reading.success):
        left = no_relation(reading)
        (notices if left.force == "notice" else signs).insert(0, left)
        causes = rank_causes(signs)
    if _alarms(signs, causes, reading.success):
        found = _faults(signs, causes, reading)
    found += [_finding(s, rank_causes([s]), reading, "notice") for s in notices]
    return [_numbered(f, n) for n, f in enumerate(found, 1)]


def _alarms(signs: Sequence[Sign], causes: Sequence[Cause], success: Success) -> bool:
    if any(s.force == "error" for s in signs):
        return True
    has_failed = success.state == "failing" or success.is_weak
    is_struggling = has_failed or (success.state == "early" and success.n_steps >= MIN_STEPS)
    if is_struggling and any(s.force == "blocked" for s in signs):
        return True
    return has_failed and bool(causes) and causes[0].score >= ALARM


def _faults(
    signs: Sequence[Sign], causes: Sequence[Cause], reading: Reading
) -> list[TrainingFinding]:
    """One finding for the first cause, then one for each other sign that is strong by itself."""
    first = causes[0]
    lead = max(signs, key=lambda s: s.strength * s.kinds.get(first.kind, 0))
    found = [_finding(lead, causes, reading, "fault", signs)]
    others = sorted((s for s in signs if s is not lead), key=lambda s: -s.strength)
    for sign in others[: _MOST - 1]:
        if sign.strength >= _ALSO:
            found.append(_finding(sign, rank_causes([sign]), reading, "fault"))
    return found


def _finding(
    sign: Sign,
    causes: Sequence[Cause],
    reading: Reading,
    severity: str,
    signs: Sequence[Sign] = (),
) -> TrainingFinding:
    """Put one sign into words; the place is that of its first cause."""
    s = reading.success
    first = causes[0]
    place = PLACES.get(first.kind) or (sign.layer.name if sign.layer else first.place)
    is_elsewhere = first.kind in PLACES and sign.symptom != "nonfinite"
    layer = None if is_elsewhere else sign.layer
    evidence = dict(sign.evidence) | {
        "statistic": "share of the trivial loss gained", "loss": s.loss,
        "trivial_loss": s.trivial, "state": s.state,
    }  # fmt: skip
    if sign.layer is not None:
        evidence["seen_at"] = sign.layer.name
    if len(signs) > 1:
        evidence["signs"] = [
            {"symptom": x.symptom, "told": x.told, "strength": x.strength} for x in signs
        ]
    repairs = advise(causes, reading) if severity == "fault" else ()
    finding = Finding(
        "", f"training.{sign.symptom}", "fault" if severity == "fault" else "notice",
        f"layer {layer.name}" if layer else place, sign.told, s.gain, _interval(s), s.n_steps,
        first.score, evidence=evidence,
        advice=repairs[0].told if repairs else _look(first),
    )  # fmt: skip
    return TrainingFinding(
        finding, sign.symptom, place, layer.name if layer else None,
        layer.index if layer else None, sign.phase, sign.step, reading.step, tuple(causes), repairs,
    )  # fmt: skip


def _interval(s: Success) -> tuple[float, float]:
    half = 1.96 * s.error / abs(s.trivial) if s.trivial else float("nan")
    return s.gain - half, s.gain + half


def _look(cause: Cause) -> str:
    return f"Look at {cause.place}: {MEANINGS.get(cause.kind, cause.kind)}."


def _numbered(found: TrainingFinding, number: int) -> TrainingFinding:
    return replace(found, finding=replace(found.finding, id=f"training-{number}"))
