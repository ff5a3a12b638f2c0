"""Claims about the stage at which an encoder breaks."""

import math
from dataclasses import asdict

from faultlens.claims.case import Case
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.localize.breaks import Break, Stages


def stages(case: Case, measured: Stages | None) -> list[Finding]:
    """Claim the first stage that is off, where the network fails for it."""
    if measured is None or measured.found is None:
        return []
    found = measured.found
    stage = measured.stages[found.index]
    best = max(s.accuracy for s in measured.stages)
    where = stage.name if found.index else f"{stage.name}, the first one watched, or before it"
    return [
        Finding(
            id="stage",
            kind="localization.encoder",
            severity="fault",
            subject=stage.name,
            claim=(
                f"The encoder breaks at {where}: {_told(found)}. The network is right on "
                f"{portion(measured.accuracy)} of the images; a linear probe of its stages would "
                f"be on {portion(max(best, measured.accuracy + found.loss))}."
            ),
            statistic=found.loss,
            interval=found.interval,
            n=measured.n,
            confidence=1 - found.p_value,
            evidence=case.evidence(
                case.is_error,
                "accuracy that the network loses against a linear probe of its stages",
                case.changed(case.is_error),
                stage=stage.name,
                **{k: v for k, v in asdict(found).items() if k in ("sign", "value", "usual")},
                p_value=found.p_value,
                stages=[
                    {
                        "stage": s.name,
                        "dimension": s.dimension,
                        "r2": s.r2,
                        "concept_auroc": s.auroc,
                        "probe_accuracy": s.accuracy,
                        "unevenness": s.unevenness,
                        "dead": s.dead,
                        "scale": s.scale,
                    }
                    for s in measured.stages
                ],
            ),
            advice=(
                f"Compare the weights and running statistics of {stage.name} with the training "
                "checkpoint, and what feeds it; restore them before touching the head."
            ),
        )
    ]


def _told(found: Break) -> str:
    """Say how a stage is off, in the words of its sign."""
    value, usual = found.value, found.usual
    if found.sign == "twin":
        return (
            f"the sizes of its channels differ from the healthy twin's by {_factor(value)}, the "
            "first to do so"
        )
    if found.sign == "channels":
        before = "" if math.isnan(usual) else f", against {_factor(usual)} before it"
        return f"the sizes of its channels differ by {_factor(value)}{before}"
    if found.sign == "dead":
        before = "" if math.isnan(usual) else f", against {portion(usual)} before it"
        return f"{portion(value)} of its channels never change{before}"
    if found.sign == "scale":
        larger = value > usual
        ratio = value / usual if larger else usual / max(value, 1e-30)
        size = "larger" if larger else "smaller"
        return f"its activations are {ratio:.0f} times {size} than those before it"
    if found.sign == "information":
        return (
            f"a linear probe reads the class off it in {portion(value)} of the images, against "
            f"{portion(usual)}"
        )
    return f"it tells less of what the pictures show, R² {value:.2f} against {usual:.2f} before it"


def _factor(spread: float) -> str:
    """Render a standard deviation of logarithms.

    Example:
        >>> _factor(0.7)
        'a factor of 2.0'
    """
    return f"a factor of {math.exp(spread):.1f}"
