"""Is a training succeeding? Its loss against the best constant predictor, with its own noise."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.training.trace import Trace

State = Literal["early", "succeeding", "learning", "failing"]

#: Steps before a training may be called failing: while it is far above the trivial loss, where no
#: healthy start stays, and while it is near, where many begin on a plateau.
PATIENCE_ABOVE, PATIENCE = 50, 200
FAR_ABOVE = 1.5
#: Steps below which nothing is said about the success of a training.
MIN_STEPS = 10
#: Standard errors that a difference of mean losses must exceed.
Z = 3.0
#: Share of the trivial loss that must be gained to call a training succeeding.
GAIN = 0.03
#: Share that a finished training of sound parts gains; one that ends with less is weak, and then a
#: fault that stands out for itself is told. On purpose not a state: noisy data end there as well.
HALF = 0.5
#: A loss that stands still with less than this gained has stalled.
STALLED_GAIN = 0.1
#: How many times the planned steps an extrapolated training may still need.
HORIZON = 3.0
#: Steps supposed to follow where no plan is known, in multiples of those done.
UNPLANNED = 20
#: Trivial losses that mean targets without any spread, whatever the rounding.
_NO_SPREAD = 1e-12
_N_WINDOW = 10


@dataclass(frozen=True, slots=True)
class Success:
    """How far a training has come.

    Attributes:
        state: `early` (too few steps to say), `succeeding` (clearly below the trivial loss),
            `learning` (not there yet, but falling, at a pace that gets there) or `failing`.
        loss: Mean of the recent losses.
        error: Its standard error.
        trivial: Loss of the best constant prediction; of the first steps where that is unknown.
        is_trivial_known: Whether `trivial` is the best constant prediction.
        gain: Share of the trivial loss that was gained, `1 - loss / trivial`; negative above it.
        start: Mean loss of the first steps.
        peak: Largest loss, in multiples of the first.
        n_steps: Steps that were judged.
        planned: Steps of the whole training, if known.
        is_finished: Whether the training reached its planned end.

    Example:
        >>> from faultlens.training.trace import Setup
        >>> judge(Trace(Setup(), (), loss=np.linspace(2.3, 0.5, 200),
        ...     steps=np.arange(1, 201), baseline=np.full(200, 2.3))).state
        'succeeding'
    """

    state: State
    loss: float
    error: float
    trivial: float
    is_trivial_known: bool
    gain: float
    start: float
    peak: float
    n_steps: int
    planned: int | None
    is_finished: bool

    @property
    def is_above(self) -> bool:
        """Whether the recent loss is worse than that of a constant prediction."""
        return self.is_trivial_known and self.loss - Z * self.error > self.trivial

    @property
    def is_weak(self) -> bool:
        """Whether it ended, after enough steps, with less than half of the trivial loss gained."""
        has_gained = self.state in ("succeeding", "learning")
        is_over = self.is_finished and self.n_steps >= PATIENCE
        return has_gained and is_over and self.is_trivial_known and self.gain < HALF


def trivial_loss(trace: Trace) -> float:
    """Return the loss of the best constant prediction for all targets seen; NaN if unknown."""
    known = trace.baseline[np.isfinite(trace.baseline)]
    return float(known[-1]) if len(known) else float("nan")


@np.errstate(all="ignore")  # losses that blow up overflow
def judge(trace: Trace) -> Success:
    """Compare the recent losses with the trivial loss and with the losses before them.

    A loss that is neither clearly below the trivial one nor falling towards it is a failure only
    after some patience, because healthy networks too start on a plateau.

    Args:
        trace: As far as it went; steps with a loss that is not finite are left out.

    Returns:
        The state and the numbers behind it.
    """
    loss = np.asarray(trace.loss, float)
    loss = loss[np.isfinite(loss)]
    n = int(trace.steps[-1]) if len(trace.steps) else 0
    planned = trace.setup.planned_steps
    finished = n >= planned if planned else trace.is_complete
    start = float(loss[: max(1, min(5, len(loss) // 10))].mean()) if len(loss) else float("nan")
    trivial = trivial_loss(trace)
    is_known = bool(np.isfinite(trivial)) and _has_spread(trace, trivial)
    trivial = trivial if is_known else start
    if len(loss) < MIN_STEPS:
        now = float(loss.mean()) if len(loss) else float("nan")
        return Success("early", now, float("nan"), trivial, is_known, 0.0, start, 1.0, n, planned,
                       finished)  # fmt: skip
    peak = float(loss.max() / loss[0]) if loss[0] > 0 else 1.0
    recent = loss[-_window(loss, 5) :]
    now, error = _mean(recent)
    gain = (trivial - now) / abs(trivial) if trivial else 0.0
    state: State = "failing"
    if trivial - now > Z * error and not (gain < STALLED_GAIN and _is_flat(loss)):
        state = "succeeding" if gain > GAIN else "learning"
    elif _arrives(loss, trivial, (planned or UNPLANNED * n) - n):
        state = "learning"
    if finished and gain <= GAIN:
        state = "failing"  # there is no time left to arrive
    far = is_known and now - Z * error > FAR_ABOVE * trivial
    patience = PATIENCE_ABOVE if far or finished else PATIENCE
    if state == "failing" and n < patience:
        state = "early"
    return Success(state, now, error, trivial, is_known, gain, start, peak, n, planned, finished)


def _has_spread(trace: Trace, trivial: float) -> bool:
    """Tell whether the targets differ at all.

    With one class, or one value, the constant prediction is perfect: only the fall tells. How
    large the first loss is says nothing of that; wild initial weights make it as large as they are.
    """
    targets = trace.data.get("targets")
    is_single = targets is not None and targets.n_unique == 1
    return abs(trivial) > _NO_SPREAD and not is_single


def _window(loss: FloatArray, share: float) -> int:
    """Return the length of a window that is a `share`-th of the losses, and long enough."""
    return max(min(_N_WINDOW, len(loss) // 2), int(len(loss) / share))


def _mean(window: FloatArray) -> tuple[float, float]:
    """Return a mean and its standard error, from blocks so that slow swings count as noise."""
    blocks = [b.mean() for b in np.array_split(window, min(10, len(window)))]
    spread = float(np.std(blocks, ddof=1)) if len(blocks) > 1 else 0.0
    return float(window.mean()), spread / float(np.sqrt(len(blocks)))


def _arrives(loss: FloatArray, trivial: float, remaining: int) -> bool:
    """Tell whether the loss falls, fast enough to pass the trivial loss in the time that is left.

    A quick fall shows in short windows, a slow one only in long ones.
    """
    return any(_falls(loss[-2 * n :], trivial, remaining)
               for n in (_window(loss, 5), _window(loss, 2.5)))  # fmt: skip


def _falls(both: FloatArray, trivial: float, remaining: int) -> bool:
    """Compare the two halves of a window.

    They may fall within themselves, which their spread would count as noise; the noise of single
    steps is taken from the differences of neighbours.
    """
    before, recent = np.array_split(both, 2)
    fall = float(before.mean() - recent.mean())
    noise = float(np.abs(np.diff(both)).mean()) * 1.25 / np.sqrt(len(recent))
    if fall <= Z * noise or fall <= 1e-4 * abs(trivial):
        return False
    missing = float(recent.mean()) - trivial * (1 - GAIN)
    return missing / (fall / len(recent)) <= HORIZON * max(remaining, len(both))


def _is_flat(loss: FloatArray) -> bool:
    """Tell whether the last half of a long training has not fallen."""
    if len(loss) < 2 * PATIENCE_ABOVE:
        return False
    third, last = np.array_split(loss[len(loss) // 2 :], 2)
    (a, ea), (b, eb) = _mean(third), _mean(last)
    return a - b <= Z * float(np.hypot(ea, eb))
