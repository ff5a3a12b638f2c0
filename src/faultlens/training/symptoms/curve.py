"""The loss curve: divergence, a relapse, oscillation, an end before its time, overfitting."""

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.training.reading import Reading
from faultlens.training.success import HALF, Z
from faultlens.training.symptom import Sign

_RISE = 3.0
_SPIKE = 30.0
#: Shares of the trivial loss gained: enough to know that there is something to be learned, and
#: too little to have learned it.
_LEARNABLE, _UNFINISHED = 0.15, 0.35
#: Share of the whole fall that the last quarter of a training still brings, when it is cut short.
_STILL_FALLING = 0.15
_MIN_STEPS = 20
#: Share of the trivial loss that must once have been gained to say that it was lost again, and the
#: share of all steps over which.
_ONCE, _WHILE = 0.1, 0.05


def divergence(reading: Reading) -> list[Sign]:
    """A loss that has risen far above its start, or once did and never came back below it."""
    s, loss = reading.success, _losses(reading)
    if len(loss) < _MIN_STEPS or not s.start > 0 or s.state in ("succeeding", "learning"):
        return []
    peak = float(loss.max()) / s.start
    # Single losses swing with the batch; the start is known only as well as its own noise.
    if s.loss > _RISE * s.start and s.loss > s.trivial + 5 * s.error:
        return [_too_fast(reading, f"The loss has risen {s.loss / s.start:.1f}-fold.", 0.9, peak)]
    if peak > _SPIKE and int(loss.argmax()) < len(loss) // 2:
        told = f"The loss shot up {peak:.0f}-fold at step {int(loss.argmax()) + 1}."
        return [_too_fast(reading, told, 0.8, peak)]
    return []


def _too_fast(reading: Reading, told: str, strength: float, peak: float) -> Sign:
    loss = _losses(reading)
    return Sign(
        "divergence", told, "loss", {"lr_too_high": 0.9, "exploding": 0.75}, strength,
        step=int(np.argmax(loss > reading.success.start * _RISE)) + 1,
        evidence={"start": reading.success.start, "loss": reading.success.loss,
                  "peak_over_start": peak}, about="blow-up",
    )  # fmt: skip


def _losses(reading: Reading) -> FloatArray:
    loss = reading.trace.loss
    return np.asarray(loss[np.isfinite(loss)], float)


def relapse(reading: Reading) -> list[Sign]:
    """A loss that was clearly below the trivial one and is so no more.

    What was learned shows that inputs, labels and network go together; the steps threw it away.
    """
    s, loss = reading.success, _losses(reading)
    n = max(_MIN_STEPS // 2, int(_WHILE * len(loss)))
    if s.state != "failing" or not s.is_trivial_known or len(loss) < 4 * n or not s.trivial > 0:
        return []
    parts = [loss[k : k + n] for k in range(0, len(loss) - n + 1, n)]
    best = min(range(len(parts)), key=lambda k: parts[k].mean())
    mean, error = float(parts[best].mean()), float(parts[best].std() / np.sqrt(n))
    # The smallest of many means is small by chance as well, hence one error more than usual.
    if mean + (Z + 1) * error > (1 - _ONCE) * s.trivial:
        return []
    return [Sign(
        "relapse", f"At step {best * n + n} the loss was {1 - mean / s.trivial:.0%} below that of "
        "a constant prediction, and is so no more.", "loss",
        {"lr_too_high": 0.8, "optimizer": 0.8, "exploding": 0.4}, 0.85, step=best * n + n,
        evidence={"best_loss": mean, "loss": s.loss, "trivial_loss": s.trivial},
    )]  # fmt: skip


def oscillation(reading: Reading) -> list[Sign]:
    """A loss that jumps up and down by a large share of itself and turns at every other step."""
    loss = _losses(reading)[-100:]
    if len(loss) < _MIN_STEPS:
        return []
    change = np.diff(loss)
    relative = float(np.median(np.abs(change)) / max(abs(float(np.median(loss))), 1e-12))
    turns = float((change[1:] * change[:-1] < 0).mean())
    # Independent noise turns at two steps of three; only more than that is a swing of the weights.
    if relative < 0.2 or turns < 0.8:
        return []
    return [Sign(
        "oscillation", f"The loss swings by {relative:.0%} of itself from step to step.", "loss",
        {"lr_too_high": 0.8, "batch_size": 0.3}, 0.55, step=reading.step,
        evidence={"relative_swing": relative, "turns": turns},
    )]  # fmt: skip


def unfinished(reading: Reading) -> list[Sign]:
    """A training at its planned end that has gained little, still falls, and is far from done.

    Far is a gain of half the trivial loss that it would not reach in as many steps once again,
    slowing down as it did so far. One that falls at an undiminished pace is merely short.
    """
    s, loss = reading.success, _losses(reading)
    if not s.is_finished or not s.is_trivial_known or len(loss) < 2 * _MIN_STEPS:
        return []
    parts = [p.mean() for p in np.array_split(loss, 4)]
    fall, late = parts[0] - parts[3], parts[2] - parts[3]
    noise = float(np.std(np.diff(loss)) / np.sqrt(len(loss) / 2))
    is_slow = s.state in ("succeeding", "learning") and _LEARNABLE < s.gain < _UNFINISHED
    if not (is_slow and fall > 0 and late > 5 * noise and late > _STILL_FALLING * fall):
        return []
    later = s.loss - _further_fall(loss)
    if later <= (1 - HALF) * s.trivial:
        return []
    return [Sign(
        "unfinished", f"The training ended while its loss was still falling, {s.gain:.0%} below "
        f"the trivial loss.", "loss", {"epochs": 0.85, "lr_too_low": 0.9}, 0.8, step=s.n_steps,
        force="error",
        evidence={"gain": s.gain, "late_share_of_fall": late / fall, "loss_after_as_long": later},
    )]  # fmt: skip


def _further_fall(loss: FloatArray) -> float:
    """Return how far a loss would fall in as many steps again, slowing down as it did so far."""
    first, middle, last = (float(p.mean()) for p in np.array_split(loss, 3))
    fall = max(middle - last, 0.0)
    slowing = min(fall / max(first - middle, 1e-12), 1.0)
    return fall * (slowing + slowing**2 + slowing**3)


def overfitting(reading: Reading) -> list[Sign]:
    """A held-out loss that has been rising for several evaluations while training goes on."""
    losses = [(e.step, e.loss) for e in reading.trace.evaluations if e.loss is not None]
    if len(losses) < 4:
        return []
    values = np.array([v for _, v in losses])
    best = int(values.argmin())
    after = values[best:]
    if len(after) < 4 or after[-1] < 1.1 * after[0] or (np.diff(after[-3:]) < 0).any():
        return []
    return [Sign(
        "overfitting", f"The held-out loss has risen from {after[0]:.3g} to {after[-1]:.3g} since "
        f"step {losses[best][0]}.", "loss", {"overfitting": 0.9, "epochs": 0.3}, 0.6,
        step=losses[best][0], force="notice",
        evidence={"best_held_out": float(after[0]), "held_out": float(after[-1])},
    )]  # fmt: skip
