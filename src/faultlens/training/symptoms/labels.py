"""Labels that do not go with the inputs: nothing is learned, or the rows are learned by heart."""

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.training.reading import Reading
from faultlens.training.success import GAIN, PATIENCE
from faultlens.training.symptom import Sign

#: Share of the trivial loss gained that says a training learns its rows, and number of evaluations
#: that must have failed to show it.
_LEARNED, _N_EVALUATIONS = 0.3, 3
#: Epochs and steps of each from which falls within epochs and between them can be told apart.
_N_EPOCHS, _N_STEPS = 3, 8
#: First losses, in multiples of the trivial one, from which a fall has other reasons than rows.
_FAR = 1.25
#: Steps that stand for epochs where those are not known.
_LONG = 10 * PATIENCE
#: A smooth fall spends nearly all of itself within epochs; rows learned by heart nothing.
_WITHIN = 0.25
#: Standard errors by which the falls within epochs must be less than a smooth fall's.
_Z_WITHIN = 2.0


def no_relation(reading: Reading) -> Sign:
    """What is left where a training fails although no part of the network looks broken.

    A notice while it goes on, since sound networks too begin on a plateau. At its end, after
    enough steps, it is a fault: the network could learn and did not, so the data are left
    (Zhang et al., "Understanding deep learning requires rethinking generalization", ICLR 2017:
    with random labels all else looks as always).
    """
    s = reading.success
    what = "the best constant prediction" if s.is_trivial_known else "its start"
    is_over = s.is_finished and s.is_trivial_known and _is_long(reading)
    return Sign(
        "not_learning", f"After {s.n_steps} steps the loss ({s.loss:.4g}) is no better than "
        f"{what} ({s.trivial:.4g}), and no part of the network looks broken; the inputs may say "
        "little about the targets.", "loss", {"data_labels": 0.8, "data_values": 0.35},
        0.9 if is_over else 0.3, step=s.n_steps, force="evidence" if is_over else "notice",
        evidence={"is_over": is_over},
    )  # fmt: skip


def _is_long(reading: Reading) -> bool:
    """Tell whether every row was seen often enough to say that nothing can be learned from it.

    One or two passes are too few, whatever their number of steps.
    """
    n_epochs = len(np.unique(reading.trace.epoch))
    if n_epochs > 1:
        return n_epochs >= _N_EPOCHS and reading.success.n_steps >= PATIENCE
    return reading.success.n_steps >= _LONG


def memorized(reading: Reading) -> list[Sign]:
    """A training loss that falls although nothing carries over to rows not seen before."""
    s = reading.success
    if not s.is_trivial_known or s.n_steps < PATIENCE or s.gain <= GAIN:
        return []
    told, evidence = _never_held_out(reading) or _between_epochs(reading) or ("", {})
    if not told:
        return []
    return [Sign(
        "memorized", f"{told}: the rows are learned by heart, the labels do not go with the "
        "inputs.", "data", {"data_labels": 0.9, "overfitting": 0.5}, 0.85, force="error",
        evidence=evidence,
    )]  # fmt: skip


def _never_held_out(reading: Reading) -> tuple[str, dict[str, float]] | None:
    """Tell of a held-out loss that never got below the trivial one."""
    s = reading.success
    held_out = [e.loss for e in reading.trace.evaluations if e.loss is not None]
    if len(held_out) < _N_EVALUATIONS or s.gain < _LEARNED:
        return None
    best = min(held_out)
    if best <= (1 - GAIN) * s.trivial:
        return None
    told = (f"The training loss is {s.gain:.0%} below that of a constant prediction, but in "
            f"{len(held_out)} evaluations the held-out loss never was")  # fmt: skip
    return told, {"gain": s.gain, "best_held_out": best, "trivial_loss": s.trivial}


def _between_epochs(reading: Reading) -> tuple[str, dict[str, float]] | None:
    """Tell of a loss that falls from one epoch to the next, but within none.

    In its first epoch every row is new, so the loss is that of unseen rows (Dawid, "Prequential
    analysis", 1984). Later steps on other rows lower the loss of a row only where rows have
    something in common; with labels drawn at random it falls only where a row comes again.
    """
    epochs = _epochs(reading)
    if not reading.success.is_finished or len(epochs) < _N_EPOCHS:  # asked once: no repeated tests
        return None
    n, trivial = len(epochs[0]), reading.success.trivial
    levels = np.array([[e[: n // 3].mean(), e[-(n // 3) :].mean()] for e in epochs])
    if not (1 - GAIN) * trivial < levels[0, 1] < _FAR * trivial:
        return None
    total = float(levels[0, 1] - levels[-1, 1])
    within = float((levels[1:, 0] - levels[1:, 1]).sum())
    noise = float(np.sqrt(np.mean([np.var(np.diff(e)) for e in epochs]) / 2))
    error = noise * float(np.sqrt(2 * (len(epochs) - 1) / (n // 3)))
    if within > _WITHIN * total or 2 / 3 * total - within < _Z_WITHIN * error:
        return None
    told = (f"The loss fell by {total:.3g} from epoch to epoch, but by {within:.2g} within them, "
            "and not below that of a constant prediction in the first")  # fmt: skip
    return told, {"fall": total, "fall_within_epochs": within, "error": error}


def _epochs(reading: Reading) -> list[FloatArray]:
    """Losses of each whole epoch."""
    trace = reading.trace
    if not np.isfinite(trace.loss).all() or len(trace.epoch) != len(trace.loss):
        return []
    parts = [np.asarray(trace.loss[trace.epoch == e], float) for e in np.unique(trace.epoch)]
    longest = max((len(p) for p in parts), default=0)
    return [p for p in parts if len(p) == longest >= _N_STEPS]
