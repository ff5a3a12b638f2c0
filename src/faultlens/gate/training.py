"""What a gate asks of a training: its trace diagnosed, faults and kinds of findings counted."""

import math
from collections.abc import Iterator
from fnmatch import fnmatch

from scipy import special

from faultlens.gate.config import GateConfig, Training
from faultlens.gate.judge import Result, Value, judge, plain
from faultlens.gate.measures import counted
from faultlens.spec.suite import Outcome
from faultlens.training.diagnose import diagnose
from faultlens.training.recorder import read_trace
from faultlens.training.success import Success
from faultlens.training.success import judge as judge_success

_SUITE = "training"


def training(asked: Training, config: GateConfig) -> Iterator[Result]:
    """Diagnose a trace and hold it against its thresholds.

    Args:
        asked: Trace and thresholds.
        config: The whole gate: `judge` and `confidence` count here too.

    Raises:
        StoreError: There is no trace, or it is damaged.
    """
    trace = read_trace(asked.trace)
    success = judge_success(trace)
    if success.state == "early" and not asked.unknown_passes:
        message = f"nothing can be said of a training after {success.n_steps} steps: too short"
        yield plain(_SUITE, "length", Outcome.FAILED, message, required="long enough to judge")
    found = [f.finding for f in diagnose(trace)]
    if asked.faults is not None:
        faults = [f for f in found if f.severity == "fault"]
        yield counted("faults", faults, asked.faults, _SUITE)
    for kind, most in asked.kinds.items():
        yield counted(kind, [f for f in found if fnmatch(f.kind, kind)], most, _SUITE)
    half = float(special.ndtri(0.5 + config.confidence / 2)) * success.error
    if asked.loss is not None:
        yield judge(_SUITE, _loss(success, half), asked.loss, config)
    if asked.gain is not None:
        yield judge(_SUITE, _gain(success, half), asked.gain, config)


def _loss(success: Success, half: float) -> Value:
    interval = None if math.isnan(half) else (success.loss - half, success.loss + half)
    return Value("loss", success.loss, None, interval, "no loss was finite", is_share=False)


def _gain(success: Success, half: float) -> Value:
    """Share of the best constant prediction's loss that was gained."""
    if not success.is_trivial_known:
        return Value("gain", None, None, None, "the loss of a constant prediction is not known")
    half = half / abs(success.trivial)
    interval = None if math.isnan(half) else (success.gain - half, success.gain + half)
    return Value("gain", success.gain, None, interval)
