"""Traces for the tests of symptoms: healthy in every part but for what is planted."""

from dataclasses import replace

import numpy as np

from faultlens.training.diagnose import diagnose
from faultlens.training.reading import Reading
from faultlens.training.symptom import read_signs
from faultlens.training.trace import (
    STATS,
    DataSummary,
    LayerInfo,
    OptimizerInfo,
    ParameterInfo,
    Setup,
    Trace,
)

NAMES = list(STATS)
HEALTHY = {
    "output_min": -1, "output_max": 1, "output_std": 0.5, "output_variation": 0.4,
    "output_gradient_norm": 0.1, "output_gradient_mean_abs": 1e-3, "weight_norm": 5,
    "weight_std": 0.3, "weight_gradient_norm": 0.1, "weight_gradient_mean_abs": 1e-3,
    "weight_gradient_max_abs": 0.01, "update_norm": 0.01, "update_ratio": 2e-3,
    "output_saturated": 0.02, "output_zeros": 0.5, "output_dead": 0.1,
}  # fmt: skip


def parameters(fan_in, fan_out, **changes):
    std = changes.pop("std", 1 / np.sqrt(fan_in))
    weight = ParameterInfo("w", "weight", (fan_out, fan_in), True, True, std=std, maximum=1)
    return (replace(weight, **changes), ParameterInfo("b", "bias", (fan_out,), True, True))


def network(activations=("relu", "relu", "softmax"), widths=(4, 16, 16, 3)):
    """Linear layers, each with its activation as a layer of its own (`None`: none)."""
    layers, before = [], None
    for fn, a, b in zip(activations, widths[:-1], widths[1:], strict=True):
        k = len(layers)
        layers.append(LayerInfo(
            str(k), k, "Linear", "affine", parameters=parameters(a, b), n_parameters=a * b + b,
            inputs_from=(before,) if before else (), input_shape=(32, a), output_shape=(32, b),
        ))  # fmt: skip
        before = str(k)
        if fn:
            layers.append(LayerInfo(
                str(k + 1), k + 1, fn, "activation", fn, inputs_from=(before,),
                output_shape=(32, b),
            ))  # fmt: skip
            before = str(k + 1)
    return tuple(layers)


INPUTS = DataSummary((640, 4), "float32", -3, 3, 0, 1, n_features=4, n_unique=1000,
                     feature_scale_min=3, feature_scale_max=3)  # fmt: skip
ONE_HOT = DataSummary((640, 3), "float32", 0, 1, 1 / 3, 0.47, integers=1, n_unique=2, n_features=3,
                      rows_sum_to_one=1, is_one_hot=True, class_counts=(210, 220, 210))  # fmt: skip
NUMBERS = DataSummary((640, 1), "float32", -2, 2, 0, 1, n_unique=600)


def curve(n, start, end, noise=0.02, seed=0):
    return np.linspace(start, end, n) + noise * np.random.default_rng(seed).standard_normal(n)


STUCK = curve(400, 1.1, 1.1)
FALLING = np.geomspace(1.1, 0.1, 400) + curve(400, 0, 0)


def trace(loss=STUCK, layers=None, stats=None, *, targets=ONE_HOT, inputs=INPUTS, baseline=1.0986,
          kind="categorical_crossentropy", **changes):  # fmt: skip
    """A trace whose layers are healthy but for `stats`: (layer index or None, name) -> value."""
    layers = network() if layers is None else layers
    recorded = np.unique(np.r_[1:11, np.arange(20, len(loss) + 1, 20)])
    recorded = recorded[recorded <= len(loss)]
    values = np.zeros((len(recorded), len(layers), len(STATS)), np.float32)
    for name, value in HEALTHY.items():
        values[:, :, NAMES.index(name)] = value
    for (layer, name), value in (stats or {}).items():
        at = slice(None) if layer is None else layer
        values[:, at, NAMES.index(name)] = np.asarray(value).reshape(-1, *[1] * (layer is None))
    setup = Setup(loss=kind, batch_size=32, n_parameters=500, n_trainable=500,
                  optimizers=(OptimizerInfo("Adam", 0.001),))  # fmt: skip
    return Trace(
        replace(setup, **changes.pop("setup", {})), layers, np.arange(1, len(loss) + 1),
        np.asarray(loss, float), np.full(len(loss), float(baseline)),
        np.full(len(loss), 1e-3), recorded=recorded, values=values,
        data={k: v for k, v in (("inputs", inputs), ("targets", targets)) if v}, **changes,
    )  # fmt: skip


def faults(t):
    return [f for f in diagnose(t) if f.severity == "fault"]


def first(t):
    found = faults(t)
    assert found, [s.told for s in read_signs(Reading(t))]
    return found[0], [c.kind for c in found[0].causes[:2]]
