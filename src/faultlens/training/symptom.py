"""Symptoms: what a reading of a trace shows, each a family in its own file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from faultlens.registry import Registry
from faultlens.training.reading import Reading
from faultlens.training.trace import LayerInfo

Phase = Literal["data", "forward", "backward", "update", "loss"]
#: `error` alarms alone; `blocked` as soon as the training is not succeeding; `evidence` only when
#: it is failing, after some patience; `notice` never alarms.
Force = Literal["error", "blocked", "evidence", "notice"]


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that is odd, where and since when.

    Attributes:
        symptom: Its kind, such as `dead_units`.
        told: One sentence a person understands.
        phase: Where in a step it shows.
        kinds: Fault kinds it speaks for, each with a weight in [0, 1].
        strength: How odd it is, in [0, 1]; 0 is what healthy networks show as well.
        layer: The layer it shows at; None where it is about data, loss or optimizer.
        step: The first step it was seen at; 0 before training.
        force: What it takes to alarm.
        evidence: The numbers behind it.
        about: What it is a sign of; signs of one thing count once, by the strongest. Its own
            symptom where empty.
    """

    symptom: str
    told: str
    phase: Phase
    kinds: Mapping[str, float]
    strength: float
    layer: LayerInfo | None = None
    step: int = 0
    force: Force = "evidence"
    evidence: dict[str, Any] = field(default_factory=dict)
    about: str = ""


#: A symptom reads a trace and returns its signs; an empty list is silence.
Symptom = Callable[[Reading], list[Sign]]

SYMPTOMS = Registry(
    "symptom",
    {
        name: f"faultlens.training.symptoms.{module}:{name}"
        for module, names in {
            "nonfinite": ("nonfinite",),
            "gradients": ("exploding", "vanishing", "accumulated"),
            "units": ("dead_units", "saturation", "constant_output"),
            "still": ("still_weights", "unreached", "frozen"),
            "updates": ("large_updates", "small_updates"),
            "curve": ("divergence", "relapse", "oscillation", "unfinished", "overfitting"),
            "inputs": ("input_scale", "input_values"),
            "targets": ("target_range", "target_scale", "target_labels"),
            "labels": ("memorized",),
            "mismatch": ("output_activation", "loss_choice", "count_loss"),
            "impossible": ("negative_loss", "constant_success"),
            "structure": ("nonlinearity", "hidden_squashing", "regularization", "batch_size"),
            "optimizers": ("momentum",),
            "initial": ("initial_values", "first_loss"),
        }.items()
        for name in names
    },
)


def read_signs(reading: Reading) -> list[Sign]:
    """Return the signs of all registered symptoms, in the registry's order."""
    return [sign for symptom in _all() for sign in symptom(reading)]


@cache
def _all() -> tuple[Symptom, ...]:
    """Look the symptoms up once: a running training asks again and again."""
    return tuple(SYMPTOMS.load(name) for name in SYMPTOMS)
