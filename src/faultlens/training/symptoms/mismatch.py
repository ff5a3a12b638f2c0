"""Loss, last activation and targets that do not belong together."""

from faultlens.training.reading import (
    CATEGORICAL_LOSSES,
    LOGIT_LOSSES,
    NUMBER_LOSSES,
    PROBABILITY_LOSSES,
    Reading,
)
from faultlens.training.symptom import Force, Sign

_PROBABILITIES = ("sigmoid", "softmax", "hard_sigmoid")
_BOUNDED = (*_PROBABILITIES, "tanh", "hard_tanh")
_HALF_LINES = ("relu", "relu6", "softplus", "exponential")


def output_activation(reading: Reading) -> list[Sign]:
    """A last activation that its loss does not expect.

    A softmax over one unit is always 1: nothing can be learned. The other pairs are weak by
    themselves, since many networks train in spite of them.
    """
    last = reading.last
    if last is None:
        return []
    if reading.is_softmax_of_one:
        return [_sign(reading, "The softmax over a single unit is always 1, so no gradient "
                      "reaches any weight", {"wrong_activation": 1.0, "vanishing": 0.5}, 0.98,
                      "error")]  # fmt: skip
    told, kinds, strength = _pair(reading, reading.setup.loss, reading.output_fn)
    return [_sign(reading, told, kinds, strength)] if told else []


def _pair(reading: Reading, loss: str, fn: str) -> tuple[str, dict[str, float], float]:
    """Return what is odd about a loss after an activation, its kinds and strength."""
    n, told, strength = reading.n_outputs or 1, "", 0.6
    if fn == "unknown":
        return "", {}, 0.0
    kinds = {"wrong_activation": 0.95, "wrong_loss": 0.7}
    if loss in LOGIT_LOSSES and fn in _PROBABILITIES:
        told = f"The loss expects logits and applies its own {_own(loss)}, after {fn}"
        # Between 0 and 1 a loss on logits cannot fall far: by half at most, for two classes.
        strength = 0.7
    elif loss in LOGIT_LOSSES and fn in _HALF_LINES:
        told = f"The loss expects logits of either sign, but {fn} gives none below 0"
        strength = 0.7
    elif loss == "nll" and fn != "log_softmax":
        told = f"The loss expects logarithms of probabilities, but gets the values of {fn}"
        strength = 0.65
    elif loss in PROBABILITY_LOSSES and fn not in _PROBABILITIES:
        told = f"The loss expects probabilities, but gets the values of {fn}"
        strength = 0.85 if _leaves_unit(reading) else 0.7
    elif loss == "categorical_crossentropy" and n > 1 and fn in ("sigmoid", "hard_sigmoid"):
        told = f"{n} sigmoid outputs do not add up to 1, as the categorical loss expects"
    elif loss in NUMBER_LOSSES and reading.is_classification and fn not in _BOUNDED:
        told, strength = "The targets are labels, but the outputs are not bounded", 0.35
        kinds = {"missing_activation": 0.7, "wrong_activation": 0.7, "wrong_loss": 0.7}
    return told, kinds, strength


def _own(loss: str) -> str:
    return "sigmoid" if loss == "bce_logits" else "softmax"


def _leaves_unit(reading: Reading) -> bool:
    last = reading.last
    if last is None or not len(reading.trace.recorded):
        return False
    at = reading.position(last.activation_layer)
    return reading.extremes("output_min", at)[0] < 0 or reading.extremes("output_max", at)[1] > 1


def _sign(
    reading: Reading, told: str, kinds: dict[str, float], strength: float, force: Force = "evidence"
) -> Sign:
    last = reading.last
    evidence = {"loss": reading.setup.loss, "outputs": reading.n_outputs}
    return Sign(
        "output_activation", f"{told}.", "forward", kinds, strength,
        last.activation_layer if last else None, force=force, evidence=evidence,
    )  # fmt: skip


def loss_choice(reading: Reading) -> list[Sign]:
    """A loss that its targets do not fit."""
    t, loss = reading.targets, reading.setup.loss
    if t is None:
        return []
    evidence = {"loss": loss, "target_min": t.minimum, "target_max": t.maximum}
    told, kinds, strength = "", {"wrong_loss": 0.95}, 0.0
    force: Force = "evidence"
    last = reading.output_fn
    if loss == "mae" and reading.is_classification:
        told = "The mean absolute error of labels pulls every output to the commonest one"
        strength = 0.75
    elif (loss in NUMBER_LOSSES and t.is_one_hot) or (loss == "mse" and reading.is_binary):
        told, strength = f"The loss {loss} gives labels a weak gradient once outputs are sure", 0.4
    elif (
        loss in (*PROBABILITY_LOSSES, *LOGIT_LOSSES)
        and not reading.is_index_target
        and (t.minimum < -1e-6 or t.maximum > 1 + 1e-6)
    ):
        told = (
            f"The loss {loss} expects targets from 0 to 1, got {t.minimum:.3g} to {t.maximum:.3g}"
        )
        strength, force = 0.95, "error"
        kinds = {"wrong_loss": 0.95, "data_labels": 0.6, "wrong_activation": 0.4}
    elif loss in CATEGORICAL_LOSSES and not reading.is_index_target and t.rows_sum_to_one < 0.8:
        if last != "softmax":  # said by the range of a softmax
            told = f"Only {t.rows_sum_to_one:.0%} of the target rows add up to 1, as {loss} expects"
            strength = 0.6
    elif loss == "bce" and last == "softmax" and (reading.n_outputs or 1) > 2:
        told, strength = "A binary loss is used on classes that exclude each other", 0.3
    if not told:
        return []
    return [Sign("loss_choice", f"{told}.", "loss", kinds, strength, force=force,
                 evidence=evidence)]  # fmt: skip


def count_loss(reading: Reading) -> list[Sign]:
    """The loss of counts on targets that are none: below 0, or labels of two classes.

    Rates need not be whole, but none is negative. Of labels it is an estimate with a meaning (Zou,
    "A modified Poisson regression approach", 2004), but its outputs are no logits.
    """
    t = reading.targets
    if t is None or reading.setup.loss != "poisson":
        return []
    is_negative = t.minimum < -1e-6
    if not is_negative and not reading.is_binary:
        return []
    told = (
        f"The loss is that of counts, but the targets go down to {t.minimum:.3g}"
        if is_negative
        else "The loss is that of counts, but the targets are labels, 0 or 1"
    )
    return [Sign(
        "loss_choice", f"{told}.", "loss", {"wrong_loss": 0.95, "data_scaling": 0.3 * is_negative},
        0.95 if is_negative else 0.75, force="error" if is_negative else "evidence",
        evidence={"loss": reading.setup.loss, "target_min": t.minimum, "target_max": t.maximum},
    )]  # fmt: skip
