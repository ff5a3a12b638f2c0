"""Losses that cannot be, were outputs and targets what the loss expects."""

import numpy as np

from faultlens.training.reading import (
    LOGIT_LOSSES,
    NUMBER_LOSSES,
    PROBABILITY_LOSSES,
    Reading,
)
from faultlens.training.success import GAIN, Z
from faultlens.training.symptom import Sign

_NOT_NEGATIVE = (*PROBABILITY_LOSSES, *LOGIT_LOSSES, *NUMBER_LOSSES, "nll")
#: Share of units, and number of recorded steps, that make a constant output.
_ALL, _N_RECORDED = 0.999, 5


def negative_loss(reading: Reading) -> list[Sign]:
    """A loss below 0 that cannot be below 0 if outputs and targets are what it expects.

    Where no output at all could make it negative, its sign was turned round.
    """
    loss = reading.trace.loss
    if reading.setup.loss not in _NOT_NEGATIVE or not len(loss) or not (loss < -1e-6).any():
        return []
    if _is_never_negative(reading):
        told, strength = "is negative for no outputs at all: its sign is turned round", 0.98
        kinds = {"wrong_loss": 1.0, "optimizer": 0.7, "exploding": 0.5}
    else:
        told, strength = "is never negative for valid outputs and targets", 0.9
        kinds = {"wrong_loss": 0.9, "wrong_activation": 0.8, "data_labels": 0.4}
    return [Sign(
        "negative_loss", f"The loss fell to {float(np.nanmin(loss)):.3g}, but {reading.setup.loss} "
        f"{told}.", "loss", kinds, strength,
        step=int(reading.trace.steps[int((loss < -1e-6).argmax())]),
        force="evidence" if reading.output_fn == "softmax" else "error",
        evidence={"smallest_loss": float(np.nanmin(loss))},
    )]  # fmt: skip


def _is_never_negative(reading: Reading) -> bool:
    """Tell whether the loss of these targets is at least 0 whatever the outputs."""
    loss, t = reading.setup.loss, reading.targets
    if loss in NUMBER_LOSSES or (loss == "nll" and reading.output_fn == "log_softmax"):
        return True
    is_valid = t is not None and (
        reading.is_index_target or (t.minimum >= -1e-6 and t.maximum <= 1 + 1e-6)
    )
    return loss in LOGIT_LOSSES and is_valid


def constant_success(reading: Reading) -> list[Sign]:
    """A loss below that of the best constant prediction, from outputs that are constant.

    By definition no constant gets there, so the outputs are not what the loss takes them for: a
    loss of log-probabilities is 0 where it is given zeros.
    """
    last, s = reading.last, reading.success
    is_below = s.is_trivial_known and s.trivial - s.loss > Z * s.error and s.gain > GAIN
    if last is None or not is_below or (reading.setup.batch_size or 0) < 2:
        return []
    same = reading.series("output_constant", reading.position(last.activation_layer)) >= _ALL
    # From the first step on: sorted rows may make a late batch, and its outputs, all alike.
    if len(same) < _N_RECORDED or not same.all():
        return []
    return [Sign(
        "constant_success", f"The outputs are the same for every sample, and yet the loss "
        f"({s.loss:.3g}) is below that of the best constant prediction ({s.trivial:.3g}): they are "
        f"not what {reading.setup.loss} expects.", "loss",
        {"wrong_activation": 0.95, "wrong_loss": 0.9}, 0.95, last.activation_layer,
        int(reading.trace.recorded[0]), "error", {"loss": s.loss, "trivial_loss": s.trivial},
    )]  # fmt: skip
